//! Projected `ServiceAccount` tokens of registered clusters, verified without calling the cluster.
//!
//! Kubernetes documentation, "Managing Service Accounts", *Bound service account tokens*; RFC 7519,
//! RFC 8725 (one algorithm per key, exact issuer and audience).

mod issuer;
mod jwks;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use thiserror::Error;

use crate::retry::Retry;

pub use issuer::{TokenIssuer, claimed_issuer};
pub use jwks::{JWKS_BYTES, JWKS_KEYS, JwksError};

/// Longest token that is read, in bytes.
pub const TOKEN_BYTES: usize = 16 * 1024;

/// How far the cluster's clock may be off.
pub const SKEW: Duration = Duration::from_mins(1);

/// Longest lifetime of a token; kubelet projects one hour, and adds a few seconds.
pub const LONGEST_LIFE: Duration = Duration::from_secs(3610);

/// Why a token is refused; the label is what the agent is told.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// Not exactly our audience.
    #[error("the token is not for this hub alone")]
    Audience,
    /// A claim that a bound token has is missing.
    #[error("the token is not bound to a pod; mount it as a projected volume")]
    Claims,
    /// Over.
    #[error("the token has expired")]
    Expired,
    /// Another issuer.
    #[error("the token is from another issuer")]
    Issuer,
    /// No such key.
    #[error(
        "the token is signed by a key that is not registered; `sortie cluster add` again with today's keys"
    )]
    Key,
    /// Lives too long.
    #[error("the token lives longer than an hour; lower its `expirationSeconds`")]
    Lifetime,
    /// Not a JWT.
    #[error("the token is not well-formed")]
    Malformed,
    /// Not begun.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The signature does not verify.
    #[error("the token's signature does not verify")]
    Signature,
}

impl TokenError {
    /// Every reason.
    const ALL: [Self; 9] = [
        Self::Audience,
        Self::Claims,
        Self::Expired,
        Self::Issuer,
        Self::Key,
        Self::Lifetime,
        Self::Malformed,
        Self::NotYetValid,
        Self::Signature,
    ];

    /// The reason with this label.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.label() == label)
    }

    /// Fixed label for audit, metrics and the agent.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Audience => "TokenAudience",
            Self::Claims => "TokenClaims",
            Self::Expired => "TokenExpired",
            Self::Issuer => "TokenIssuer",
            Self::Key => "TokenKey",
            Self::Lifetime => "TokenLifetime",
            Self::Malformed => "TokenMalformed",
            Self::NotYetValid => "TokenNotYetValid",
            Self::Signature => "TokenSignature",
        }
    }

    /// Whether the agent may come again with a freshly read token.
    pub const fn retry(self) -> Retry {
        match self {
            Self::Expired | Self::Key | Self::NotYetValid => Retry::Backoff,
            Self::Audience
            | Self::Claims
            | Self::Issuer
            | Self::Lifetime
            | Self::Malformed
            | Self::Signature => Retry::Never,
        }
    }
}

/// What a token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// Namespace of the service account.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
    /// Its uid.
    pub service_account_uid: String,
    /// Name of the pod the token is bound to.
    pub pod: String,
    /// Uid of that pod.
    pub pod_uid: String,
    /// When the token ends.
    pub expires_at: SystemTime,
}
