//! Generated Secrets and pods: likely and unlikely ones, written in likely and unlikely ways.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{LAST_APPLIED, PLANTED};

/// Splitmix64: one seed, one object.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn word(&mut self) -> String {
        const WORDS: [&str; 10] = [
            "a",
            "data",
            "stringData",
            "metadata",
            "tls.crt",
            "\u{e9}\u{1F600}",
            "a\"b\\c\n",
            "items",
            "",
            "v:x",
        ];
        let word = WORDS[self.index(10)];
        format!("{word}{}", self.below(5))
    }

    /// A value that must not leave.
    fn planted(&mut self) -> Value {
        match self.below(8) {
            0 => json!(PLANTED),
            1 => json!([PLANTED]),
            2 => json!({ "data": { "a": PLANTED } }),
            3 => json!(hex::encode(PLANTED)),
            4 => json!(12345),
            5 => Value::Null,
            _ => json!(STANDARD.encode(format!("{}{PLANTED}", self.word()))),
        }
    }

    fn map(&mut self, mut value: impl FnMut(&mut Self) -> Value) -> Value {
        let count = self.below(4);
        let entries = (0..count).map(|_| (self.word(), value(self)));
        Value::Object(entries.collect())
    }

    /// Any tree, to be kept or dropped as a whole.
    fn tree(&mut self, depth: u64) -> Value {
        match self.below(if depth == 0 { 4 } else { 6 }) {
            0 => json!(self.word()),
            1 => json!(self.below(1 << 40)),
            2 => json!(self.chance(50)),
            3 => Value::Null,
            4 => self.map(|random| random.tree(depth - 1)),
            _ => (0..self.below(3)).map(|_| self.tree(depth - 1)).collect(),
        }
    }

    fn maybe(
        &mut self,
        map: &mut Value,
        percent: u64,
        key: &str,
        value: impl FnOnce(&mut Self) -> Value,
    ) {
        if self.chance(percent) {
            let value = value(self);
            map.as_object_mut().unwrap().insert(key.to_owned(), value);
        }
    }

    fn metadata(&mut self) -> Value {
        let mut metadata = json!({
            "name": format!("n{}", self.word()),
            "uid": "5e1f",
            "resourceVersion": self.below(1_000_000).to_string(),
        });
        self.maybe(&mut metadata, 80, "namespace", |_| json!("shop"));
        self.maybe(&mut metadata, 50, "creationTimestamp", |_| {
            json!("2026-01-01T00:00:00Z")
        });
        self.maybe(&mut metadata, 20, "deletionTimestamp", |_| Value::Null);
        self.maybe(&mut metadata, 50, "labels", |random| {
            random.map(|random| json!(random.word()))
        });
        self.maybe(&mut metadata, 20, "finalizers", |_| json!(["a/b"]));
        self.maybe(
            &mut metadata,
            20,
            "ownerReferences",
            |_| json!([{ "uid": "1" }]),
        );
        metadata
    }

    fn managed_fields(&mut self) -> Value {
        json!([{
            "manager": "kubectl", "operation": "Update", "fieldsType": "FieldsV1",
            "unknown": PLANTED,
            "fieldsV1": {
                "f:data": { ".": {}, "f:a": {}, "f:b": self.planted() },
                "f:metadata": { "f:finalizers": { ".": {}, format!("v:{PLANTED}"): {} } },
                "f:type": PLANTED,
            },
        }])
    }

    fn bare_secret(&mut self) -> Value {
        let mut secret = json!({ "apiVersion": "v1", "kind": "Secret" });
        self.maybe(&mut secret, 70, "data", |random| random.map(Self::planted));
        self.maybe(&mut secret, 30, "stringData", |random| {
            random.map(Self::planted)
        });
        self.maybe(&mut secret, 5, "data", Self::planted);
        self.maybe(&mut secret, 50, "type", |_| json!("Opaque"));
        self.maybe(&mut secret, 5, "type", |_| json!([PLANTED]));
        self.maybe(&mut secret, 20, "immutable", |_| json!(true));
        self.maybe(&mut secret, 20, "unknown", Self::planted);
        secret
    }

    pub(super) fn secret(&mut self) -> Value {
        let mut secret = self.bare_secret();
        let mut metadata = self.metadata();
        self.maybe(&mut metadata, 30, "managedFields", Self::managed_fields);
        self.maybe(&mut metadata, 10, "unknown", Self::planted);
        self.maybe(
            &mut metadata,
            5,
            "labels",
            |_| json!({ "a": [PLANTED], "b": "c" }),
        );
        self.maybe(&mut metadata, 3, "generation", |_| json!({ "a": PLANTED }));
        let mut annotations = json!({});
        self.maybe(&mut annotations, 30, "other.example.com/copy", |_| {
            json!(PLANTED)
        });
        self.maybe(
            &mut annotations,
            30,
            "moniker.spinnaker.io/application",
            |_| json!("shop"),
        );
        self.maybe(&mut annotations, 50, LAST_APPLIED, |random| {
            let mut inner = random.bare_secret();
            inner["metadata"] = json!({ "annotations": { LAST_APPLIED: PLANTED }, "x": PLANTED });
            json!(random.write(&inner))
        });
        self.maybe(&mut annotations, 5, LAST_APPLIED, |_| {
            json!(format!("{{{PLANTED}"))
        });
        self.maybe(
            &mut annotations,
            5,
            LAST_APPLIED,
            |_| json!({ "data": PLANTED }),
        );
        self.maybe(&mut metadata, 80, "annotations", |_| annotations);
        secret["metadata"] = metadata;
        secret
    }

    pub(super) fn pod(&mut self) -> Value {
        let mut metadata = self.metadata();
        self.maybe(&mut metadata, 60, "managedFields", Self::managed_fields);
        self.maybe(&mut metadata, 60, "annotations", |random| random.tree(1));
        let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata });
        self.maybe(&mut pod, 80, "spec", |random| random.tree(4));
        self.maybe(&mut pod, 80, "status", |random| random.tree(3));
        self.maybe(&mut pod, 10, "data", |random| random.tree(1));
        pod
    }

    /// Writes a tree: compact, spaced, or with escapes where none are needed.
    pub(super) fn write(&mut self, value: &Value) -> String {
        match self.below(3) {
            0 => value.to_string(),
            1 => serde_json::to_string_pretty(value).unwrap() + "\n",
            _ => {
                let mut text = String::new();
                self.write_oddly(value, &mut text);
                text
            }
        }
    }

    fn write_oddly(&mut self, value: &Value, text: &mut String) {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
            Value::String(string) => self.write_string(string, text),
            Value::Array(items) => {
                text.push_str("[ ");
                for (index, item) in items.iter().enumerate() {
                    text.push_str(if index > 0 { "\t," } else { "" });
                    self.write_oddly(item, text);
                }
                text.push_str("\r\n]");
            }
            Value::Object(map) => self.write_map(map, text),
        }
    }

    fn write_map(&mut self, map: &Map<String, Value>, text: &mut String) {
        text.push_str("{\n");
        let mut members: Vec<_> = map.iter().collect();
        let turn = self.index(members.len().max(1));
        members.rotate_left(turn);
        for (index, (key, value)) in members.into_iter().enumerate() {
            text.push_str(if index > 0 { " , " } else { "" });
            self.write_string(key, text);
            text.push_str(" : ");
            // The digits of a version are never escaped by any writer.
            let digits = value.as_str().filter(|_| key == "resourceVersion");
            if let Some(digits) = digits {
                text.extend(["\"", digits, "\""]);
            } else {
                self.write_oddly(value, text);
            }
        }
        text.push('}');
    }

    fn write_string(&mut self, string: &str, text: &mut String) {
        text.push('"');
        for unit in string.encode_utf16() {
            match char::from_u32(u32::from(unit)) {
                Some(plain) if plain.is_ascii_alphanumeric() && self.chance(80) => text.push(plain),
                _ => text.extend(["\\u".to_owned(), format!("{unit:04x}")]),
            }
        }
        text.push('"');
    }
}
