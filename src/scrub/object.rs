//! Filters one object: what is left out depends on the kind that was asked for.

use super::copier::{Copier, Walk};
use super::json::{Flaw, Member, Text};
use super::text;
use super::trail::Counts;
use crate::limits;
use crate::policy::{MaskedKind, ScrubRules};
use crate::resource::{Identity, ResourceVersion};

/// How objects of one request are filtered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'r> {
    pub(super) rules: &'r ScrubRules,
    /// `None`: nothing is masked.
    pub(super) masked: Option<&'r MaskedKind>,
    pub(super) purpose: Purpose,
}

/// What the filtered object is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// An answer to a request: `managedFields` stay, as keys.
    Answer,
    /// A feed: `managedFields` go, and the object has to say who it is.
    Feed,
    /// The object inside a last-applied annotation.
    LastApplied,
}

/// What is learned on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    has_metadata: bool,
    namespace: Option<Text>,
    name: Option<Text>,
    uid: Option<Text>,
    version: Option<Text>,
    /// Where the digits of the version stand in the output, and how many there are.
    pub(super) version_place: (usize, usize),
}

impl Facts {
    /// The identity, as far as it was read.
    pub(super) fn identity(&self, copier: &Copier<'_>) -> Option<Identity> {
        let text = |text: Option<Text>| text.map(|text| copier.reader.owned(text));
        let digits = self.version.map(|text| copier.reader.raw(text));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let version = digits.and_then(ResourceVersion::parse);
        let parts = [self.namespace, self.name, self.uid].into_iter().flatten();
        let mut parts = parts.map(|part| copier.reader.raw(part).len());
        if parts.any(|length| length > limits::IDENTITY_BYTES) {
            return None;
        }
        Some(Identity {
            namespace: text(self.namespace).unwrap_or_default(),
            name: text(self.name).filter(|name| !name.is_empty())?,
            uid: text(self.uid).filter(|uid| !uid.is_empty())?,
            resource_version: version.unwrap_or_default(),
        })
    }
}

impl Plan<'_> {
    /// Filters the object that the cursor stands before.
    pub(super) fn object(&self, copier: &mut Copier<'_>, facts: &mut Facts) -> Result<(), Flaw> {
        let mut walk = copier.enter()?;
        while let Some(member) = copier.member(&mut walk)? {
            if copier.reader.is(member.key, "metadata") {
                if facts.has_metadata {
                    return Err(Flaw::Duplicate);
                }
                facts.has_metadata = true;
                copier.keep(&mut walk, member);
                self.metadata(copier, facts)?;
                continue;
            }
            let Some(kind) = self.masked else {
                copier.keep(&mut walk, member);
                copier.reader.skip()?;
                continue;
            };
            if copier.reader.is_any(member.key, &kind.base64_values) {
                values(copier, &mut walk, member, self.rules.mask_base64())?;
            } else if copier.reader.is_any(member.key, &kind.plain_values) {
                values(copier, &mut walk, member, self.rules.mask())?;
            } else if copier.reader.is_any(member.key, &kind.fields) {
                copier.keep_scalar(&mut walk, member)?;
            } else {
                copier.omit(member)?;
            }
        }
        Ok(())
    }

    fn metadata(&self, copier: &mut Copier<'_>, facts: &mut Facts) -> Result<(), Flaw> {
        let mut walk = copier.enter()?;
        while let Some(member) = copier.member(&mut walk)? {
            let dropped = self.purpose == Purpose::Feed
                && copier.reader.is_any(member.key, self.rules.feed_drops());
            if dropped {
                copier.omit(member)?;
            } else if self.identity_field(copier, facts, member)? {
                copier.keep(&mut walk, member);
                if let (Purpose::Feed, Some(version), (0, 0)) =
                    (self.purpose, facts.version, facts.version_place)
                {
                    facts.version_place = copier.place(version);
                }
            } else if let Some(kind) = self.masked {
                self.masked_metadata(copier, &mut walk, member, kind)?;
            } else {
                copier.keep(&mut walk, member);
                copier.reader.skip()?;
            }
        }
        Ok(())
    }

    /// Reads the member if it says who the object is.
    fn identity_field(
        &self,
        copier: &mut Copier<'_>,
        facts: &mut Facts,
        member: Member,
    ) -> Result<bool, Flaw> {
        let key = copier.reader.decoded_key(member.key);
        let (place, is_version) = match key.as_ref() {
            b"name" => (&mut facts.name, false),
            b"namespace" => (&mut facts.namespace, false),
            b"uid" => (&mut facts.uid, false),
            b"resourceVersion" => (&mut facts.version, true),
            _ => return Ok(false),
        };
        if place.is_some() {
            return Err(Flaw::Duplicate);
        }
        if copier.reader.peek()? != b'"' {
            return Err(Flaw::Identity);
        }
        let text = copier.reader.string()?;
        *place = Some(text);
        if is_version && self.purpose == Purpose::Feed {
            let digits = std::str::from_utf8(copier.reader.raw(text)).unwrap_or_default();
            if ResourceVersion::parse(digits).is_none() {
                return Err(Flaw::Version);
            }
        }
        Ok(true)
    }

    fn masked_metadata(
        &self,
        copier: &mut Copier<'_>,
        walk: &mut Walk,
        member: Member,
        kind: &MaskedKind,
    ) -> Result<(), Flaw> {
        if !copier.reader.is_any(member.key, &kind.metadata) {
            return copier.omit(member);
        }
        let key = copier.reader.decoded_key(member.key);
        let next = copier.reader.peek()?;
        match (key.as_ref(), next) {
            (b"annotations", b'{') => {
                copier.keep(walk, member);
                self.annotations(copier, kind)
            }
            (b"labels", b'{') => {
                copier.keep(walk, member);
                let mut inner = copier.enter()?;
                while let Some(label) = copier.member(&mut inner)? {
                    copier.keep_scalar(&mut inner, label)?;
                }
                Ok(())
            }
            (b"managedFields", b'[') if self.purpose == Purpose::Answer => {
                copier.keep(walk, member);
                managed_fields(copier)
            }
            (b"ownerReferences" | b"finalizers", b'[') => {
                copier.keep(walk, member);
                copier.reader.skip()
            }
            (
                b"annotations" | b"labels" | b"managedFields" | b"ownerReferences" | b"finalizers",
                _,
            ) => copier.omit(member),
            _ => copier.keep_scalar(walk, member),
        }
    }

    fn annotations(&self, copier: &mut Copier<'_>, kind: &MaskedKind) -> Result<(), Flaw> {
        let mut walk = copier.enter()?;
        while let Some(member) = copier.member(&mut walk)? {
            let is_text = copier.reader.peek()? == b'"';
            if is_text && copier.reader.is_any(member.key, &kind.annotations) {
                copier.keep(&mut walk, member);
                copier.reader.skip()?;
                continue;
            }
            let is_last_applied = is_text
                && self.purpose != Purpose::LastApplied
                && copier.reader.is(member.key, &kind.last_applied);
            let start = copier.reader.at();
            if is_last_applied {
                let text = copier.reader.string()?;
                if let Ok((filtered, counts)) = self.last_applied(&copier.reader.decoded(text)) {
                    copier.keep(&mut walk, member);
                    copier.flush(start);
                    let mut quoted = Vec::with_capacity(filtered.len() + filtered.len() / 8 + 2);
                    text::quote(&filtered, &mut quoted);
                    copier.put(&quoted);
                    copier.counts.add(counts);
                    continue;
                }
            } else {
                copier.reader.skip()?;
            }
            copier.cut(member);
            copier.counts.annotations_dropped += 1;
        }
        Ok(())
    }

    /// Filters the object inside a last-applied annotation by the same rules.
    fn last_applied(&self, text: &[u8]) -> Result<(Vec<u8>, Counts), Flaw> {
        let inner = Self {
            purpose: Purpose::LastApplied,
            ..*self
        };
        let mut copier = Copier::new(text)?;
        copier.reader.peek()?;
        inner.object(&mut copier, &mut Facts::default())?;
        copier.finish()
    }
}

/// Masks every value of the object that the cursor stands before.
fn values(
    copier: &mut Copier<'_>,
    walk: &mut Walk,
    member: Member,
    mask: &str,
) -> Result<(), Flaw> {
    if copier.reader.peek()? != b'{' {
        return copier.omit(member);
    }
    copier.keep(walk, member);
    let mut inner = copier.enter()?;
    while let Some(entry) = copier.member(&mut inner)? {
        copier.keep(&mut inner, entry);
        copier.flush(copier.reader.at());
        copier.reader.skip()?;
        // No escapes: the mask is checked to be plain ASCII when the rules are loaded.
        copier.put(b"\"");
        copier.put(mask.as_bytes());
        copier.put(b"\"");
        copier.counts.values_masked += 1;
    }
    Ok(())
}

/// Keeps who manages which keys, and no value.
///
/// Path elements `v:` spell out values of sets, so they go. Elements `k:` stay, since kubectl needs
/// them to tell entries apart: they spell out keys of lists, of which masked kinds have only the
/// uids of owners (structured merge diff, "Fields V1").
fn managed_fields(copier: &mut Copier<'_>) -> Result<(), Flaw> {
    const SCALARS: [&str; 6] = [
        "manager",
        "operation",
        "apiVersion",
        "time",
        "fieldsType",
        "subresource",
    ];
    copier.reader.enter(b'[')?;
    let mut count = 0;
    while copier.reader.element(&mut count)?.is_some() {
        let mut walk = copier.enter()?;
        while let Some(member) = copier.member(&mut walk)? {
            if copier.reader.is(member.key, "fieldsV1") {
                copier.keep(&mut walk, member);
                key_structure(copier)?;
            } else if SCALARS
                .iter()
                .any(|known| copier.reader.is(member.key, known))
            {
                copier.keep_scalar(&mut walk, member)?;
            } else {
                copier.omit(member)?;
            }
        }
    }
    Ok(())
}

/// Keeps the keys of nested objects; everything that is not an object becomes `{}`.
fn key_structure(copier: &mut Copier<'_>) -> Result<(), Flaw> {
    if copier.reader.peek()? != b'{' {
        return copier.replace(b"{}");
    }
    let mut walk = copier.enter()?;
    while let Some(member) = copier.member(&mut walk)? {
        if copier.reader.decoded_key(member.key).starts_with(b"v:") {
            copier.omit(member)?;
        } else {
            copier.keep(&mut walk, member);
            key_structure(copier)?;
        }
    }
    Ok(())
}
