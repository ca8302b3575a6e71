//! The reference filter: slow, on parsed values, and obviously right.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

/// The annotation in which client-side apply keeps the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Fields of a masked object that are kept as they are.
const FIELDS: [&str; 4] = ["apiVersion", "kind", "type", "immutable"];

/// Fields of a masked object's metadata that are kept; annotations are looked at one by one.
const METADATA: [&str; 13] = [
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "ownerReferences",
    "finalizers",
    "selfLink",
];

/// What a feed may show of an object.
#[derive(Clone, Debug)]
pub struct ReferenceFilter {
    /// Stands in place of each masked value.
    pub mask: String,
    /// Annotations of masked kinds that are kept.
    pub annotations: Vec<String>,
    /// Kinds whose values are masked, e.g. `Secret`.
    pub masked_kinds: Vec<String>,
}

impl ReferenceFilter {
    /// What may be seen of `object`, an object of `kind`.
    pub fn apply(&self, kind: &str, object: &Value) -> Value {
        let fields = object.as_object().cloned().unwrap_or_default();
        if self.masked_kinds.iter().any(|masked| masked == kind) {
            return Value::Object(self.masked(&fields, true));
        }
        let mut fields = fields;
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        Value::Object(fields)
    }

    /// Builds a masked object from what is allowed; `outermost` objects may hold another one in
    /// their last-applied annotation.
    fn masked(&self, fields: &Map<String, Value>, outermost: bool) -> Map<String, Value> {
        let mut kept = Map::new();
        for field in FIELDS {
            if let Some(value) = fields.get(field).filter(|value| is_scalar(value)) {
                kept.insert(field.into(), value.clone());
            }
        }
        for (field, mask) in [
            ("data", BASE64.encode(&self.mask)),
            ("stringData", self.mask.clone()),
        ] {
            if let Some(values) = fields.get(field).and_then(Value::as_object) {
                let values = values.keys().map(|key| (key.clone(), mask.clone().into()));
                kept.insert(field.into(), Value::Object(values.collect()));
            }
        }
        if let Some(metadata) = fields.get("metadata").and_then(Value::as_object) {
            let metadata = self.metadata(metadata, outermost);
            kept.insert("metadata".into(), Value::Object(metadata));
        }
        kept
    }

    fn metadata(&self, metadata: &Map<String, Value>, outermost: bool) -> Map<String, Value> {
        let mut kept = Map::new();
        for field in METADATA {
            if let Some(value) = metadata.get(field) {
                kept.insert(field.into(), value.clone());
            }
        }
        let Some(annotations) = metadata.get("annotations").and_then(Value::as_object) else {
            return kept;
        };
        let mut allowed = Map::new();
        for (name, value) in annotations {
            if name == LAST_APPLIED && outermost {
                let text = value.as_str().unwrap_or_default();
                if let Ok(Value::Object(applied)) = serde_json::from_str(text) {
                    let applied = Value::Object(self.masked(&applied, false));
                    allowed.insert(name.clone(), applied.to_string().into());
                }
            } else if self.annotations.contains(name) && value.is_string() {
                allowed.insert(name.clone(), value.clone());
            }
        }
        kept.insert("annotations".into(), Value::Object(allowed));
        kept
    }

    /// Masked values that `object` shows, in its fields and in its last-applied annotation.
    pub fn count_masked(&self, object: &Value) -> u64 {
        let encoded = BASE64.encode(&self.mask);
        let mut count = 0;
        for (field, mask) in [("data", &encoded), ("stringData", &self.mask)] {
            let values = object.get(field).and_then(Value::as_object);
            let values = values.into_iter().flat_map(Map::values);
            count += values.filter(|value| value.as_str() == Some(mask)).count() as u64;
        }
        let applied = object
            .pointer("/metadata/annotations")
            .and_then(|all| all.get(LAST_APPLIED));
        let applied = applied.and_then(Value::as_str).unwrap_or_default();
        match serde_json::from_str::<Value>(applied) {
            Ok(applied) => count + self.count_masked(&applied),
            Err(_not_json) => count,
        }
    }
}

fn is_scalar(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

/// The content of an object in one spelling: sorted keys, and the last-applied annotation's JSON
/// re-written; kind and version are left out, since items of lists do not say them.
pub fn canonical(object: &Value) -> Vec<u8> {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    if let Some(annotations) = object.pointer_mut("/metadata/annotations") {
        if let Some(applied) = annotations.get_mut(LAST_APPLIED)
            && let Ok(parsed) = serde_json::from_str(applied.as_str().unwrap_or_default())
        {
            let mut spelled = Vec::new();
            spell(&parsed, &mut spelled);
            *applied = String::from_utf8_lossy(&spelled).into_owned().into();
        }
        // A map without entries says the same as none.
        if annotations.as_object().is_some_and(Map::is_empty)
            && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("annotations");
        }
    }
    let mut spelled = Vec::new();
    spell(&object, &mut spelled);
    spelled
}

fn spell(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_unstable();
            out.push(b'{');
            for key in keys {
                out.extend(Value::from(key.as_str()).to_string().bytes());
                out.push(b':');
                spell(fields.get(key).unwrap_or(&Value::Null), out);
                out.push(b',');
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                spell(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        scalar => out.extend(scalar.to_string().bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filter() -> ReferenceFilter {
        ReferenceFilter {
            mask: "masked:v1".into(),
            annotations: vec!["keep.example/this".into()],
            masked_kinds: vec!["Secret".into()],
        }
    }

    #[test]
    fn a_secret_keeps_its_keys_and_nothing_it_hides() {
        let applied = json!({
            "kind": "Secret", "stringData": {"a": "hidden-1"}, "data": {"b": "hidden-2"},
            "metadata": {"annotations": {"other": "hidden-3", LAST_APPLIED: "hidden-4"}},
        });
        let secret = json!({
            "kind": "Secret", "type": "Opaque", "data": {"b": "hidden-5", "c": {"d": "hidden-6"}},
            "surprise": "hidden-7",
            "metadata": {
                "name": "s", "uid": "u", "managedFields": [{"f": "hidden-8"}], "odd": "hidden-9",
                "annotations": {
                    "keep.example/this": "yes", "other": "hidden-10",
                    LAST_APPLIED: applied.to_string(),
                },
            },
        });
        let shown = filter().apply("Secret", &secret);
        assert!(!shown.to_string().contains("hidden"), "{shown}");
        let mask = BASE64.encode("masked:v1");
        assert_eq!(shown["data"], json!({"b": mask, "c": mask}));
        assert_eq!(shown["metadata"]["annotations"]["keep.example/this"], "yes");
        let text = shown["metadata"]["annotations"][LAST_APPLIED]
            .as_str()
            .expect("kept");
        let applied: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(applied["stringData"], json!({"a": "masked:v1"}));
        assert_eq!(filter().count_masked(&shown), 4);
        assert_eq!(
            filter().apply("Secret", &shown),
            shown,
            "filtering twice changes nothing"
        );
    }

    #[test]
    fn a_last_applied_annotation_that_is_no_object_goes() {
        for text in ["not json hidden", "[\"hidden\"]", ""] {
            let secret = json!({"metadata": {"annotations": {LAST_APPLIED: text}}});
            let shown = filter().apply("Secret", &secret);
            assert_eq!(shown["metadata"]["annotations"], json!({}), "{text}");
        }
    }

    #[test]
    fn other_kinds_lose_only_their_managed_fields() {
        let pod = json!({"metadata": {"name": "p", "managedFields": []}, "spec": {"a": [1]}});
        let expected = json!({"metadata": {"name": "p"}, "spec": {"a": [1]}});
        assert_eq!(filter().apply("Pod", &pod), expected);
    }

    #[test]
    fn the_same_content_is_spelled_the_same() {
        let annotated = |text: &str| json!({"metadata": {"annotations": {LAST_APPLIED: text}}});
        let one = canonical(&annotated("{\"a\":1,\"b\":2}\n"));
        assert_eq!(one, canonical(&annotated("{\"b\": 2, \"a\": 1}")));
        assert_ne!(one, canonical(&annotated("{\"b\": 2, \"a\": 3}")));
        let item = json!({"metadata": {"name": "a", "annotations": {}}});
        let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}});
        assert_eq!(canonical(&item), canonical(&object));
    }
}
