//! From the library's errors, which hold raw answers, to ours, which cannot.

use rustify::errors::ClientError as HttpError;

use crate::credential::fetch::{Failure, FetchErrorKind};
use crate::credential::transport::is_untrusted;

/// Reads the status and the class of `error`; everything else in it is dropped.
pub(super) fn from_library(error: &HttpError) -> Failure {
    match error {
        HttpError::ServerResponseError { code, content } => {
            let is_sealed = content.as_ref().is_some_and(|text| text.contains("sealed"));
            from_status(*code, is_sealed)
        }
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

fn from_status(code: u16, sealed: bool) -> Failure {
    let (kind, hint) = match code {
        300..=399 => (
            FetchErrorKind::Unavailable { sealed: false },
            "redirects are not followed; configure the address of the active node",
        ),
        400 | 405 => (
            FetchErrorKind::NotFound,
            "is the mount a KV store of version 2?",
        ),
        401 | 403 => (FetchErrorKind::Denied, "look at the policy of our role"),
        404 => (FetchErrorKind::NotFound, "look at the mount and the path"),
        429 => (FetchErrorKind::Throttled { retry_after: None }, ""),
        _ => (FetchErrorKind::Unavailable { sealed }, ""),
    };
    Failure::new(kind, hint).with_status(code)
}
