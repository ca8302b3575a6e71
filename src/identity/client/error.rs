//! Why there is no new certificate, and whether to try again.

use thiserror::Error;
use tonic::Code;

use super::AnswerError;
use crate::identity::csr::CsrError;
use crate::identity::key::KeyError;
use crate::identity::service_account::TokenError;
use crate::retry::Retry;
use crate::wire::VERSIONS;

/// Why there is no new certificate.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// The hub's answer is not used.
    #[error("the hub's answer cannot be used")]
    Answer(#[source] AnswerError),
    /// The request could not be made.
    #[error("could not make the certificate request")]
    Csr(#[from] CsrError),
    /// The token file holds something else.
    #[error("the service account token is not text")]
    Evidence,
    /// The key failed.
    #[error("could not sign the certificate request")]
    Key(#[from] KeyError),
    /// The hub has refused this agent: trying again with the same evidence is of no use.
    #[error("the hub refused: {reason}")]
    Refused {
        /// The hub's reason, bounded, printable.
        reason: String,
    },
    /// The hub belongs to another trust domain than its certificate says.
    #[error("the hub says it belongs to another trust domain than its certificate")]
    TrustDomain,
    /// The hub could not, or not now.
    #[error("the hub did not give a certificate ({code}): {reason}")]
    Unavailable {
        /// The gRPC code.
        code: Code,
        /// The hub's reason, bounded, printable.
        reason: String,
    },
    /// No protocol version in common.
    #[error("the hub speaks protocol version {hub}, this agent {VERSIONS:?}")]
    Version {
        /// The hub's.
        hub: u32,
    },
}

impl EnrolError {
    /// Fixed label for logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Answer(_) => "answer",
            Self::Csr(_) => "csr",
            Self::Evidence => "evidence",
            Self::Key(_) => "key",
            Self::Refused { .. } => "refused",
            Self::TrustDomain => "trust_domain",
            Self::Unavailable { .. } => "unavailable",
            Self::Version { .. } => "version",
        }
    }

    /// Whether trying again may help.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Refused { .. } | Self::Version { .. } => Retry::Never,
            Self::Answer(_)
            | Self::Csr(_)
            | Self::Evidence
            | Self::Key(_)
            | Self::TrustDomain
            | Self::Unavailable { .. } => Retry::Backoff,
        }
    }

    /// What a gRPC status means here.
    pub(super) fn from_status(status: &tonic::Status) -> Self {
        let reason = printable(status.message());
        match status.code() {
            // The token is read anew for each attempt: one that has lapsed is not the last.
            code @ Code::Unauthenticated if is_passing(&reason) => {
                Self::Unavailable { code, reason }
            }
            Code::PermissionDenied | Code::Unauthenticated => Self::Refused { reason },
            code @ (Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::InvalidArgument
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss) => Self::Unavailable { code, reason },
        }
    }
}

/// Whether a hub's reason starts with the label of a token error that a new token may cure.
fn is_passing(reason: &str) -> bool {
    let label = reason
        .split(|character: char| !character.is_ascii_alphabetic())
        .next();
    let known = label.and_then(TokenError::from_label);
    known.is_some_and(|error| error.retry() == Retry::Backoff)
}

/// Longest reason of a hub that is repeated, in characters.
const REASON_CHARS: usize = 200;

fn printable(text: &str) -> String {
    let shown = text.chars().filter(|character| !character.is_control());
    shown.take(REASON_CHARS).collect()
}
