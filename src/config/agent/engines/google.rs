//! Google Secret Manager and Cloud Storage.

use serde_json::{Map as JsonMap, Value, json};

use super::url;
use crate::config::reader::{Map, printable};
use crate::config::text::{path, text};
use crate::credential::google::{AuthMethod, Settings};

pub(super) const KEYS: [&str; 3] = ["auth", "ca-file", "endpoint"];

/// `endpoint` is Google's own.
pub(super) fn read(map: &Map<'_>, endpoint: &str) -> Option<Settings> {
    let configured = map.optional("endpoint", url);
    let ca_file = map.optional("ca-file", path);
    let auth = auth(&map.map("auth", &["file", "method"]));
    Some(Settings {
        endpoint: configured.unwrap_or_else(|| endpoint.to_owned()),
        ca_file,
        auth: auth?,
    })
}

fn auth(map: &Map<'_>) -> Option<AuthMethod> {
    let method = map.optional("method", text);
    let method = method.as_deref().unwrap_or("default");
    let without_file = |auth| {
        if map.field("file").is_some() {
            map.tell("file", format!("does not belong to the method `{method}`"));
        }
        Some(auth)
    };
    match method {
        "default" => without_file(AuthMethod::Default),
        "federation" => Some(AuthMethod::Federation(map.required("file", path)?)),
        "key-file" => Some(AuthMethod::KeyFile(map.required("file", path)?)),
        "metadata" => without_file(AuthMethod::Metadata),
        other => {
            let got = printable(other);
            map.tell(
                "method",
                format!("must be `default`, `federation`, `key-file` or `metadata`, got `{got}`"),
            );
            None
        }
    }
}

/// The same as it is written; none of it is secret.
pub(in crate::config::agent) fn value(settings: &Settings) -> JsonMap<String, Value> {
    let auth = match &settings.auth {
        AuthMethod::Default => json!({ "method": "default" }),
        AuthMethod::Federation(file) => json!({ "method": "federation", "file": file }),
        AuthMethod::KeyFile(file) => json!({ "method": "key-file", "file": file }),
        AuthMethod::Metadata => json!({ "method": "metadata" }),
    };
    let mut value = JsonMap::from_iter([
        ("endpoint".to_owned(), json!(settings.endpoint)),
        ("auth".to_owned(), auth),
    ]);
    if let Some(ca_file) = &settings.ca_file {
        value.insert("ca-file".to_owned(), json!(ca_file));
    }
    value
}
