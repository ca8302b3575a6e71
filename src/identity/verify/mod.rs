//! The strict check of a peer's certificate chain; the only maker of [`VerifiedPeer`].
//!
//! ```text
//!  presented chain ──caps──▶ path to a root ──rules──▶ identity ──role, trust domain──▶ VerifiedPeer
//!                   (before   (webpki)        (RFC 5280, SPIFFE X509-SVID)
//!                    parsing)
//! ```
//! webpki finds the path; on its own it accepts a leaf without extended key usage, one that may sign
//! certificates, an expired root, a root that is no CA, and more. [`rules`] refuses these.

mod client;
mod path;
pub(super) mod rules;
mod server;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, OtherError};
use thiserror::Error;

use super::id::{IdError, Role, SpiffeId, TrustDomain};
use super::profile::Usage;
use super::public_key::SpkiSha256;
use super::trust::TrustBundle;
use crate::limits::{CHAIN_BYTES, CHAIN_CERTIFICATES};

pub use client::{Admission, AdmitAll, ClientVerifier};
pub use server::HubVerifier;

pub(super) use path::anchor_of;

/// A peer whose chain has passed every check. There is no other way to make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPeer {
    id: SpiffeId,
    serial: String,
    spki_sha256: SpkiSha256,
    not_after: SystemTime,
}

impl VerifiedPeer {
    /// Who the peer is.
    pub const fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Serial number of its leaf, lower-case hex without separators.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// SHA-256 of its public key.
    pub const fn spki_sha256(&self) -> SpkiSha256 {
        self.spki_sha256
    }

    /// When its chain ends: the earliest end of any certificate in it.
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// What a chain is checked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The one extended key usage.
    pub usage: Usage,
    /// The roles that are welcome.
    pub roles: &'a [Role],
    /// The trust domain; `None` before an agent has joined one.
    pub trust_domain: Option<&'a TrustDomain>,
}

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
        "the hub's certificate is not for `{wanted}`, only for {}",
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
    #[error("the hub did not present the pinned root: check `root-spki-sha256` and the address")]
    Unpinned,
}

impl PeerError {
    /// Fixed label for logs, metrics and audit.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::ChainBytes { .. } => "chain_bytes",
            Self::ChainLength { .. } => "chain_length",
            Self::Denied { .. } => "denied",
            Self::Host { .. } => "host",
            Self::Identity(_) => "identity",
            Self::Issuer { .. } => "issuer",
            Self::Leaf { .. } => "leaf",
            Self::Path { fault } => match fault {
                PathFault::Expired => "expired",
                PathFault::Malformed => "malformed",
                PathFault::NotYetValid => "not_yet_valid",
                PathFault::Signature => "signature",
                PathFault::Unacceptable => "unacceptable",
                PathFault::Usage => "usage",
                PathFault::UntrustedRoot => "untrusted_root",
            },
            Self::Role { .. } => "role",
            Self::TrustDomain { .. } => "trust_domain",
            Self::Unpinned => "unpinned",
        }
    }

    /// The error that makes rustls send the fitting alert.
    fn to_tls(&self) -> rustls::Error {
        let certificate = match self {
            Self::Denied { .. } => CertificateError::Revoked,
            Self::Path { fault } => match fault {
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
            | Self::Unpinned => CertificateError::Other(OtherError(Arc::new(self.clone()))),
        };
        rustls::Error::InvalidCertificate(certificate)
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "no host".to_owned()
    } else {
        names.join(", ")
    }
}

/// Checks a chain, leaf first, against the roots, the rules and what is wanted.
pub fn peer(
    chain: &[CertificateDer<'_>],
    trust: &TrustBundle,
    wanted: Wanted<'_>,
    now: SystemTime,
) -> Result<VerifiedPeer, PeerError> {
    let found = path::find(chain, trust.roots(), wanted.usage, now)?;
    let leaf = found.leaf;
    let id = rules::leaf(&leaf, wanted.usage)?;
    if wanted
        .trust_domain
        .is_some_and(|domain| *domain != id.trust_domain)
    {
        return Err(PeerError::TrustDomain { id: Box::new(id) });
    }
    if !wanted.roles.contains(&id.role) {
        return Err(PeerError::Role { id: Box::new(id) });
    }
    Ok(VerifiedPeer {
        id,
        serial: hex::encode(leaf.raw_serial()),
        spki_sha256: super::public_key::sha256(leaf.public_key().raw),
        not_after: found.not_after,
    })
}

/// What a verifier decided during the handshake of the current task.
type Verdict = Result<VerifiedPeer, PeerError>;

tokio::task_local! {
    // rustls gives its verifiers no way to hand anything to the connection's owner, and turns their
    // errors into alerts. A handshake runs inside one task's poll, so the verdict is left here.
    static VERDICT: Cell<Option<Verdict>>;
}

/// Runs a handshake and tells what the verifier decided in it, if it was asked.
pub(super) async fn observed<F: Future>(handshake: F) -> (F::Output, Option<Verdict>) {
    VERDICT
        .scope(Cell::new(None), async {
            let output = handshake.await;
            (output, VERDICT.with(Cell::take))
        })
        .await
}

/// Leaves the verdict for [`observed`], and turns it into what rustls wants.
fn conclude<T>(verdict: Verdict, assertion: T) -> Result<T, rustls::Error> {
    let answer = match &verdict {
        Ok(_) => Ok(assertion),
        Err(error) => Err(error.to_tls()),
    };
    // Outside `observed` nobody wants the verdict.
    let _outside = VERDICT.try_with(|place| place.set(Some(verdict)));
    answer
}
