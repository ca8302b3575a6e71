//! Public keys that Sortie certifies, read from their one DER form.

use std::fmt;

use aws_lc_rs::digest;
use rustls::pki_types::SignatureVerificationAlgorithm;
use thiserror::Error;

/// SHA-256 of a `SubjectPublicKeyInfo`.
pub type SpkiSha256 = [u8; 32];

/// The key is of a kind that Sortie does not certify.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the public key is not P-256, P-384 or Ed25519")]
pub struct UnsupportedKey;

/// Kinds of keys that are certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    P256,
    P384,
    Ed25519,
}

/// What precedes the key bytes in the only DER form of each kind (RFC 5480 §2.1.1, RFC 8410 §4).
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P384_PREFIX: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
const ED25519_PREFIX: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

impl Kind {
    /// What each kind's DER form starts with, and how many key bytes follow.
    const FORMS: [(Self, &'static [u8], usize); 3] = [
        (Self::P256, P256_PREFIX, 65),
        (Self::P384, P384_PREFIX, 97),
        (Self::Ed25519, ED25519_PREFIX, 32),
    ];

    /// The one signature algorithm that goes with this kind.
    pub(super) fn verification(self) -> &'static dyn SignatureVerificationAlgorithm {
        match self {
            Self::P256 => webpki::aws_lc_rs::ECDSA_P256_SHA256,
            Self::P384 => webpki::aws_lc_rs::ECDSA_P384_SHA384,
            Self::Ed25519 => webpki::aws_lc_rs::ED25519,
        }
    }

    fn rcgen(self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::Ed25519 => &rcgen::PKCS_ED25519,
        }
    }
}

/// A public key of a kind that is certified: P-256, P-384 or Ed25519.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: Kind,
    spki_der: Vec<u8>,
    raw: Vec<u8>,
}

impl PublicKey {
    /// Reads a DER `SubjectPublicKeyInfo`.
    ///
    /// Whether the point lies on its curve shows with the first signature that is verified.
    pub fn from_spki_der(spki_der: &[u8]) -> Result<Self, UnsupportedKey> {
        for (kind, prefix, length) in Kind::FORMS {
            if let Some(raw) = spki_der.strip_prefix(prefix)
                && raw.len() == length
                && (kind == Kind::Ed25519 || raw.first() == Some(&UNCOMPRESSED))
            {
                return Ok(Self {
                    kind,
                    spki_der: spki_der.to_vec(),
                    raw: raw.to_vec(),
                });
            }
        }
        Err(UnsupportedKey)
    }

    /// The DER `SubjectPublicKeyInfo`.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// SHA-256 of the DER `SubjectPublicKeyInfo`.
    pub fn spki_sha256(&self) -> SpkiSha256 {
        sha256(&self.spki_der)
    }

    /// Whether `signature` is this key's over `message`: ASN.1 ECDSA with the curve's own hash, or
    /// Ed25519.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.kind
            .verification()
            .verify_signature(&self.raw, message, signature)
            .is_ok()
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }
}

/// First byte of an uncompressed point (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;

impl rcgen::PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.raw
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.kind.rcgen()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PublicKey({:?}, sha256 {})",
            self.kind,
            hex::encode(self.spki_sha256())
        )
    }
}

/// SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}
