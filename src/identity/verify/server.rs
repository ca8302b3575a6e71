//! The agent's judges of hub certificates.

use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use webpki::EndEntityCert;

use super::client::{chain, no_tls12, schemes, system_time, tls13_signature};
use super::verdict::conclude;
use super::{PathFault, PeerError, VerifiedPeer, Wanted, path, peer, rules};
use crate::identity::id::{Role, TrustDomain};
use crate::identity::profile::{BACKDATE, Usage};
use crate::identity::public_key::SpkiSha256;
use crate::identity::trust::TrustBundle;

/// Accepts a hub whose chain ends in a trusted root and whose certificate is for the dialled host.
#[derive(Debug)]
pub struct HubVerifier(Anchors);

#[derive(Debug)]
enum Anchors {
    /// The roots and the trust domain of an agent that has joined.
    Joined(TrustBundle, TrustDomain),
    /// SHA-256 of the root's public key, for an agent that has not.
    Pinned(SpkiSha256),
}

impl HubVerifier {
    /// Trusts `trust`, for hubs of `trust_domain`.
    pub const fn joined(trust: TrustBundle, trust_domain: TrustDomain) -> Self {
        Self(Anchors::Joined(trust, trust_domain))
    }

    /// Trusts only the root whose `SubjectPublicKeyInfo` has this SHA-256. The hub has to present
    /// it; it is found by its hash and is then the only anchor.
    pub const fn pinned(pin: SpkiSha256) -> Self {
        Self(Anchors::Pinned(pin))
    }

    fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<VerifiedPeer, PeerError> {
        let verdict = match &self.0 {
            Anchors::Joined(trust, domain) => hub(chain, trust, Some(domain), host, now),
            Anchors::Pinned(pin) => {
                presented_root(chain, pin).and_then(|root| hub(chain, &root, None, host, now))
            }
        };
        verdict.map_err(|error| explained(error, chain, system_time(now)))
    }
}

/// The error that tells an operator of the agent what to look at. What is refused stays refused.
fn explained(error: PeerError, chain: &[CertificateDer<'_>], now: SystemTime) -> PeerError {
    let PeerError::Path { fault } = &error else {
        return error;
    };
    if !matches!(path::claimed_role(chain), Ok(Role::Hub)) {
        return PeerError::NotAHub;
    }
    match fault {
        // A root that is not valid is no root.
        PathFault::Expired | PathFault::NotYetValid | PathFault::UntrustedRoot => {
            off_the_clock(chain, now).unwrap_or(error)
        }
        PathFault::Malformed
        | PathFault::Signature
        | PathFault::Unacceptable
        | PathFault::Usage => error,
    }
}

/// How far the certificate of `chain` that is furthest from being valid is away from it; a leaf
/// was issued [`BACKDATE`] after it begins.
fn off_the_clock(chain: &[CertificateDer<'_>], now: SystemTime) -> Option<PeerError> {
    let off = |(at, der): (usize, &CertificateDer<'_>)| {
        let (from, until) = rules::validity(&path::parse(der).ok()?);
        if let Ok(off) = from.duration_since(now) {
            let issued = if at == 0 { off + BACKDATE } else { off };
            return Some((issued, PathFault::NotYetValid));
        }
        let off = now.duration_since(until).ok()?;
        Some((off, PathFault::Expired))
    };
    let (off, fault) = chain
        .iter()
        .enumerate()
        .filter_map(off)
        .max_by_key(|(off, _)| *off)?;
    Some(PeerError::Clock { fault, off })
}

fn presented_root(
    chain: &[CertificateDer<'_>],
    pin: &SpkiSha256,
) -> Result<TrustBundle, PeerError> {
    let mut authorities = chain
        .iter()
        .skip(1)
        .filter_map(|der| TrustBundle::new(0, std::slice::from_ref(der)).ok());
    let pinned = authorities.find(|bundle| bundle.pins().any(|presented| presented == *pin));
    pinned.ok_or_else(|| {
        if !matches!(path::claimed_role(chain), Ok(Role::Hub)) {
            return PeerError::NotAHub;
        }
        let is_root = |der: &CertificateDer<'_>| {
            path::parse(der).is_ok_and(|found| found.subject() == found.issuer())
        };
        if chain.iter().any(is_root) {
            PeerError::Unpinned
        } else {
            PeerError::NoRoot
        }
    })
}

fn hub(
    chain: &[CertificateDer<'_>],
    trust: &TrustBundle,
    trust_domain: Option<&TrustDomain>,
    host: &ServerName<'_>,
    now: UnixTime,
) -> Result<VerifiedPeer, PeerError> {
    let wanted = Wanted {
        usage: Usage::Server,
        roles: &[Role::Hub],
        trust_domain,
    };
    // The path first: a name that matches says nothing about a chain that does not hold.
    let peer = peer(chain, trust, wanted, system_time(now))?;
    let leaf = chain.first().ok_or(PeerError::Unpinned)?;
    let named = EndEntityCert::try_from(leaf)
        .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(host).is_ok());
    if named {
        return Ok(peer);
    }
    let presented = rules::hosts(&path::parse(leaf)?);
    Err(PeerError::Host {
        wanted: host.to_str().into_owned(),
        presented,
    })
}

impl ServerCertVerifier for HubVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict =
            chain(end_entity, intermediates).and_then(|chain| self.judge(&chain, server_name, now));
        conclude(verdict, ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
