//! One object: its bytes as they came, and what selectors and fences ask of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::packed::Packed;
use crate::resource::{Gvr, Identity, ResourceVersion};

/// Bytes that are charged for an object besides what its JSON takes: index, identity, labels. Where
/// its texts alone take more, those are charged.
const OVERHEAD_BYTES: usize = 512;

/// Bytes that a label takes besides its own: two places, and what the allocator adds to each.
const LABEL_BYTES: usize = 64;

/// An object of the view.
///
/// A touch makes a new one with another version that shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    identity: Identity,
    json: Packed,
    version_at: usize,
    version_length: usize,
    opaque: bool,
    facts: Arc<Facts>,
}

/// What is read from an object once, when it comes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Facts {
    /// Sorted by key. A map would take five times the memory of the labels themselves.
    labels: Box<[(Box<str>, Box<str>)]>,
    /// Field selectors that only this kind of object has, by field.
    fields: Vec<(&'static str, String)>,
    terminating: bool,
}

/// What is read of every object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<IgnoredAny>,
    kind: Option<IgnoredAny>,
    metadata: Metadata,
}

/// What is read, in the same pass, of the kinds that have fields to be selected by.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectableHead {
    api_version: Option<IgnoredAny>,
    kind: Option<IgnoredAny>,
    metadata: Metadata,
    #[serde(default)]
    spec: SelectableSpec,
    #[serde(default)]
    status: SelectableStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectableSpec {
    node_name: Option<String>,
    restart_policy: Option<String>,
    service_account_name: Option<String>,
}

#[derive(Default, Deserialize)]
struct SelectableStatus {
    phase: Option<String>,
}

impl Object {
    /// Takes an object as it came: filtered JSON and where the digits of its version stand.
    ///
    /// `apiVersion` and `kind` are added where they are missing, as they are in the items of a
    /// list. An object that is `opaque`, is not JSON, or has no digits of its version where they
    /// were said to be, is reduced to its identity.
    pub fn new(
        gvr: &Gvr,
        kind: &str,
        identity: Identity,
        json: Bytes,
        version_at: u32,
        version_length: u32,
        opaque: bool,
    ) -> Self {
        let place = (version_at as usize, version_length as usize);
        if opaque || !stands_at(&json, place, identity.resource_version) {
            return Self::opaque(gvr, kind, identity);
        }
        let Ok((head, fields)) = read(gvr, &json) else {
            return Self::opaque(gvr, kind, identity);
        };
        let facts = Arc::new(Facts {
            labels: sorted(head.metadata.labels.unwrap_or_default()),
            fields,
            terminating: head.metadata.deletion_timestamp.is_some(),
        });
        let (json, version_at) = if head.api_version.is_some() && head.kind.is_some() {
            (json, place.0)
        } else {
            let missing = Missing {
                api_version: head.api_version.is_none(),
                kind: head.kind.is_none(),
            };
            with_type(gvr, kind, &json, place.0, &missing)
        };
        Self {
            identity,
            json: Packed::new(&json),
            version_at,
            version_length: place.1,
            opaque: false,
            facts,
        }
    }

    /// An object of which only the identity is known.
    fn opaque(gvr: &Gvr, kind: &str, identity: Identity) -> Self {
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let mut json = format!(
            "{{\"apiVersion\":{},\"kind\":{},\"metadata\":{{\"name\":{}",
            text(&gvr.api_version()),
            text(kind),
            text(&identity.name)
        );
        if !identity.namespace.is_empty() {
            json.push_str(",\"namespace\":");
            json.push_str(&text(&identity.namespace));
        }
        json.push_str(",\"uid\":");
        json.push_str(&text(&identity.uid));
        json.push_str(",\"resourceVersion\":\"");
        let version_at = json.len();
        let digits = identity.resource_version.to_string();
        json.push_str(&digits);
        json.push_str("\"}}");
        Self {
            identity,
            json: Packed::new(json.as_bytes()),
            version_at,
            version_length: digits.len(),
            opaque: true,
            facts: Arc::default(),
        }
    }

    /// The same content at another version.
    #[must_use]
    pub fn at_version(&self, version: ResourceVersion) -> Self {
        let mut object = self.clone();
        object.identity.resource_version = version;
        object
    }

    /// Who it is, and at which version.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether only its identity is known, because its content could not be filtered.
    pub const fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// Whether it has a deletion timestamp.
    pub fn is_terminating(&self) -> bool {
        self.facts.terminating
    }

    /// The value of a label, if it has it.
    pub fn label(&self, key: &str) -> Option<&str> {
        let labels = &self.facts.labels;
        let at = labels
            .binary_search_by(|(known, _)| (**known).cmp(key))
            .ok()?;
        labels.get(at).map(|(_, value)| &**value)
    }

    /// The value of a field that selectors may name, empty where the object lacks it; `None` for
    /// a field that this kind does not select by.
    pub fn field(&self, field: &str) -> Option<&str> {
        match field {
            "metadata.name" => Some(&self.identity.name),
            "metadata.namespace" => Some(&self.identity.namespace),
            _ => {
                let known = self.facts.fields.iter().find(|(name, _)| *name == field);
                known.map(|(_, value)| value.as_str())
            }
        }
    }

    /// Its JSON with its current version.
    pub fn json(&self) -> Bytes {
        let mut json = BytesMut::with_capacity(self.json.length() + 20);
        self.write_json(&mut json);
        json.freeze()
    }

    /// Appends its JSON with its current version to `out`.
    pub fn write_json(&self, out: &mut BytesMut) {
        let json = self.json.open();
        let (before, rest) = json.split_at(self.version_at.min(json.len()));
        out.put_slice(before);
        // Writing into a growing buffer cannot fail.
        let _written = write!(out, "{}", self.identity.resource_version);
        out.put_slice(rest.get(self.version_length..).unwrap_or_default());
    }

    /// Length of its JSON as it came, in bytes.
    pub fn json_bytes(&self) -> usize {
        self.json.length()
    }

    /// Where the digits of the version stand in [`Object::json`]: offset and length, in bytes.
    pub fn version_place(&self) -> (u32, u32) {
        let length = self.identity.resource_version.to_string().len();
        let narrow = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        (narrow(self.version_at), narrow(length))
    }

    /// What it costs, in bytes.
    pub(super) fn weight(&self) -> usize {
        let Identity {
            namespace,
            name,
            uid,
            ..
        } = &self.identity;
        // The index has namespace and name once more.
        let identity = 2 * (namespace.len() + name.len()) + uid.len();
        self.json.held_bytes() + OVERHEAD_BYTES.max(identity + self.facts.bytes())
    }
}

impl Facts {
    /// Bytes of its texts. What they are compressed to in the JSON tells nothing about them.
    fn bytes(&self) -> usize {
        let labels = self.labels.iter();
        let labels = labels.map(|(key, value)| key.len() + value.len() + LABEL_BYTES);
        let fields = self.fields.iter().map(|(_, value)| value.len());
        labels.chain(fields).sum()
    }
}

fn sorted(labels: BTreeMap<String, String>) -> Box<[(Box<str>, Box<str>)]> {
    let small = |(key, value): (String, String)| (key.into_boxed_str(), value.into_boxed_str());
    labels.into_iter().map(small).collect()
}

fn stands_at(json: &[u8], (at, length): (usize, usize), version: ResourceVersion) -> bool {
    at.checked_add(length)
        .and_then(|end| json.get(at..end))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(ResourceVersion::parse)
        == Some(version)
}

struct Missing {
    api_version: bool,
    kind: bool,
}

fn with_type(
    gvr: &Gvr,
    kind: &str,
    json: &Bytes,
    version_at: usize,
    missing: &Missing,
) -> (Bytes, usize) {
    // The head was parsed as an object with `metadata`, so what follows the brace is a member.
    let brace = json.iter().position(|byte| *byte == b'{').unwrap_or(0);
    let mut typed = BytesMut::with_capacity(json.len() + 64);
    typed.put_u8(b'{');
    let mut add = |name: &str, value: &str| {
        let value = serde_json::Value::from(value);
        let _written = write!(typed, "\"{name}\":{value},");
    };
    if missing.kind {
        add("kind", kind);
    }
    if missing.api_version {
        add("apiVersion", &gvr.api_version());
    }
    let added = typed.len();
    typed.put_slice(json.get(brace + 1..).unwrap_or_default());
    (
        typed.freeze(),
        (version_at + added).saturating_sub(brace + 1),
    )
}

/// The fields that API servers select this kind by, besides name and namespace.
pub(super) fn selectable(gvr: &Gvr) -> &'static [&'static str] {
    match (gvr.group.as_str(), gvr.resource.as_str()) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.serviceAccountName",
            "status.phase",
        ],
        ("", "namespaces") => &["status.phase"],
        _ => &[],
    }
}

type Fields = Vec<(&'static str, String)>;

fn read(gvr: &Gvr, json: &[u8]) -> serde_json::Result<(Head, Fields)> {
    let names = selectable(gvr);
    if names.is_empty() {
        return Ok((serde_json::from_slice(json)?, Vec::new()));
    }
    // Fields of another type than an API server gives them are no fields to select by.
    let (head, mut spec, mut status) = match serde_json::from_slice::<SelectableHead>(json) {
        Ok(SelectableHead {
            api_version,
            kind,
            metadata,
            spec,
            status,
        }) => {
            let head = Head {
                api_version,
                kind,
                metadata,
            };
            (head, spec, status)
        }
        Err(_) => (
            serde_json::from_slice(json)?,
            SelectableSpec::default(),
            SelectableStatus::default(),
        ),
    };
    let mut take = |name: &str| match name {
        "spec.nodeName" => spec.node_name.take(),
        "spec.restartPolicy" => spec.restart_policy.take(),
        "spec.serviceAccountName" => spec.service_account_name.take(),
        "status.phase" => status.phase.take(),
        _ => None,
    };
    let with_value = |name: &&'static str| (*name, take(name).unwrap_or_default());
    Ok((head, names.iter().map(with_value).collect()))
}
