//! The filter as one would write it over a parsed tree. Shares no code and no rules with the room.

use serde_json::{Map, Value, json};

use super::LAST_APPLIED;

const PLAIN: &str = "sortie.dev/secret-masked:v1";
const BASE64: &str = "c29ydGllLmRldi9zZWNyZXQtbWFza2VkOnYx";

const SCALARS: [&str; 10] = [
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
];

pub(super) fn pod(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    pod
}

pub(super) fn secret(secret: &Value, feed: bool) -> Value {
    object(secret, feed, true)
}

fn object(secret: &Value, feed: bool, outer: bool) -> Value {
    let mut out = Map::new();
    for (key, value) in secret.as_object().unwrap() {
        let kept = match key.as_str() {
            "metadata" => Some(metadata(value, feed, outer)),
            "data" => values(value, BASE64),
            "stringData" => values(value, PLAIN),
            "apiVersion" | "kind" | "type" | "immutable" => scalar(value),
            _ => None,
        };
        out.extend(kept.map(|value| (key.clone(), value)));
    }
    Value::Object(out)
}

fn scalar(value: &Value) -> Option<Value> {
    (!value.is_object() && !value.is_array()).then(|| value.clone())
}

fn values(value: &Value, mask: &str) -> Option<Value> {
    let keys = value.as_object()?.keys();
    Some(keys.map(|key| (key.clone(), json!(mask))).collect())
}

fn metadata(value: &Value, feed: bool, outer: bool) -> Value {
    let mut out = Map::new();
    for (key, value) in value.as_object().unwrap() {
        let kept = match key.as_str() {
            "annotations" => value.as_object().map(|map| annotations(map, outer)),
            "labels" => value.as_object().map(|map| {
                let kept = map
                    .iter()
                    .filter_map(|(key, value)| Some((key.clone(), scalar(value)?)));
                kept.collect()
            }),
            "ownerReferences" | "finalizers" => value.is_array().then(|| value.clone()),
            "managedFields" if feed || !outer => None,
            "managedFields" => value
                .as_array()
                .map(|list| list.iter().map(managed).collect()),
            key if SCALARS.contains(&key) => scalar(value),
            _ => None,
        };
        out.extend(kept.map(|value| (key.clone(), value)));
    }
    Value::Object(out)
}

fn annotations(map: &Map<String, Value>, outer: bool) -> Value {
    let mut out = Map::new();
    for (key, value) in map {
        let Some(text) = value.as_str() else {
            continue;
        };
        if key == "moniker.spinnaker.io/application" {
            out.insert(key.clone(), value.clone());
        }
        if key == LAST_APPLIED
            && outer
            && let Ok(inner) = serde_json::from_str::<Value>(text)
            && inner.is_object()
        {
            let filtered = object(&inner, false, false);
            // The filter keeps the writing of what it keeps; compare the meaning.
            out.insert(key.clone(), filtered);
        }
    }
    Value::Object(out)
}

fn managed(entry: &Value) -> Value {
    let mut out = Map::new();
    for (key, value) in entry.as_object().unwrap() {
        let kept = match key.as_str() {
            "manager" | "operation" | "apiVersion" | "time" | "fieldsType" | "subresource" => {
                scalar(value)
            }
            "fieldsV1" => Some(keys_only(value)),
            _ => None,
        };
        out.extend(kept.map(|value| (key.clone(), value)));
    }
    Value::Object(out)
}

fn keys_only(value: &Value) -> Value {
    let Some(map) = value.as_object() else {
        return json!({});
    };
    let kept = map.iter().filter(|(key, _)| !key.starts_with("v:"));
    kept.map(|(key, value)| (key.clone(), keys_only(value)))
        .collect()
}

/// The last-applied annotation as the tree that it holds, so that trees can be compared.
pub(super) fn opened(mut object: Value) -> Value {
    let annotations = object.pointer_mut("/metadata/annotations");
    if let Some(text) = annotations.and_then(|map| map.get_mut(LAST_APPLIED))
        && let Some(inner) = text
            .as_str()
            .and_then(|text| serde_json::from_str(text).ok())
    {
        *text = inner;
    }
    object
}
