//! What is signed at enrolment and renewal, so that a request holds for one key and one connection.
//!
//! The TLS exporter (RFC 8446 §7.5) ties the proof to its connection: relayed to another hub, or
//! through a man in the middle, it does not verify.

use rustls::{ConnectionCommon, SideData};
use thiserror::Error;

use super::key::{KeyError, KeyPair};
use super::public_key::{PublicKey, sha256};

/// Keying material of one connection for one purpose, 32 bytes.
pub type Exporter = [u8; 32];

/// What a proof is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A first certificate, or one after the former has lapsed.
    Enrol,
    /// A new certificate on the strength of the current one.
    Renew,
}

impl Purpose {
    /// The exporter's label.
    pub const fn label(self) -> &'static [u8] {
        match self {
            Self::Enrol => b"EXPORTER-sortie-enrol",
            Self::Renew => b"EXPORTER-sortie-renew",
        }
    }

    const fn context(self) -> &'static [u8] {
        match self {
            Self::Enrol => b"sortie enrol v1\0",
            Self::Renew => b"sortie renew v1\0",
        }
    }
}

/// The connection gave no keying material: its handshake is not finished.
#[derive(Debug, Error)]
#[error("could not export keying material from the connection")]
pub struct ExportError(#[source] rustls::Error);

/// Exports the keying material of a finished handshake.
pub fn exporter<Side: SideData>(
    connection: &ConnectionCommon<Side>,
    purpose: Purpose,
) -> Result<Exporter, ExportError> {
    connection
        .export_keying_material([0; 32], purpose.label(), None)
        .map_err(ExportError)
}

/// Signs a request: `nonce` is the hub's challenge for [`Purpose::Enrol`] and empty for
/// [`Purpose::Renew`].
pub fn sign(
    key: &KeyPair,
    purpose: Purpose,
    exporter: &Exporter,
    nonce: &[u8],
    csr_der: &[u8],
) -> Result<Vec<u8>, KeyError> {
    key.sign(&statement(purpose, exporter, nonce, csr_der))
}

/// Whether `proof` is by `key` over the same statement.
pub fn verify(
    key: &PublicKey,
    purpose: Purpose,
    exporter: &Exporter,
    nonce: &[u8],
    csr_der: &[u8],
    proof: &[u8],
) -> bool {
    key.verifies(&statement(purpose, exporter, nonce, csr_der), proof)
}

/// Every part but the nonce has a fixed length, so no two requests share a statement.
fn statement(purpose: Purpose, exporter: &Exporter, nonce: &[u8], csr_der: &[u8]) -> Vec<u8> {
    [purpose.context(), exporter, nonce, &sha256(csr_der)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_nothing_but_what_it_was_made_for() {
        let key = KeyPair::generate().unwrap();
        let stranger = KeyPair::generate().unwrap();
        let (exporter, nonce, csr) = ([1; 32], [2; 32], b"csr");
        let proof = sign(&key, Purpose::Enrol, &exporter, &nonce, csr).unwrap();
        let holds = |key: &KeyPair, purpose, exporter, nonce: &[u8], csr: &[u8]| {
            verify(key.public_key(), purpose, exporter, nonce, csr, &proof)
        };
        assert!(holds(&key, Purpose::Enrol, &exporter, &nonce, csr));
        assert!(!holds(&stranger, Purpose::Enrol, &exporter, &nonce, csr));
        assert!(!holds(&key, Purpose::Renew, &exporter, &nonce, csr));
        assert!(!holds(&key, Purpose::Enrol, &[3; 32], &nonce, csr));
        assert!(!holds(&key, Purpose::Enrol, &exporter, &[3; 32], csr));
        assert!(!holds(&key, Purpose::Enrol, &exporter, &nonce, b"another"));
        assert!(!holds(&key, Purpose::Enrol, &exporter, &[], csr));
    }
}
