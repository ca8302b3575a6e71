//! From the library's errors, which hold raw answers, to ours, which cannot.

use std::error::Error;

use rustify::errors::ClientError as HttpError;

use crate::credential::fetch::FetchErrorKind;

/// A [`super::FetchError`] before it knows which secret it is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: FetchErrorKind,
    pub(super) status: Option<u16>,
    pub(super) hint: &'static str,
}

impl Failure {
    /// Something on our own side that keeps us from logging in.
    pub(super) const fn local(hint: &'static str) -> Self {
        Self {
            kind: FetchErrorKind::Unauthenticated,
            status: None,
            hint,
        }
    }

    /// Something that keeps us from asking at all.
    pub(super) const fn unavailable(hint: &'static str) -> Self {
        Self {
            kind: FetchErrorKind::Unavailable { sealed: false },
            status: None,
            hint,
        }
    }

    /// Reads the status and the class of `error`; everything else in it is dropped.
    pub(super) fn from_library(error: &HttpError) -> Self {
        match error {
            HttpError::ServerResponseError { code, content } => {
                let is_sealed = content.as_ref().is_some_and(|text| text.contains("sealed"));
                Self::from_status(*code, is_sealed)
            }
            HttpError::ResponseParseError { .. } | HttpError::ResponseConversionError { .. } => {
                Self::corrupt()
            }
            HttpError::RequestError { source, .. } if is_untrusted(&**source) => {
                Self::unavailable("its certificate is not one of the configured `ca-file`")
            }
            HttpError::RequestError { .. } => {
                Self::unavailable("it cannot be reached at its `address`")
            }
            HttpError::ResponseError { .. } => {
                Self::unavailable("its answer broke off or is too large")
            }
            _ => Self::unavailable("the request could not be made"),
        }
    }

    fn from_status(code: u16, sealed: bool) -> Self {
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
        Self {
            kind,
            status: Some(code),
            hint,
        }
    }

    pub(super) const fn corrupt() -> Self {
        Self {
            kind: FetchErrorKind::Corrupt,
            status: None,
            hint: "",
        }
    }
}

/// Whether a refused certificate is among the causes. An `io::Error` hides what it wraps from
/// `source`.
fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return matches!(tls, rustls::Error::InvalidCertificate(_));
        }
        next = match error.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    false
}
