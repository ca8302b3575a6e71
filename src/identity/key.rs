//! Key pairs that live in memory only.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::Signer;
use rustls::{SignatureAlgorithm, SignatureScheme};
use secrecy::ExposeSecret as _;
use thiserror::Error;

use super::public_key::{PublicKey, SpkiSha256};
use crate::secret::SecretBytes;

/// Why there is no key pair.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The crypto provider failed; a broken machine.
    #[error("the crypto provider could not {attempted}")]
    Provider {
        /// What was attempted.
        attempted: &'static str,
    },
    /// The bytes are no P-256 key in PKCS#8.
    #[error("the private key is not a P-256 key in PKCS#8")]
    Format,
}

/// A P-256 key pair. The private half stays inside the crypto provider; a clone is another handle
/// to the same key.
#[derive(Clone)]
pub struct KeyPair(Arc<Inner>);

struct Inner {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl KeyPair {
    /// A new key.
    pub fn generate() -> Result<Self, KeyError> {
        let pair =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_unspecified| {
                KeyError::Provider {
                    attempted: "generate a key",
                }
            })?;
        Self::wrap(pair)
    }

    /// Reads back what [`KeyPair::to_pkcs8`] wrote.
    #[expect(
        clippy::disallowed_methods,
        reason = "parsing is what the bytes are for"
    )]
    pub fn from_pkcs8(pkcs8: &SecretBytes) -> Result<Self, KeyError> {
        let bytes = pkcs8.expose_secret();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, bytes)
            .map_err(|_rejected| KeyError::Format)?;
        Self::wrap(pair)
    }

    /// The private key in PKCS#8, for a state folder that an operator asked for.
    pub fn to_pkcs8(&self) -> Result<SecretBytes, KeyError> {
        let document = self
            .0
            .pair
            .to_pkcs8v1()
            .map_err(|_unspecified| KeyError::Provider {
                attempted: "write a key",
            })?;
        Ok(SecretBytes::new(document.as_ref().to_vec()))
    }

    fn wrap(pair: EcdsaKeyPair) -> Result<Self, KeyError> {
        use aws_lc_rs::encoding::AsDer as _;

        let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
            pair.public_key()
                .as_der()
                .map_err(|_unspecified| KeyError::Provider {
                    attempted: "write a public key",
                })?;
        let public =
            PublicKey::from_spki_der(spki.as_ref()).map_err(|_unsupported| KeyError::Format)?;
        Ok(Self(Arc::new(Inner { pair, public })))
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public
    }

    /// The DER `SubjectPublicKeyInfo`.
    pub fn spki_der(&self) -> &[u8] {
        self.0.public.spki_der()
    }

    /// SHA-256 of the DER `SubjectPublicKeyInfo`.
    pub fn spki_sha256(&self) -> SpkiSha256 {
        self.0.public.spki_sha256()
    }

    /// ECDSA P-256 with SHA-256 over `message`, in ASN.1.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self
            .0
            .pair
            .sign(&SystemRandom::new(), message)
            .map_err(|_unspecified| KeyError::Provider { attempted: "sign" })?;
        Ok(signature.as_ref().to_vec())
    }

    /// This key as rustls signs with it.
    pub fn tls_key(&self) -> Arc<dyn rustls::sign::SigningKey> {
        Arc::new(self.clone())
    }
}

impl rcgen::PublicKeyData for KeyPair {
    fn der_bytes(&self) -> &[u8] {
        self.0.public.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for KeyPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Self::sign(self, message).map_err(|_provider| rcgen::Error::RemoteKeyError)
    }
}

impl rustls::sign::SigningKey for KeyPair {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.spki_der()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for KeyPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Self::sign(self, message).map_err(|error| rustls::Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyPair").field(&self.0.public).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_the_way_through_pkcs8() {
        let key = KeyPair::generate().unwrap();
        let again = KeyPair::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap();
        assert_eq!(key.spki_der(), again.spki_der());
        let signature = key.sign(b"message").unwrap();
        assert!(again.public_key().verifies(b"message", &signature));
        assert!(!again.public_key().verifies(b"another", &signature));
    }

    #[test]
    fn the_private_half_is_not_printed() {
        let key = KeyPair::generate().unwrap();
        let printed = format!("{key:?}");
        assert!(
            printed.starts_with("KeyPair(PublicKey(P256, sha256 "),
            "{printed}"
        );
    }
}
