//! Filters the API server's own error texts: they quote what was stored or sent.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Scrubbed;
use super::json::{Flaw, Reader};

/// Reasons whose messages are made of names only, and so stay.
const SAFE_REASONS: [&str; 12] = [
    "AlreadyExists",
    "Conflict",
    "Expired",
    "Forbidden",
    "Gone",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "ServiceUnavailable",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
];

/// Reasons whose messages may quote values (`k8s.io/apimachinery`, `StatusReason`).
const OTHER_REASONS: [&str; 8] = [
    "BadRequest",
    "InternalError",
    "Invalid",
    "NotFoundInStorage",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "StorageReadError",
    "UnsupportedMediaType",
];

/// What admission webhooks answer with stands behind the first, what the policies of an API server do
/// behind the second; either may quote the object.
const DENIED: [&str; 2] = ["denied the request", "denied request"];

/// Causes whose messages are made of names only.
const SAFE_CAUSE: &str = "FieldManagerConflict";

/// Causes that are kept of one Status.
const CAUSES: usize = 64;

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<String>,
    #[serde(skip_deserializing)]
    metadata: Empty,
    #[serde(rename = "status", skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Debug, Default, Serialize)]
struct Empty {}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    causes: Vec<Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u32>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Cause {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

/// Filters a Status about a masked kind.
pub(super) fn filter(json: &[u8]) -> Result<Vec<u8>, Flaw> {
    let mut status = parse(json)?;
    status.kind = Some("Status".to_owned());
    status.api_version = Some("v1".to_owned());
    let is_outcome = |text: &String| text == "Success" || text == "Failure";
    status.outcome = status.outcome.filter(is_outcome);
    status.reason = status.reason.map(|reason| known(&reason).to_owned());
    let is_safe = |reason: &str| SAFE_REASONS.contains(&reason);
    let is_safe = status.reason.as_deref().is_some_and(is_safe);
    let denial = status.message.as_deref().and_then(end_of_denial);
    status.details = match status.details.take() {
        // The API server writes the message, and passes on what the webhook says besides.
        Some(details) if denial.is_some() => Some(Details {
            retry_after_seconds: details.retry_after_seconds,
            ..Details::default()
        }),
        Some(details) => Some(without_values(details)),
        None => None,
    };
    status.message = match status.message.take() {
        Some(message) if is_safe => Some(without_denial(message, denial)),
        Some(_) => Some(sentence(&status)),
        None => None,
    };
    serde_json::to_vec(&status).map_err(|_unwritable| Flaw::Shape)
}

/// The code and, if it is one of Kubernetes' own, the reason of a Status.
pub(super) fn code_and_reason(json: &[u8]) -> Result<(u16, String), Flaw> {
    let status = parse(json)?;
    let reason = status.reason.as_deref().map_or("Unknown", known);
    Ok((status.code.unwrap_or_default(), reason.to_owned()))
}

/// A Status that says no more than the code of an answer that cannot be filtered.
pub fn bare_status(code: u16) -> Scrubbed {
    let reason = reason_of(code);
    let message = format!(
        "the API server answered {code} (its text is withheld: about a masked kind only JSON passes)"
    );
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    Scrubbed(Bytes::from(status.to_string()))
}

/// The reason that API servers give with a code (`k8s.io/apimachinery`, `NewGenericServerResponse`).
const fn reason_of(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        406 => "NotAcceptable",
        409 => "Conflict",
        410 => "Gone",
        413 => "RequestEntityTooLarge",
        415 => "UnsupportedMediaType",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "Unknown",
    }
}

/// Reads a Status; a field that occurs twice or has another type refuses the whole.
fn parse(json: &[u8]) -> Result<Status, Flaw> {
    let mut reader = Reader::new(json)?;
    reader.skip()?;
    reader.finish()?;
    serde_json::from_slice(json).map_err(|_foreign| Flaw::Shape)
}

fn known(reason: &str) -> &'static str {
    let mut reasons = SAFE_REASONS.iter().chain(&OTHER_REASONS);
    reasons
        .find(|known| **known == reason)
        .copied()
        .unwrap_or("Unknown")
}

fn without_values(mut details: Details) -> Details {
    details.causes.truncate(CAUSES);
    for cause in &mut details.causes {
        let is_word = |text: &String| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        cause.reason = cause.reason.take().filter(is_word);
        let is_safe = cause.reason.as_deref() == Some(SAFE_CAUSE);
        cause.message = cause.message.take().filter(|_| is_safe);
        cause.field = cause.field.take().map(path_only);
    }
    details
}

/// The end of the words that say that somebody else has refused the request, if it was that.
fn end_of_denial(message: &str) -> Option<usize> {
    let ends = DENIED
        .iter()
        .filter_map(|words| Some(message.find(words)? + words.len()));
    ends.min()
}

fn without_denial(mut message: String, denial: Option<usize>) -> String {
    if let Some(end) = denial {
        message.truncate(end);
        message.push_str(" (its text is withheld)");
    }
    message
}

/// Cuts a field path behind the last byte that paths are made of.
fn path_only(mut field: String) -> String {
    let is_path = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/[]".contains(&byte);
    let end = field.bytes().position(|byte| !is_path(byte));
    field.truncate(end.unwrap_or(field.len()).min(256));
    field
}

fn sentence(status: &Status) -> String {
    let reason = status.reason.as_deref().unwrap_or("Unknown");
    let mut text = format!("the API server answered {reason}");
    if let Some(details) = &status.details {
        if let Some(name) = &details.name {
            text = format!("{text} for `{name}`");
        }
        let fields: Vec<&str> = details
            .causes
            .iter()
            .filter_map(|cause| cause.field.as_deref())
            .collect();
        if !fields.is_empty() {
            text = format!("{text}; fields: {}", fields.join(", "));
        }
    }
    text + " (its text is withheld, since it may quote masked values)"
}
