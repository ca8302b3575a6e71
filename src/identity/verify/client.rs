//! The hub's judge of client certificates.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};

use super::verdict::conclude;
use super::{PeerError, Refusal, VerifiedPeer, Wanted, peer};
use crate::identity::id::{Role, TrustDomain};
use crate::identity::profile::Usage;
use crate::identity::tls::{Published, provider};

/// Says no to peers whose certificates are in order.
pub trait Admission: Debug + Send + Sync {
    /// Why `peer` is refused, if it is. Called during the handshake: no waiting here.
    fn refusal(&self, peer: &VerifiedPeer) -> Option<Refusal>;
}

/// Refuses nobody.
#[derive(Clone, Copy, Debug)]
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn refusal(&self, _peer: &VerifiedPeer) -> Option<Refusal> {
        None
    }
}

/// Accepts clients of some roles of one trust domain, whose chain ends in the roots of the moment
/// and whom the admission does not refuse.
#[derive(Debug)]
pub struct ClientVerifier {
    published: Published,
    trust_domain: TrustDomain,
    roles: &'static [Role],
    admission: Arc<dyn Admission>,
}

impl ClientVerifier {
    /// A verifier that reads the roots from `published` at each handshake.
    pub fn new(
        published: Published,
        trust_domain: TrustDomain,
        roles: &'static [Role],
        admission: Arc<dyn Admission>,
    ) -> Self {
        Self {
            published,
            trust_domain,
            roles,
            admission,
        }
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<VerifiedPeer, PeerError> {
        let chain = chain(leaf, rest)?;
        let wanted = Wanted {
            usage: Usage::Client,
            roles: self.roles,
            trust_domain: Some(&self.trust_domain),
        };
        let peer = peer(
            &chain,
            self.published.load().trust(),
            wanted,
            system_time(now),
        )?;
        match self.admission.refusal(&peer) {
            None => Ok(peer),
            Some(refusal) => Err(PeerError::Denied {
                id: Box::new(peer.id),
                refusal,
            }),
        }
    }
}

/// One slice of what rustls gives in two parts, if it is not too long to be looked at.
pub(super) fn chain<'a>(
    leaf: &CertificateDer<'a>,
    rest: &[CertificateDer<'a>],
) -> Result<Vec<CertificateDer<'a>>, PeerError> {
    let certificates = rest.len() + 1;
    if certificates > crate::limits::CHAIN_CERTIFICATES {
        return Err(PeerError::ChainLength { certificates });
    }
    Ok(std::iter::once(leaf).chain(rest).cloned().collect())
}

pub(super) fn system_time(now: UnixTime) -> SystemTime {
    crate::clock::from_unix_seconds(now.as_secs())
}

/// The answer to a TLS 1.2 handshake, which no configuration offers.
pub(super) fn no_tls12() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not offered".to_owned())
}

/// Checks the signature of a TLS 1.3 handshake.
pub(super) fn tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
}

/// The schemes that [`tls13_signature`] knows.
pub(super) fn schemes() -> Vec<SignatureScheme> {
    provider()
        .signature_verification_algorithms
        .supported_schemes()
}

impl ClientCertVerifier for ClientVerifier {
    /// None: a list of roots would tell strangers about us, and agents know their certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        conclude(
            self.judge(end_entity, intermediates, now),
            ClientCertVerified::assertion(),
        )
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
