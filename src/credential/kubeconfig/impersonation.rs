//! For whom the requests of a user are made.

use std::fmt::Write as _;

use http::header::{HeaderName, HeaderValue};

use super::KubeconfigError;
use super::field::At;

/// Most headers of one user.
const HEADERS: usize = 64;

/// Longest name of an extra field, in bytes.
const NAME_BYTES: usize = 256;

/// The headers that `as`, `as-uid`, `as-groups` and `as-user-extra` ask for (Kubernetes
/// documentation, "User impersonation").
pub(super) fn headers(user: &At<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, KubeconfigError> {
    let mut headers = Vec::new();
    let name = |name: &'static str| HeaderName::from_static(name);
    for (key, header) in [("as", "impersonate-user"), ("as-uid", "impersonate-uid")] {
        if let Some(field) = user.find(key) {
            headers.push((name(header), value(&field)?));
        }
    }
    if let Some(groups) = user.find("as-groups") {
        for group in groups.items()?.take(HEADERS + 1) {
            headers.push((name("impersonate-group"), value(&group)?));
        }
    }
    if let Some(extra) = user.find("as-user-extra") {
        let entries = extra.node().as_map();
        let entries = entries.ok_or_else(|| extra.refuse("is not a map"))?;
        for entry in entries.iter().take(HEADERS + 1) {
            let header = extra_name(&entry.key)
                .ok_or_else(|| extra.refuse("has a name that a header cannot carry"))?;
            let values = extra.find(&entry.key);
            let Some(values) = values else { continue };
            // The path of an error is made of names that the reader knows.
            let list = values
                .items()
                .map_err(|_error| extra.refuse("is not a map of lists"))?;
            for item in list.take(HEADERS + 1) {
                let value = value(&item).map_err(|_error| extra.refuse(CHARACTERS))?;
                headers.push((header.clone(), value));
            }
        }
    }
    if headers.len() > HEADERS {
        return Err(user.refuse("impersonates with too many groups and extra fields"));
    }
    if !headers.is_empty() && user.find("as").is_none() {
        return Err(user.refuse("impersonates groups or extra fields, but no user; give `as` too"));
    }
    Ok(headers)
}

const CHARACTERS: &str = "has characters that a header cannot carry";

fn value(field: &At<'_>) -> Result<HeaderValue, KubeconfigError> {
    HeaderValue::from_str(field.text()?).map_err(|_error| field.refuse(CHARACTERS))
}

/// `impersonate-extra-` and the name, percent-encoded where a header could not carry it.
fn extra_name(name: &str) -> Option<HeaderName> {
    if name.len() > NAME_BYTES {
        return None;
    }
    let mut out = "impersonate-extra-".to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            out.push(char::from(byte.to_ascii_lowercase()));
        } else {
            write!(out, "%{byte:02x}").ok()?;
        }
    }
    HeaderName::from_bytes(out.as_bytes()).ok()
}
