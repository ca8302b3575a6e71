//! Files below a folder.

use serde_json::{Map as Json, Value, json};

use crate::config::reader::Map;
use crate::config::text::path;
use crate::credential::file::Settings;

pub(super) const KEYS: [&str; 1] = ["root"];

pub(super) fn read(map: &Map<'_>) -> Option<Settings> {
    let root = map.required("root", path)?;
    if root.parent().is_none() {
        map.tell("root", "must be a folder of its own, not `/`");
        return None;
    }
    Some(Settings { root })
}

/// As [`read`] reads it.
pub(in crate::config::agent) fn value(settings: &Settings) -> Json<String, Value> {
    Json::from_iter([("root".to_owned(), json!(settings.root))])
}
