//! Key sets of token issuers (RFC 7517): each key with the one algorithm it is used with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use thiserror::Error;

/// Largest key set that is read, in bytes.
pub const JWKS_BYTES: usize = 64 * 1024;

/// Most keys in a set.
pub const JWKS_KEYS: usize = 16;

/// Shortest RSA modulus, in bytes.
const RSA_BYTES: usize = 256;

/// Why a key set is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum JwksError {
    /// Not a JWK set.
    #[error("the key set is not a well-formed JWK set")]
    Malformed,
    /// Over [`JWKS_BYTES`].
    #[error("the key set is larger than {JWKS_BYTES} bytes")]
    TooLong,
    /// None, or more than [`JWKS_KEYS`].
    #[error("the key set has {keys} keys, not 1 to {JWKS_KEYS}")]
    Count {
        /// How many.
        keys: usize,
    },
    /// A key that cannot be used.
    #[error("key `{id}` of the key set {reason}")]
    Key {
        /// Its id, printable.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// One key with the one algorithm it is used with.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// Reads a JWK set; every key in it must be usable.
pub(super) fn read(jwks: &[u8]) -> Result<Vec<Key>, JwksError> {
    if jwks.len() > JWKS_BYTES {
        return Err(JwksError::TooLong);
    }
    let set: Set = serde_json::from_slice(jwks).map_err(|_quotes_input| JwksError::Malformed)?;
    if !(1..=JWKS_KEYS).contains(&set.keys.len()) {
        return Err(JwksError::Count {
            keys: set.keys.len(),
        });
    }
    set.keys.into_iter().map(key).collect()
}

fn key(value: serde_json::Value) -> Result<Key, JwksError> {
    let id = value
        .get("kid")
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default();
    let id: String = id
        .chars()
        .filter(|character| !character.is_control())
        .take(64)
        .collect();
    let refuse = |reason| JwksError::Key {
        id: id.clone(),
        reason,
    };
    let jwk: Jwk =
        serde_json::from_value(value).map_err(|_quotes_input| refuse("is not well-formed"))?;
    if jwk
        .common
        .public_key_use
        .as_ref()
        .is_some_and(|purpose| *purpose != PublicKeyUse::Signature)
    {
        return Err(refuse("is not for signatures"));
    }
    let (algorithm, name) = algorithm(&jwk.algorithm).map_err(refuse)?;
    if jwk.common.key_algorithm.is_some_and(|named| named != name) {
        return Err(refuse(
            "names another algorithm than the one it is accepted for",
        ));
    }
    let decoding = DecodingKey::from_jwk(&jwk).map_err(|_detail| refuse("is not well-formed"))?;
    Ok(Key {
        id: jwk.common.key_id,
        algorithm,
        decoding,
    })
}

/// The one algorithm a key is accepted for: RS256, ES256, ES384 or `EdDSA`.
fn algorithm(parameters: &AlgorithmParameters) -> Result<(Algorithm, KeyAlgorithm), &'static str> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign, growing enum: what is not listed is refused"
    )]
    match parameters {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).unwrap_or_default();
            let significant = modulus.iter().skip_while(|byte| **byte == 0).count();
            if significant < RSA_BYTES {
                return Err("is an RSA key of less than 2048 bits");
            }
            Ok((Algorithm::RS256, KeyAlgorithm::RS256))
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Ok((Algorithm::ES256, KeyAlgorithm::ES256))
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
            Ok((Algorithm::ES384, KeyAlgorithm::ES384))
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Ok((Algorithm::EdDSA, KeyAlgorithm::EdDSA))
        }
        _ => Err("is of a kind or on a curve that is not used"),
    }
}
