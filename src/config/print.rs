//! Settings as YAML.

use std::fmt::Write as _;

use serde_json::Value;

/// `value` in block style, keys in alphabetical order, texts in quotes.
pub(super) fn yaml(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (format!("{key}:"), value))
            .collect(),
        Value::Array(items) => items.iter().map(|item| ("-".to_owned(), item)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (lead, value) in entries {
        let nested = match value {
            Value::Object(map) => !map.is_empty(),
            Value::Array(items) => items.iter().any(|item| item.is_object() || item.is_array()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        };
        if nested {
            let _fits = writeln!(out, "{:indent$}{lead}", "");
            block(value, indent + 2, out);
        } else {
            // JSON is YAML's flow style.
            let _fits = writeln!(out, "{:indent$}{lead} {value}", "");
        }
    }
}
