//! Why a peer is refused, in words, as a label, and as the alert that fits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::{CertificateError, OtherError};
use thiserror::Error;

use crate::identity::id::{IdError, SpiffeId};
use crate::limits::{CHAIN_BYTES, CHAIN_CERTIFICATES};

/// Why a path to a root was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// A certificate of the chain has ended.
    Expired,
    /// Not DER of X.509 v3.
    Malformed,
    /// A certificate of the chain begins later.
    NotYetValid,
    /// A signature in the chain does not verify, or its algorithm is not accepted.
    Signature,
    /// A certificate of the chain may not be used so.
    Unacceptable,
    /// The leaf is for another usage.
    Usage,
    /// The chain ends in no trusted root.
    UntrustedRoot,
}

impl PathFault {
    const fn label(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Malformed => "malformed",
            Self::NotYetValid => "not_yet_valid",
            Self::Signature => "signature",
            Self::Unacceptable => "unacceptable",
            Self::Usage => "usage",
            Self::UntrustedRoot => "untrusted_root",
        }
    }
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "has expired",
            Self::Malformed => "is not well-formed",
            Self::NotYetValid => "is not valid yet",
            Self::Signature => "carries a signature that does not verify",
            Self::Unacceptable => "contains a certificate that may not be used so",
            Self::Usage => "is for another usage",
            Self::UntrustedRoot => "does not end in a trusted root",
        })
    }
}

/// Why a known peer is refused all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its key is banned.
    Key,
    /// Its name is banned.
    Name,
    /// Its certificate is banned.
    Serial,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Name => "name",
            Self::Serial => "certificate",
        })
    }
}

/// Why a peer is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PeerError {
    /// More than [`CHAIN_BYTES`].
    #[error("the chain has {bytes} bytes, more than {CHAIN_BYTES}")]
    ChainBytes {
        /// Its length.
        bytes: usize,
    },
    /// The hub's chain does not hold by this machine's clock, and would by another.
    #[error("{}", apart(*fault, *off))]
    Clock {
        /// Whether they have ended or not begun.
        fault: PathFault,
        /// By how much, at least.
        off: Duration,
    },
    /// More than [`CHAIN_CERTIFICATES`].
    #[error("the chain has {certificates} certificates, more than {CHAIN_CERTIFICATES}")]
    ChainLength {
        /// Their number.
        certificates: usize,
    },
    /// Banned.
    #[error("the {refusal} of `{id}` is banned")]
    Denied {
        /// Who.
        id: Box<SpiffeId>,
        /// What of it.
        refusal: Refusal,
    },
    /// The dialled host is not in the certificate.
    #[error(
        "the hub's certificate is not for `{wanted}`, only for {}; dial one of these, or add it to `names` in hub.yaml",
        list(presented)
    )]
    Host {
        /// The dialled host.
        wanted: String,
        /// The hosts it is for.
        presented: Vec<String>,
    },
    /// The URI is no identity.
    #[error("the certificate carries no valid identity")]
    Identity(#[source] IdError),
    /// A CA certificate of the chain breaks a rule.
    #[error("a CA certificate of the chain {reason}")]
    Issuer {
        /// Which.
        reason: &'static str,
    },
    /// The leaf breaks a rule.
    #[error("the certificate {reason}")]
    Leaf {
        /// Which.
        reason: &'static str,
    },
    /// A chain without any root, where only the pinned root could be recognised.
    #[error(
        "it presents no root, as a hub's data and facade ports do; `hub.enrol` has to name the enrol port (9092 unless configured)"
    )]
    NoRoot,
    /// Not the certificate of a hub at all.
    #[error(
        "it is not the certificate of a hub; TLS has to end in the hub: is a load balancer or a proxy in between, or the address wrong?"
    )]
    NotAHub,
    /// There is no path to a root.
    #[error("the chain {fault}")]
    Path {
        /// Why.
        fault: PathFault,
    },
    /// Another role than wanted.
    #[error("`{id}` has a role that is not welcome here")]
    Role {
        /// Who.
        id: Box<SpiffeId>,
    },
    /// Another trust domain than wanted.
    #[error("`{id}` belongs to another trust domain")]
    TrustDomain {
        /// Who.
        id: Box<SpiffeId>,
    },
    /// The pinned root was not presented.
    #[error(
        "the hub's root is not the pinned one; compare `root-spki-sha256` with the hub's log, or make a new join string"
    )]
    Unpinned,
}

impl PeerError {
    /// Fixed label for logs, metrics and audit.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::ChainBytes { .. } => "chain_bytes",
            Self::ChainLength { .. } => "chain_length",
            Self::Clock { fault, .. } | Self::Path { fault } => fault.label(),
            Self::Denied { .. } => "denied",
            Self::Host { .. } => "host",
            Self::Identity(_) => "identity",
            Self::Issuer { .. } => "issuer",
            Self::Leaf { .. } => "leaf",
            Self::NoRoot => "no_root",
            Self::NotAHub => "not_a_hub",
            Self::Role { .. } => "role",
            Self::TrustDomain { .. } => "trust_domain",
            Self::Unpinned => "unpinned",
        }
    }

    /// The error that makes rustls send the fitting alert.
    pub(super) fn to_tls(&self) -> rustls::Error {
        let certificate = match self {
            Self::Denied { .. } => CertificateError::Revoked,
            Self::Clock { fault, .. } | Self::Path { fault } => match fault {
                PathFault::Expired => CertificateError::Expired,
                PathFault::Malformed => CertificateError::BadEncoding,
                PathFault::NotYetValid => CertificateError::NotValidYet,
                PathFault::Signature => CertificateError::BadSignature,
                PathFault::Unacceptable | PathFault::Usage => CertificateError::InvalidPurpose,
                PathFault::UntrustedRoot => CertificateError::UnknownIssuer,
            },
            Self::Role { .. } | Self::TrustDomain { .. } => {
                CertificateError::ApplicationVerificationFailure
            }
            Self::ChainBytes { .. }
            | Self::ChainLength { .. }
            | Self::Host { .. }
            | Self::Identity(_)
            | Self::Issuer { .. }
            | Self::Leaf { .. }
            | Self::NoRoot
            | Self::NotAHub
            | Self::Unpinned => CertificateError::Other(OtherError(Arc::new(self.clone()))),
        };
        rustls::Error::InvalidCertificate(certificate)
    }
}

/// How far the chain is from this machine's clock.
fn apart(fault: PathFault, off: Duration) -> String {
    let off = roughly(off);
    if fault == PathFault::NotYetValid {
        format!("this machine's clock is at least {off} behind the hub's; set them right")
    } else {
        format!("it ended {off} ago by this machine's clock; is that right, and the hub's?")
    }
}

/// In whole minutes, rounded up; from two hours on in whole hours.
fn roughly(time: Duration) -> String {
    match time.as_secs().div_ceil(60) {
        minutes @ 0..120 => format!("{minutes} min"),
        minutes => format!("{} h", minutes / 60),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "no host".to_owned()
    } else {
        names.join(", ")
    }
}
