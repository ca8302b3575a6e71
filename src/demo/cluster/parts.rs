//! Shapes made from objects: list items and pages, scales, logs.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use super::fields::text;
use super::refusal::Refusal;
use super::route::Query;
use super::store::Key;

/// Lines a pod's log has here.
const LOG_LINES: u64 = 20;

/// An object as an item of a list: kind and version are said by the list.
pub(super) fn item(object: &Value) -> Value {
    let mut item = object.clone();
    if let Some(fields) = item.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    item
}

/// The `Scale` of an object.
pub(super) fn scale_of(object: &Value) -> Value {
    let labels = object.pointer("/spec/selector/matchLabels");
    let labels = labels.and_then(Value::as_object).into_iter().flatten();
    let selector: Vec<String> = labels
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": text(object, "/metadata/name"),
            "namespace": text(object, "/metadata/namespace"),
            "uid": text(object, "/metadata/uid"),
            "resourceVersion": text(object, "/metadata/resourceVersion"),
            "creationTimestamp": text(object, "/metadata/creationTimestamp"),
        },
        "spec": {"replicas": number("/spec/replicas")},
        "status": {"replicas": number("/status/replicas"), "selector": selector.join(",")},
    })
}

/// The log of a pod's container.
pub(super) fn log_of(pod: &Value, container: &str, tail: Option<u64>) -> String {
    let name = text(pod, "/metadata/name");
    let first = LOG_LINES - tail.unwrap_or(LOG_LINES).min(LOG_LINES);
    (first..LOG_LINES).fold(String::new(), |mut log, line| {
        // Writing to a string cannot fail.
        let _written = writeln!(log, "{name} {container} request {line} served");
        log
    })
}

/// Which page of a list is asked for.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The version that all pages are read at; none for the first.
    pub(super) version: Option<u64>,
    after: Option<(String, String)>,
    limit: usize,
}

impl Page {
    /// Reads `limit`, `continue` and an exact `resourceVersion`.
    pub(super) fn parse(query: &Query) -> Result<Self, Refusal> {
        let limit = query.number("limit").unwrap_or(0);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let token = query.text("continue");
        if token.is_empty() {
            let exact = query.text("resourceVersionMatch") == "Exact";
            let version = query.number("resourceVersion").filter(|_| exact);
            return Ok(Self {
                version,
                after: None,
                limit,
            });
        }
        let bad = || Refusal::bad_request("continue key is not valid");
        let token = BASE64
            .decode(token)
            .ok()
            .and_then(|t| String::from_utf8(t).ok());
        let token = token.ok_or_else(bad)?;
        let mut fields = token.splitn(3, '/');
        let version = fields
            .next()
            .and_then(|field| field.parse().ok())
            .ok_or_else(bad)?;
        let namespace = fields.next().ok_or_else(bad)?.to_owned();
        let name = fields.next().ok_or_else(bad)?.to_owned();
        Ok(Self {
            version: Some(version),
            after: Some((namespace, name)),
            limit,
        })
    }

    /// The metadata of the list and the objects of this page.
    pub(super) fn cut(
        &self,
        version: u64,
        mut objects: Vec<(Key, Arc<Value>)>,
    ) -> (Value, Vec<Arc<Value>>) {
        if let Some((namespace, name)) = &self.after {
            objects.retain(|(key, _)| (&key.namespace, &key.name) > (namespace, name));
        }
        let mut metadata = json!({"resourceVersion": version.to_string()});
        let remaining = objects.len().saturating_sub(self.limit);
        if self.limit > 0 && remaining > 0 {
            objects.truncate(self.limit);
            if let (Some((last, _)), Some(fields)) = (objects.last(), metadata.as_object_mut()) {
                let token = BASE64.encode(format!("{version}/{}/{}", last.namespace, last.name));
                fields.insert("continue".into(), token.into());
                fields.insert("remainingItemCount".into(), remaining.into());
            }
        }
        let objects = objects.into_iter().map(|(_, object)| object).collect();
        (metadata, objects)
    }
}
