//! The path from a leaf to a root.

use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{PathFault, PeerError, rules};
use crate::identity::id::Role;
use crate::identity::profile::Usage;
use crate::identity::trust::Root;
use crate::limits::{CHAIN_BYTES, CHAIN_CERTIFICATES};

/// A path that was found.
pub(super) struct Found<'a> {
    pub(super) leaf: X509Certificate<'a>,
    /// The earliest end of any certificate in the path, root included.
    pub(super) not_after: SystemTime,
}

/// Finds a path from the first certificate of `chain` to one of `roots`, and checks the CA
/// certificates in it.
pub(super) fn find<'a>(
    chain: &'a [CertificateDer<'_>],
    roots: &[Root],
    usage: Usage,
    now: SystemTime,
) -> Result<Found<'a>, PeerError> {
    check_size(chain)?;
    let (leaf_der, intermediates) = chain.split_first().ok_or(malformed())?;
    let leaf = parse(leaf_der)?;
    let entity = EndEntityCert::try_from(leaf_der).map_err(|error| fault(&error))?;
    let end = with_path(&entity, intermediates, roots, usage, now, |path, root| {
        let mut end = rules::validity(&leaf).1.min(root.not_after);
        for issuer in path.intermediate_certificates() {
            let der = issuer.der();
            let issuer = parse(&der)?;
            rules::authority(&issuer).map_err(|reason| PeerError::Issuer { reason })?;
            end = end.min(rules::validity(&issuer).1);
        }
        Ok(end)
    })?;
    Ok(Found {
        leaf,
        not_after: end,
    })
}

/// The role that a leaf claims, before anything about it is checked.
pub(in crate::identity) fn claimed_role(chain: &[CertificateDer<'_>]) -> Result<Role, PeerError> {
    check_size(chain)?;
    let leaf = chain.first().ok_or(malformed())?;
    Ok(rules::claimed(&parse(leaf)?)?.role)
}

/// The root that a chain ends in.
pub(in crate::identity) fn anchor_of<'r>(
    chain: &[CertificateDer<'_>],
    roots: &'r [Root],
    usage: Usage,
    now: SystemTime,
) -> Result<&'r Root, PeerError> {
    check_size(chain)?;
    let (leaf, intermediates) = chain.split_first().ok_or(malformed())?;
    let entity = EndEntityCert::try_from(leaf).map_err(|error| fault(&error))?;
    with_path(&entity, intermediates, roots, usage, now, |_path, root| {
        Ok(root)
    })
}

fn with_path<'r, T>(
    entity: &EndEntityCert<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &'r [Root],
    usage: Usage,
    now: SystemTime,
    look: impl FnOnce(&VerifiedPath<'_>, &'r Root) -> Result<T, PeerError>,
) -> Result<T, PeerError> {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let usage = match usage {
        Usage::Client => KeyUsage::client_auth(),
        Usage::Server => KeyUsage::server_auth(),
    };
    // RFC 5280 leaves the dates of anchors to us: an expired root ends the trust in it.
    let anchors: Vec<TrustAnchor<'_>> = roots
        .iter()
        .filter(|root| root.is_valid_at(now))
        .map(|root| root.anchor.clone())
        .collect();
    let path = entity
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            intermediates,
            UnixTime::since_unix_epoch(since),
            usage,
            None,
            None,
        )
        .map_err(|error| fault(&error))?;
    let root = roots
        .iter()
        .find(|root| root.anchor == *path.anchor())
        .ok_or(PeerError::Path {
            fault: PathFault::UntrustedRoot,
        })?;
    look(&path, root)
}

/// Before anything is parsed: building a path over a hundred presented certificates was measured
/// at 0.2 s.
fn check_size(chain: &[CertificateDer<'_>]) -> Result<(), PeerError> {
    if chain.len() > CHAIN_CERTIFICATES {
        return Err(PeerError::ChainLength {
            certificates: chain.len(),
        });
    }
    let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
    if bytes > CHAIN_BYTES {
        return Err(PeerError::ChainBytes { bytes });
    }
    Ok(())
}

/// Reads one certificate, and nothing after it.
pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PeerError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(malformed()),
    }
}

const fn malformed() -> PeerError {
    PeerError::Path {
        fault: PathFault::Malformed,
    }
}

fn fault(error: &webpki::Error) -> PeerError {
    use webpki::Error as E;

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign, growing enum: what is not known is refused as unacceptable"
    )]
    let fault = match error {
        E::CertExpired { .. } | E::InvalidCertValidity => PathFault::Expired,
        E::CertNotValidYet { .. } => PathFault::NotYetValid,
        E::BadDer | E::BadDerTime | E::TrailingData(_) | E::UnsupportedCertVersion => {
            PathFault::Malformed
        }
        E::UnknownIssuer => PathFault::UntrustedRoot,
        E::InvalidSignatureForPublicKey
        | E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => PathFault::Signature,
        E::RequiredEkuNotFoundContext(_) => PathFault::Usage,
        _ => PathFault::Unacceptable,
    };
    PeerError::Path { fault }
}
