//! The seam between a hub and whoever signs its certificates.

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use rustls::pki_types::{CertificateDer, DnsName};
use thiserror::Error;

use super::files::FileError;
use super::id::SpiffeId;
use super::profile::{LONGEST_TTL, profile};
use super::public_key::{PublicKey, SpkiSha256};
use super::trust::TrustBundle;
use crate::retry::Retry;

/// Most DNS names and addresses in one certificate.
pub const NAMES_PER_CERTIFICATE: usize = 16;

/// An order for one leaf. Everything in the leaf comes from here and from the role's profile.
#[derive(Clone, Debug)]
pub struct Order {
    /// The key to certify.
    pub public_key: PublicKey,
    /// The identity to certify; its role picks the profile.
    pub id: SpiffeId,
    /// DNS names, for a hub only.
    pub dns: Vec<DnsName<'static>>,
    /// Addresses, for a hub only.
    pub ips: Vec<IpAddr>,
    /// Lifetime from the moment of issue; shortened to the issuer's own.
    pub ttl: Duration,
}

/// A leaf with its chain.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Leaf first, then its intermediates; without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Serial number, lower-case hex without separators.
    pub serial: String,
    /// SHA-256 of the certified key.
    pub spki_sha256: SpkiSha256,
    /// When it was issued, by the issuer's clock.
    pub issued_at: SystemTime,
    /// Start of its validity.
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
}

/// Signs what a hub has decided to certify.
pub trait Issuer: Debug + Send + Sync {
    /// Issues a leaf for `order`.
    fn issue<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Issued, IssueError>>;

    /// End of the certificate that signs; leaves end with it at the latest.
    fn not_after(&self) -> SystemTime;

    /// What is left of that certificate at `now`, if less than a third of its life: by then it should
    /// have been renewed, and somebody has to see to it.
    fn ends_soon(&self, now: SystemTime) -> Option<Duration>;

    /// The roots that this issuer's leaves chain to.
    fn roots(&self) -> TrustBundle;
}

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum IssueError {
    /// The random number generator gave nothing.
    #[error("could not draw a serial number for `{id}`")]
    Entropy {
        /// For whom.
        id: Box<SpiffeId>,
    },
    /// The issuer's own certificate has ended and cannot be renewed here.
    #[error(
        "the issuer's certificate has ended: put `root.pem` with its key into the state folder, or replace `intermediate.pem`"
    )]
    IssuerExpired,
    /// The issuer's own certificate begins in the future and cannot be made anew here.
    #[error(
        "the issuer's certificate is not valid yet: set this machine's clock, or replace `intermediate.pem` if the clock was ahead when it was made"
    )]
    IssuerNotYetValid,
    /// The renewed issuer could not be kept.
    #[error("could not keep the renewed intermediate")]
    Keep(#[source] FileError),
    /// More than the profile or the bounds allow.
    #[error("the order for `{id}` {reason}")]
    Order {
        /// For whom.
        id: Box<SpiffeId>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The signing failed.
    #[error("could not sign the certificate of `{id}`")]
    Sign {
        /// For whom.
        id: Box<SpiffeId>,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
}

impl IssueError {
    /// Fixed label for logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Entropy { .. } => "entropy",
            Self::IssuerExpired => "issuer_expired",
            Self::IssuerNotYetValid => "issuer_not_yet_valid",
            Self::Keep(_) => "keep",
            Self::Order { .. } => "order",
            Self::Sign { .. } => "sign",
        }
    }

    /// Whether the same order may succeed later.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Order { .. } => Retry::Never,
            Self::Entropy { .. }
            | Self::IssuerExpired
            | Self::IssuerNotYetValid
            | Self::Keep(_)
            | Self::Sign { .. } => Retry::Backoff,
        }
    }
}

impl Order {
    /// Checks the order against its role's profile and the bounds.
    pub(super) fn check(&self) -> Result<(), IssueError> {
        let names = self.dns.len() + self.ips.len();
        let reason = if names > 0 && !profile(self.id.role).names {
            "names hosts, which only a hub has"
        } else if names > NAMES_PER_CERTIFICATE {
            "names too many hosts"
        } else if self.ttl.is_zero() {
            "has no lifetime"
        } else if self.ttl > LONGEST_TTL {
            "asks for more than 72 hours"
        } else {
            return Ok(());
        };
        Err(IssueError::Order {
            id: Box::new(self.id.clone()),
            reason,
        })
    }
}
