//! The roots that certificates have to chain to.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::public_key::{SpkiSha256, sha256};
use super::verify::rules;
use crate::wire::v1;

/// Most roots in a bundle: an old and a new one, for each of two issuers.
pub const ROOTS: usize = 4;

/// Largest root, in bytes.
const ROOT_BYTES: usize = 8 * 1024;

/// Why roots are not trusted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TrustError {
    /// None.
    #[error("there is no root")]
    Empty,
    /// More than [`ROOTS`].
    #[error("there are more than {ROOTS} roots")]
    TooMany,
    /// A certificate that cannot be a root.
    #[error("the root {reason}")]
    Root {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A bundle older than the one in force.
    #[error("the trust bundle {offered} is older than the one in force, {current}")]
    Rollback {
        /// Its sequence.
        offered: u64,
        /// That of the one in force.
        current: u64,
    },
}

/// One root.
#[derive(Clone)]
pub(super) struct Root {
    pub(super) der: CertificateDer<'static>,
    pub(super) anchor: TrustAnchor<'static>,
    pub(super) spki_sha256: SpkiSha256,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Root {
    /// Checks that a certificate can be a root: a self-signed CA with a name, nothing critical that
    /// is not understood.
    pub(super) fn read(der: &CertificateDer<'_>) -> Result<Self, TrustError> {
        let refuse = |reason| TrustError::Root { reason };
        if der.len() > ROOT_BYTES {
            return Err(refuse("is too large"));
        }
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|_detail| refuse("is not a well-formed certificate"))?;
        if !rest.is_empty() {
            return Err(refuse("is followed by other bytes"));
        }
        rules::authority(&certificate).map_err(refuse)?;
        // The signature too: a pin is of the key, and the rest of the root must be its holder's word.
        if certificate.issuer().as_raw() != certificate.subject().as_raw()
            || certificate.verify_signature(None).is_err()
        {
            return Err(refuse("is not self-signed"));
        }
        let anchor = webpki::anchor_from_trusted_cert(der)
            .map_err(|_detail| refuse("is not a usable trust anchor"))?
            .to_owned();
        let (not_before, not_after) = rules::validity(&certificate);
        Ok(Self {
            spki_sha256: sha256(certificate.public_key().raw),
            anchor,
            der: der.clone().into_owned(),
            not_before,
            not_after,
        })
    }

    pub(super) fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// A set of roots, with a number that grows with every change.
#[derive(Clone)]
pub struct TrustBundle {
    sequence: u64,
    roots: Vec<Root>,
}

impl TrustBundle {
    /// Checks every root.
    pub fn new(sequence: u64, roots: &[CertificateDer<'_>]) -> Result<Self, TrustError> {
        if roots.is_empty() {
            return Err(TrustError::Empty);
        }
        if roots.len() > ROOTS {
            return Err(TrustError::TooMany);
        }
        let roots = roots.iter().map(Root::read).collect::<Result<_, _>>()?;
        Ok(Self { sequence, roots })
    }

    /// Reads a bundle from the wire.
    pub fn from_wire(update: &v1::TrustUpdate) -> Result<Self, TrustError> {
        let roots: Vec<CertificateDer<'_>> = update
            .roots_der
            .iter()
            .take(ROOTS + 1)
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        Self::new(update.sequence, &roots)
    }

    /// The bundle as it goes over the wire.
    pub fn to_wire(&self) -> v1::TrustUpdate {
        v1::TrustUpdate {
            sequence: self.sequence,
            roots_der: self
                .roots_der()
                .map(|der| Bytes::copy_from_slice(der))
                .collect(),
        }
    }

    /// `newer`, if its sequence is not smaller than this one's.
    pub fn succeeded_by(&self, newer: Self) -> Result<Self, TrustError> {
        if newer.sequence < self.sequence {
            return Err(TrustError::Rollback {
                offered: newer.sequence,
                current: self.sequence,
            });
        }
        Ok(newer)
    }

    /// The number that grows with every change.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The roots, DER.
    pub fn roots_der(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|root| &root.der)
    }

    /// SHA-256 of each root's public key.
    pub fn pins(&self) -> impl Iterator<Item = SpkiSha256> {
        self.roots.iter().map(|root| root.spki_sha256)
    }

    /// When the first of the roots ends.
    pub fn not_after(&self) -> SystemTime {
        let ends = self.roots.iter().map(|root| root.not_after);
        ends.min().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// The roots in PEM, for a kubeconfig.
    pub fn to_pem(&self) -> String {
        self.roots_der()
            .map(|der| super::pem::encode("CERTIFICATE", der))
            .collect()
    }

    pub(super) fn roots(&self) -> &[Root] {
        &self.roots
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("sequence", &self.sequence)
            .field("pins", &self.pins().map(hex::encode).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
