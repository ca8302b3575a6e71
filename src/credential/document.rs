//! Takes the part that a reference means out of a document, and wipes the rest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use super::fetch::{Failure, FetchErrorKind};
use super::{Key, Reference};
use crate::secret::SecretBytes;
#[cfg(any(feature = "aws", feature = "google"))]
use crate::yaml::{self, Node};

/// The field of a map of fields.
///
/// # Errors
/// `Corrupt` for another form, `Invalid` where the field is missing.
pub(super) fn field(fields: Value, reference: &Reference) -> Result<SecretBytes, Failure> {
    as_meant(taken(fields, &reference.key)?, reference)
}

/// As [`field`], of a map whose values are written in base64 whatever the reference says.
///
/// # Errors
/// As [`field`].
pub(super) fn encoded_field(fields: Value, reference: &Reference) -> Result<SecretBytes, Failure> {
    as_meant(decoded(&taken(fields, &reference.key)?)?, reference)
}

/// The bytes, decoded where the reference says that they are base64.
///
/// # Errors
/// `Corrupt` where they are not.
pub(super) fn as_meant(bytes: SecretBytes, reference: &Reference) -> Result<SecretBytes, Failure> {
    if reference.base64 {
        return decoded(&bytes);
    }
    Ok(bytes)
}

/// The names of the fields of a map of fields.
///
/// # Errors
/// `Corrupt` for another form.
pub(super) fn names(fields: Value) -> Result<Vec<String>, Failure> {
    let names = fields
        .as_object()
        .map(|fields| fields.keys().cloned().collect());
    wipe(fields);
    names.ok_or(Failure::corrupt("the secret is not a map of fields"))
}

/// All of `text`, or the value under the dotted key in the YAML or JSON that it is.
///
/// At each level the whole of the rest is tried as a key first: `a.yaml` is a key of the map before
/// it is `yaml` under `a`.
///
/// # Errors
/// `Corrupt` for a text of another form, `Invalid` where the key leads nowhere.
#[cfg(any(feature = "aws", feature = "google"))]
pub(super) fn part(text: SecretBytes, reference: &Reference) -> Result<SecretBytes, Failure> {
    let part = match &reference.key {
        Key::Whole => text,
        Key::Each => return Err(Failure::corrupt("the reference names no field")),
        Key::Named(name) => {
            let root = parsed(&text)?;
            let missing = || {
                let field = name.clone();
                Failure::new(FetchErrorKind::Invalid { field }, "")
            };
            let found = under(&root, name).ok_or_else(missing)?;
            let value = found
                .as_str()
                .ok_or(Failure::corrupt("the field is not a text"))?;
            SecretBytes::new(value.as_bytes().to_vec())
        }
    };
    as_meant(part, reference)
}

/// The keys of the map that a YAML or JSON text is.
///
/// # Errors
/// `Corrupt` for a text of another form.
#[cfg(any(feature = "aws", feature = "google"))]
pub(super) fn keys(text: &SecretBytes) -> Result<Vec<String>, Failure> {
    let root = parsed(text)?;
    let entries = root
        .as_map()
        .ok_or(Failure::corrupt("the secret is not a map of fields"))?;
    Ok(entries.iter().map(|entry| entry.key.clone()).collect())
}

#[cfg(any(feature = "aws", feature = "google"))]
fn parsed(text: &SecretBytes) -> Result<Node, Failure> {
    #[expect(
        clippy::disallowed_methods,
        reason = "parsed into nodes that wipe themselves"
    )]
    let text = std::str::from_utf8(text.expose_secret());
    let root = text.ok().and_then(|text| yaml::parse(text).ok());
    root.ok_or(Failure::corrupt("the secret is neither YAML nor JSON"))
}

#[cfg(any(feature = "aws", feature = "google"))]
fn under<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    if let Some(found) = node.get(key) {
        return Some(found);
    }
    let mut dots = key.match_indices('.');
    dots.find_map(|(at, _)| {
        let (first, rest) = (key.get(..at)?, key.get(at + 1..)?);
        under(node.get(first)?, rest)
    })
}

/// The text of one field, and nothing left of the others.
fn taken(mut fields: Value, key: &Key) -> Result<SecretBytes, Failure> {
    let text = take(&mut fields, key);
    wipe(fields);
    Ok(SecretBytes::new(text?.into_bytes()))
}

fn take(fields: &mut Value, key: &Key) -> Result<String, Failure> {
    let Key::Named(name) = key else {
        return Err(Failure::corrupt("the reference names no field"));
    };
    let Some(fields) = fields.as_object_mut() else {
        return Err(Failure::corrupt("the secret is not a map of fields"));
    };
    let missing = FetchErrorKind::Invalid {
        field: name.clone(),
    };
    match fields.get_mut(name).map(Value::take) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Failure::corrupt("the field is not a text")),
        None => Err(Failure::new(missing, "")),
    }
}

fn decoded(bytes: &SecretBytes) -> Result<SecretBytes, Failure> {
    #[expect(
        clippy::disallowed_methods,
        reason = "decoded into another sealed value"
    )]
    let decoded = from_base64(bytes.expose_secret());
    let mut decoded = decoded.ok_or(Failure::corrupt("the field is not base64"))?;
    Ok(SecretBytes::new(std::mem::take(&mut *decoded)))
}

/// Decodes standard base64, broken over lines as people paste it and `base64` writes it.
pub(super) fn from_base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut compact = Zeroizing::new(Vec::with_capacity(text.len()));
    compact.extend(text.iter().filter(|byte| !byte.is_ascii_whitespace()));
    let mut decoded = Zeroizing::new(vec![0; base64::decoded_len_estimate(compact.len())]);
    let length = STANDARD.decode_slice(&*compact, &mut decoded).ok()?;
    decoded.truncate(length);
    Some(decoded)
}

/// Overwrites the fields that were not asked for.
fn wipe(data: Value) {
    if let Value::Object(fields) = data {
        for (_, value) in fields {
            if let Value::String(mut text) = value {
                text.zeroize();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Locator;

    #[test]
    fn base64_may_be_broken_over_lines() {
        let reference = Reference {
            profile: None,
            locator: Locator::Noop {
                value: String::new(),
            },
            key: Key::Whole,
            base64: true,
        };
        let decoded = |text: &str| {
            let decoded = as_meant(SecretBytes::new(text.as_bytes().to_vec()), &reference);
            decoded.map(|bytes| {
                #[expect(clippy::disallowed_methods, reason = "a test compares it")]
                bytes.expose_secret().to_vec()
            })
        };
        for text in [
            "cGxhbnRlZA==",
            "cGxhbnRlZA==\n",
            "cGxh\nbnRl\nZA==\n",
            "cGxh\r\nbnRlZA\r\n==\r\n",
            " cGxh bnRlZA==",
        ] {
            assert_eq!(decoded(text).unwrap(), b"planted", "{text:?}");
        }
        for text in ["cGxhbnRlZA", "cGxh-bnRlZA==", "cGxhbnRlZA==cGxh"] {
            let failure = decoded(text).unwrap_err();
            assert_eq!(failure.kind, FetchErrorKind::Corrupt, "{text}");
        }
    }
}
