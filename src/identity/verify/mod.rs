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
mod error;
mod path;
pub(super) mod rules;
mod server;
#[cfg(test)]
mod tests;
mod verdict;

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use super::id::{Role, SpiffeId, TrustDomain};
use super::profile::Usage;
use super::public_key::SpkiSha256;
use super::trust::TrustBundle;

pub use client::{Admission, AdmitAll, ClientVerifier};
pub use error::{PathFault, PeerError, Refusal};
pub use server::HubVerifier;

pub(super) use path::{anchor_of, claimed_role};
pub(super) use verdict::observed;

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
