//! What an API server answers, read as far as it is needed.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::credential::fetch::{Failure, FetchErrorKind};

/// An answer that was read to its end.
pub(super) struct Answer {
    pub(super) status: u16,
    /// When to come back, if it said so.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// A Secret.
pub(super) struct Secret {
    /// Its `data`: a map of base64.
    pub(super) data: Value,
    /// Its `resourceVersion`.
    pub(super) version: String,
}

#[derive(Deserialize)]
struct Object {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    data: Value,
}

/// What is looked at of an object's metadata.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) resource_version: String,
}

#[derive(Deserialize)]
struct Described {
    kind: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

/// The Secret in an answer.
pub(super) fn secret(answer: &Answer) -> Result<Secret, Failure> {
    let object: Object = parsed(answer)?;
    if object.kind != "Secret" || object.metadata.resource_version.is_empty() {
        return Err(Failure::corrupt("the answer is not a Secret"));
    }
    let data = match object.data {
        Value::Null => Value::Object(serde_json::Map::new()),
        data => data,
    };
    Ok(Secret {
        data,
        version: object.metadata.resource_version,
    })
}

/// The version of the Secret whose metadata is in an answer.
pub(super) fn version(answer: &Answer) -> Result<String, Failure> {
    let object: Described = parsed(answer)?;
    let is_kind = matches!(object.kind.as_str(), "PartialObjectMetadata" | "Secret");
    if !is_kind || object.metadata.resource_version.is_empty() {
        return Err(Failure::corrupt(
            "the answer is not the metadata of a Secret",
        ));
    }
    Ok(object.metadata.resource_version)
}

/// The parser's errors quote what they read, so they are dropped.
fn parsed<T: for<'a> Deserialize<'a>>(answer: &Answer) -> Result<T, Failure> {
    if answer.status != 200 {
        return Err(refused(answer));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|_error| Failure::corrupt("the answer is not of an API server"))
}

/// From a status other than 200 to what it means.
pub(super) fn refused(answer: &Answer) -> Failure {
    let away = FetchErrorKind::Unavailable { sealed: false };
    let own_word = is_status(&answer.body);
    let (kind, hint) = match answer.status {
        300..=399 => (
            away,
            "redirects are not followed; name the API server itself",
        ),
        401 => (
            FetchErrorKind::Unauthenticated,
            "the API server does not accept the connection's own credential",
        ),
        403 if own_word => (
            FetchErrorKind::Denied,
            "look at the Role: it needs `get` on this Secret",
        ),
        404 if own_word => (
            FetchErrorKind::NotFound,
            "look at the namespace and the name",
        ),
        429 => (
            FetchErrorKind::Throttled {
                retry_after: answer.retry_after,
            },
            "",
        ),
        400..=499 => (
            away,
            "who answered is not the API server; look at what is in between",
        ),
        _ => (away, ""),
    };
    Failure::new(kind, hint).with_status(answer.status)
}

fn is_status(body: &[u8]) -> bool {
    serde_json::from_slice::<Kind>(body).is_ok_and(|answer| answer.kind == "Status")
}

/// One line of a watch.
#[derive(Deserialize)]
pub(super) struct Event {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) object: Watched,
}

/// What a line of a watch is about.
#[derive(Deserialize)]
pub(super) struct Watched {
    #[serde(default)]
    pub(super) metadata: Metadata,
}
