//! One hash of everything that one side shows.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;

use super::endpoint::ReadError;
use super::filter::{ReferenceFilter, canonical};
use super::reader::Reader;
use crate::resource::{Gvr, Scope};

/// A collection that both sides serve.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Collection {
    /// Where it is served.
    pub gvr: Gvr,
    /// Kind of its objects, e.g. `Pod`.
    pub kind: String,
    /// Cluster, or one namespace.
    pub scope: Scope,
}

/// SHA-256 over sorted (resource, namespace, name, uid, resourceVersion, content), in hex.
///
/// With a `filter` the content is what the filter shows: that is for the cluster. The facade's
/// content is taken as it is.
pub fn state_hash(objects: &[(&Collection, &Value)], filter: Option<&ReferenceFilter>) -> String {
    let mut entries: Vec<[Vec<u8>; 6]> = objects
        .iter()
        .map(|(collection, object)| {
            let text = |pointer: &str| {
                let text = object.pointer(pointer).and_then(Value::as_str);
                text.unwrap_or_default().as_bytes().to_vec()
            };
            let content = match filter {
                Some(filter) => untyped(&filter.apply(&collection.kind, object)),
                None => untyped(object),
            };
            [
                collection.gvr.to_string().into_bytes(),
                text("/metadata/namespace"),
                text("/metadata/name"),
                text("/metadata/uid"),
                text("/metadata/resourceVersion"),
                content,
            ]
        })
        .collect();
    entries.sort_unstable();
    let mut digest = Context::new(&SHA256);
    for field in entries.iter().flatten() {
        // Lengths keep fields from running into each other.
        digest.update(&(field.len() as u64).to_le_bytes());
        digest.update(field);
    }
    hex::encode(digest.finish())
}

/// Canonical content without the type, which the collection tells: API servers leave it out of
/// the items of a list.
fn untyped(object: &Value) -> Vec<u8> {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    canonical(&object)
}

/// What one side shows at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Objects with the collection they are in.
    pub objects: Vec<(Collection, Value)>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("objects", &self.objects.len())
            .finish()
    }
}

impl Snapshot {
    /// Lists all `collections` through `reader`.
    pub async fn read(reader: &Reader, collections: &[Collection]) -> Result<Self, ReadError> {
        let mut objects = Vec::new();
        for collection in collections {
            let listing = reader.list(&collection.gvr, &collection.scope).await?;
            let items = listing.items.into_iter();
            objects.extend(items.map(|item| (collection.clone(), item)));
        }
        Ok(Self { objects })
    }

    /// See [`state_hash`].
    pub fn hash(&self, filter: Option<&ReferenceFilter>) -> String {
        let objects: Vec<_> = self.objects.iter().map(|(c, object)| (c, object)).collect();
        state_hash(&objects, filter)
    }

    /// Objects of each kind.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (collection, _) in &self.objects {
            *counts.entry(collection.kind.clone()).or_insert(0) += 1;
        }
        counts
    }

    /// Masked values that are shown.
    pub fn masked_values(&self, filter: &ReferenceFilter) -> u64 {
        let masked = |kind: &String| filter.masked_kinds.contains(kind);
        let objects = self.objects.iter().filter(|(c, _)| masked(&c.kind));
        objects.map(|(_, object)| filter.count_masked(object)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods() -> Collection {
        Collection {
            gvr: Gvr::new("", "v1", "pods"),
            kind: "Pod".into(),
            scope: Scope::Cluster,
        }
    }

    fn pod(name: &str, version: &str) -> Value {
        json!({"metadata": {"name": name, "uid": name, "resourceVersion": version}, "spec": {}})
    }

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        let (c, a, b) = (pods(), pod("a", "1"), pod("b", "2"));
        let hash = state_hash(&[(&c, &a), (&c, &b)], None);
        assert_eq!(hash, state_hash(&[(&c, &b), (&c, &a)], None));
        assert_ne!(hash, state_hash(&[(&c, &a)], None));
        assert_ne!(hash, state_hash(&[(&c, &pod("a", "3")), (&c, &b)], None));
        let mut changed = b;
        changed["spec"]["x"] = json!(1);
        assert_ne!(hash, state_hash(&[(&c, &a), (&c, &changed)], None));
    }
}
