//! The filter of one feed: objects and watch events of one resource.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::copier::Copier;
use super::json::{Flaw, Reader};
use super::object::{Facts, Plan, Purpose};
use super::status;
use super::trail::{Sums, Trail};
use super::{Refused, Scrubbed};
use crate::policy::ScrubRules;
use crate::resource::{Gvr, Identity, ResourceVersion};

/// A filtered object and what was learned on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Who it is.
    pub identity: Identity,
    /// The object, filtered.
    pub bytes: Scrubbed,
    /// Where the digits of `metadata.resourceVersion` start in [`Object::bytes`].
    pub version_at: u32,
    /// How many digits there are.
    pub version_length: u32,
    /// Keyed hash of [`Object::bytes`] without those digits.
    pub content_hash: u64,
}

/// A line of a watch, filtered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The object is now this.
    Upsert(Object),
    /// The object is gone.
    Delete(Identity),
    /// Everything up to `version` has been told.
    Bookmark {
        /// Where a later watch may start.
        version: ResourceVersion,
        /// Whether the initial events of a streaming list end here.
        initial_events_end: bool,
    },
    /// The watch has failed.
    Error {
        /// HTTP status.
        code: u16,
        /// One of Kubernetes' own reasons, or `Unknown`.
        reason: String,
    },
}

/// Filters what a list or watch of one resource tells.
#[derive(Debug)]
pub struct Filter {
    rules: Arc<ScrubRules>,
    gvr: Gvr,
    /// `"kind":"…","apiVersion":"…",` as API servers write it at the start of an object.
    type_members: String,
    hash_key: RandomState,
    sums: Sums,
}

impl Filter {
    /// A filter for feeds of `gvr`, whose objects are of `kind`. Content hashes of filters with clones of one `hash_key` can
    /// be compared (keyed `SipHash`, so that nobody who writes objects can make two of them equal).
    pub fn feed(rules: Arc<ScrubRules>, gvr: Gvr, kind: &str, hash_key: RandomState) -> Self {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let api_version = quoted(&gvr.api_version());
        let type_members = format!("\"kind\":{},\"apiVersion\":{api_version},", quoted(kind));
        Self {
            rules,
            gvr,
            type_members,
            hash_key,
            sums: Sums::default(),
        }
    }

    /// Whether values of this resource are masked.
    pub fn masks(&self) -> bool {
        self.rules.masked(&self.gvr).is_some()
    }

    /// What was removed so far.
    pub fn trail(&self) -> Trail {
        self.sums.trail()
    }

    /// Filters one item of a list. API servers leave the type out there: it is put in front, where
    /// a watch has it, so that both forms of an object have the same bytes and the same hash.
    pub fn item(&self, json: &[u8]) -> Result<Object, Refused> {
        let Some(members) = untyped(json) else {
            return self.object(json);
        };
        let mut typed =
            Zeroizing::new(Vec::with_capacity(json.len() + self.type_members.len() + 1));
        typed.push(b'{');
        typed.extend_from_slice(self.type_members.as_bytes());
        typed.extend_from_slice(members);
        self.object(&typed)
    }

    /// Filters one object.
    pub fn object(&self, json: &[u8]) -> Result<Object, Refused> {
        let mut copier = Copier::new(json).map_err(|flaw| self.refuse(flaw))?;
        let object = self.one(&mut copier, false)?;
        match copier.reader.finish() {
            Ok(()) => Ok(self.count(&copier, object)),
            Err(flaw) => Err(Refused {
                identity: Some(object.identity),
                ..self.refuse(flaw)
            }),
        }
    }

    /// Filters one line of a watch.
    pub fn watch_event(&self, line: &[u8]) -> Result<WatchEvent, Refused> {
        let mut copier = Copier::new(line).map_err(|flaw| self.refuse(flaw))?;
        let mut envelope = Envelope::default();
        let read = self.envelope(&mut copier, &mut envelope);
        let finished = read.and_then(|()| {
            let tail = copier.reader.finish();
            tail.map_err(|flaw| Refused::from(flaw).about(&envelope))
        });
        if let Err(refused) = finished {
            self.sums.refused();
            return Err(refused);
        }
        match envelope.event {
            Some(WatchEvent::Upsert(object)) => Ok(WatchEvent::Upsert(self.count(&copier, object))),
            Some(event) => Ok(event),
            None => Err(self.refuse(Flaw::Shape)),
        }
    }

    fn envelope(&self, copier: &mut Copier<'_>, envelope: &mut Envelope) -> Result<(), Refused> {
        let mut early = None;
        let mut first = true;
        copier.reader.enter(b'{')?;
        while let Some(member) = copier.reader.member(&mut first)? {
            if copier.reader.is(member.key, "type") {
                let text = copier.reader.string()?;
                let is_known = envelope
                    .kind
                    .replace(EventKind::read(&copier.reader, text)?);
                if is_known.is_some() {
                    return Err(Flaw::Duplicate.into());
                }
            } else if copier.reader.is(member.key, "object") {
                if envelope.event.is_some() || early.is_some() {
                    return Err(Flaw::Duplicate.into());
                }
                if let Some(kind) = envelope.kind {
                    envelope.event = Some(self.event(copier, kind)?);
                } else {
                    let start = copier.reader.at();
                    copier.reader.skip()?;
                    early = Some((start, copier.reader.at()));
                }
            } else {
                copier.reader.skip()?;
            }
        }
        if let (Some((start, end)), Some(kind)) = (early, envelope.kind) {
            // API servers write the type first; whoever does not pays for reading twice.
            let object = copier.reader.input().get(start..end).unwrap_or_default();
            envelope.event = Some(self.event(&mut Copier::new(object)?, kind)?);
        }
        Ok(())
    }

    fn event(&self, copier: &mut Copier<'_>, kind: EventKind) -> Result<WatchEvent, Refused> {
        match kind {
            EventKind::Upsert => self.one(copier, false).map(WatchEvent::Upsert),
            EventKind::Delete => {
                let object = self.one(copier, true)?;
                Ok(WatchEvent::Delete(object.identity))
            }
            EventKind::Bookmark => Ok(bookmark(&mut copier.reader)?),
            EventKind::Error => {
                let start = copier.reader.at();
                copier.reader.skip()?;
                let text = copier.reader.input().get(start..copier.reader.at());
                let (code, reason) = status::code_and_reason(text.unwrap_or_default())?;
                Ok(WatchEvent::Error { code, reason })
            }
        }
    }

    /// Filters the object that the cursor stands before.
    fn one(&self, copier: &mut Copier<'_>, deleted: bool) -> Result<Object, Refused> {
        let plan = Plan {
            rules: &self.rules,
            masked: self.rules.masked(&self.gvr),
            purpose: Purpose::Feed,
        };
        let mut facts = Facts::default();
        let filtered = copier
            .start()
            .and_then(|()| plan.object(copier, &mut facts));
        let refuse = |flaw: Flaw| Refused {
            label: flaw.label(),
            identity: facts.identity(copier),
            deleted,
        };
        filtered.map_err(refuse)?;
        let Some(identity) = facts.identity(copier) else {
            return Err(refuse(Flaw::Identity));
        };
        let (version_at, version_length) = facts.version_place;
        if version_length == 0 {
            return Err(refuse(Flaw::Version));
        }
        let out = copier.take();
        let mut hasher = self.hash_key.build_hasher();
        hasher.write(out.get(..version_at).unwrap_or_default());
        hasher.write(out.get(version_at + version_length..).unwrap_or_default());
        let small = |at: usize| u32::try_from(at).map_err(|_large| Flaw::TooLarge);
        Ok(Object {
            identity,
            version_at: small(version_at)?,
            version_length: small(version_length)?,
            content_hash: hasher.finish(),
            // Without spare room: streams and views keep these bytes.
            bytes: Scrubbed(Bytes::from(out.into_boxed_slice())),
        })
    }

    fn count(&self, copier: &Copier<'_>, object: Object) -> Object {
        let bytes_in = copier.reader.input().len();
        self.sums
            .filtered(copier.counts, bytes_in, object.bytes.0.len());
        object
    }

    fn refuse(&self, flaw: Flaw) -> Refused {
        self.sums.refused();
        flaw.into()
    }
}

/// What has been read of a watch line.
#[derive(Debug, Default)]
struct Envelope {
    kind: Option<EventKind>,
    event: Option<WatchEvent>,
}

impl Refused {
    /// Adds what the envelope told before the flaw.
    fn about(self, envelope: &Envelope) -> Self {
        let identity = match &envelope.event {
            Some(WatchEvent::Upsert(object)) => Some(object.identity.clone()),
            Some(WatchEvent::Delete(identity)) => Some(identity.clone()),
            Some(WatchEvent::Bookmark { .. } | WatchEvent::Error { .. }) | None => None,
        };
        Self {
            identity: self.identity.or(identity),
            deleted: matches!(envelope.kind, Some(EventKind::Delete)),
            ..self
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum EventKind {
    Bookmark,
    Delete,
    Error,
    Upsert,
}

impl EventKind {
    fn read(reader: &Reader<'_>, text: super::json::Text) -> Result<Self, Flaw> {
        Ok(match reader.decoded_key(text).as_ref() {
            b"ADDED" | b"MODIFIED" => Self::Upsert,
            b"DELETED" => Self::Delete,
            b"BOOKMARK" => Self::Bookmark,
            b"ERROR" => Self::Error,
            _ => return Err(Flaw::Shape),
        })
    }
}

/// Reads an object of which only the version and one annotation matter.
fn bookmark(reader: &mut Reader<'_>) -> Result<WatchEvent, Flaw> {
    let mut version = None;
    let mut initial_events_end = false;
    each(reader, &mut |reader, key| {
        if key != b"metadata" {
            return reader.skip();
        }
        each(reader, &mut |reader, key| match key {
            b"resourceVersion" => {
                let text = reader.string()?;
                let parsed = ResourceVersion::parse(&reader.owned(text));
                match version.replace(parsed.ok_or(Flaw::Version)?) {
                    Some(_) => Err(Flaw::Duplicate),
                    None => Ok(()),
                }
            }
            b"annotations" if reader.peek()? == b'{' => each(reader, &mut |reader, key| {
                let start = reader.at();
                reader.skip()?;
                if key == b"k8s.io/initial-events-end" {
                    let value = reader.input().get(start..reader.at());
                    initial_events_end = value == Some(b"\"true\"");
                }
                Ok(())
            }),
            _ => reader.skip(),
        })
    })?;
    Ok(WatchEvent::Bookmark {
        version: version.ok_or(Flaw::Version)?,
        initial_events_end,
    })
}

/// Called before a member's value, which it has to read or skip.
pub(super) type Visit<'v, 'a> = dyn FnMut(&mut Reader<'a>, &[u8]) -> Result<(), Flaw> + 'v;

/// Calls `visit` before the value of each member of the object that the cursor stands before.
/// The members of an object that starts without its type; `None` if it has one, or is not an
/// object with members.
fn untyped(json: &[u8]) -> Option<&[u8]> {
    let members = json.trim_ascii_start().strip_prefix(b"{")?;
    let mut reader = Reader::new(json).ok()?;
    let mut has_type = false;
    let read = each(&mut reader, &mut |reader, key| {
        has_type |= matches!(key, b"kind" | b"apiVersion");
        reader.skip()
    });
    let empty = members.trim_ascii_start().starts_with(b"}");
    (read.is_ok() && !has_type && !empty).then_some(members)
}

pub(super) fn each<'a>(reader: &mut Reader<'a>, visit: &mut Visit<'_, 'a>) -> Result<(), Flaw> {
    reader.enter(b'{')?;
    let mut first = true;
    while let Some(member) = reader.member(&mut first)? {
        let key = reader.decoded_key(member.key);
        visit(reader, &key)?;
    }
    Ok(())
}
