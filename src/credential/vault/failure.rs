//! From answers, and the library's errors, which hold them raw, to failures, which cannot.

use std::time::Duration;

use rustify::errors::ClientError as HttpError;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::credential::fetch::{Failure, FetchErrorKind};
use crate::credential::transport::{is_foreign, is_refusal, is_untrusted};

const NOT_THE_ENGINE: &str =
    "what answers is not the engine; look at `address`, and at what stands before it";

/// Reads the class of `error`; everything else in it is dropped.
pub(super) fn from_library(error: &HttpError) -> Failure {
    match error {
        HttpError::ServerResponseError { code, .. } => from_answer(*code, None, &[]),
        HttpError::ResponseParseError { .. } | HttpError::ResponseConversionError { .. } => {
            Failure::corrupt("")
        }
        HttpError::RequestError { source, .. } if is_untrusted(&**source) => {
            Failure::unavailable("its certificate is not one of the configured `ca-file`")
        }
        HttpError::RequestError { .. } => {
            Failure::unavailable("it cannot be reached at its `address`")
        }
        HttpError::ResponseError { .. } => {
            Failure::unavailable("its answer broke off or is too large")
        }
        _ => Failure::unavailable("the request could not be made"),
    }
}

/// What an answer other than a success means. Of `body`, only which of a few known things it says
/// is looked at.
pub(super) fn from_answer(code: u16, retry_after: Option<Duration>, body: &[u8]) -> Failure {
    let says = |words: &[u8]| memchr::memmem::find(body, words).is_some();
    let down = FetchErrorKind::Unavailable { sealed: false };
    let (kind, hint) = match code {
        _ if is_refusal(code) && !is_of_the_engine(body) => (down, NOT_THE_ENGINE),
        300..=399 => (
            down,
            "redirects are not followed; configure the address of the active node",
        ),
        400 | 405 => (FetchErrorKind::NotFound, "look at the mount and the path"),
        401 | 403 => (FetchErrorKind::Denied, "look at the policy of our role"),
        404 => (FetchErrorKind::NotFound, absence(body)),
        429 => (FetchErrorKind::Throttled { retry_after }, ""),
        500..=599 if says(b"active node") || says(b"node not active") => {
            (down, "it has no active node; look at its cluster")
        }
        503 => {
            let sealed = says(b"sealed");
            (FetchErrorKind::Unavailable { sealed }, "")
        }
        _ => (down, ""),
    };
    Failure::new(kind, hint).with_status(code)
}

/// What the engine says of itself ("`/sys/health`").
#[derive(Deserialize)]
struct Health {
    initialized: bool,
    sealed: bool,
}

/// What an answer to the question for its health means: whether it can serve, or pass requests on.
///
/// A status alone says nothing: a load balancer without a way to the engine answers, too.
pub(super) fn from_health(code: u16, body: &[u8]) -> Result<(), Failure> {
    let away = |sealed, hint| {
        let kind = FetchErrorKind::Unavailable { sealed };
        Err(Failure::new(kind, hint).with_status(code))
    };
    // Behind a proxy or in a namespace the path may not be served: the engine answers all the same.
    if is_refusal(code) && is_of_the_engine(body) {
        return Ok(());
    }
    let Ok(health) = serde_json::from_slice::<Health>(body) else {
        let hint = if code < 500 { NOT_THE_ENGINE } else { "" };
        return away(false, hint);
    };
    match code {
        _ if !health.initialized => away(false, "it is not initialized"),
        _ if health.sealed => away(true, ""),
        200 | 429 | 473 => Ok(()),
        472 => away(
            false,
            "it only stands by for the recovery of another cluster",
        ),
        _ => away(false, ""),
    }
}

/// What the engine writes with a refusal: what went wrong, or a document that says why it is empty.
#[derive(Deserialize)]
struct Refusal {
    errors: Option<Vec<String>>,
    #[serde(default, deserialize_with = "is_there")]
    data: bool,
}

fn is_there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_any| true)
}

/// Whether the engine itself wrote a refusal. Only then it says anything about a secret: the page
/// of a load balancer without a way to the engine is an outage.
fn is_of_the_engine(body: &[u8]) -> bool {
    let refusal = serde_json::from_slice::<Refusal>(body);
    refusal.is_ok_and(|refusal| refusal.errors.is_some() || refusal.data)
}

/// Whether this was a refusal, whoever refused.
pub(super) fn is_refused(failure: &Failure) -> bool {
    let is_its_own = matches!(
        failure.kind,
        FetchErrorKind::Denied | FetchErrorKind::NotFound
    );
    is_its_own || is_foreign(failure)
}

/// Why there is nothing: a versioned store tells what became of it.
fn absence(body: &[u8]) -> &'static str {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let about = |name: &str| {
        answer
            .pointer("/data/metadata")
            .and_then(|map| map.get(name))
    };
    if about("destroyed") == Some(&Value::Bool(true)) {
        return "this version of it was destroyed";
    }
    let deleted = about("deletion_time").and_then(Value::as_str);
    if deleted.is_some_and(|time| !time.is_empty()) {
        return "this version of it was deleted; undelete it, or write a new one";
    }
    "look at the mount and the path"
}

/// A refusal of the engine when what we asked for was to be let in.
pub(super) fn not_let_in(failure: Failure, hint: &'static str) -> Failure {
    match failure.kind {
        FetchErrorKind::Denied | FetchErrorKind::NotFound => Failure {
            kind: FetchErrorKind::Unauthenticated,
            hint,
            ..failure
        },
        _ => failure,
    }
}

/// Whether what was asked for may go well a moment later.
pub(super) const fn passes(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        FetchErrorKind::Throttled { .. } | FetchErrorKind::Unavailable { .. }
    )
}
