//! Projected `ServiceAccount` tokens of registered clusters, verified without calling the cluster.
//!
//! Kubernetes documentation, "Managing Service Accounts", *Bound service account tokens*; RFC 7519,
//! RFC 8725 (one algorithm per key, exact issuer and audience).

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use thiserror::Error;

use super::id::TrustDomain;
use crate::clock::unix_seconds;
use crate::retry::Retry;

/// Largest key set that is read, in bytes.
pub const JWKS_BYTES: usize = 64 * 1024;

/// Most keys in a set.
pub const JWKS_KEYS: usize = 16;

/// Longest token that is read, in bytes.
pub const TOKEN_BYTES: usize = 16 * 1024;

/// How far the cluster's clock may be off.
pub const SKEW: Duration = Duration::from_mins(1);

/// Longest lifetime of a token; kubelet projects one hour, and adds a few seconds.
pub const LONGEST_LIFE: Duration = Duration::from_secs(3610);

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

/// Why a token is refused; the label is what the agent is told.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// Not exactly our audience.
    #[error("the token is not for this hub alone")]
    Audience,
    /// A claim that a bound token has is missing.
    #[error("the token is not bound to a pod")]
    Claims,
    /// Over.
    #[error("the token has expired")]
    Expired,
    /// Another issuer.
    #[error("the token is from another issuer")]
    Issuer,
    /// No such key.
    #[error("the token is signed by a key that is not in the key set")]
    Key,
    /// Lives too long.
    #[error("the token lives longer than an hour")]
    Lifetime,
    /// Not a JWT.
    #[error("the token is not well-formed")]
    Malformed,
    /// Not begun.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The signature does not verify.
    #[error("the token's signature does not verify")]
    Signature,
}

impl TokenError {
    /// Fixed label for audit, metrics and the agent.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Audience => "TokenAudience",
            Self::Claims => "TokenClaims",
            Self::Expired => "TokenExpired",
            Self::Issuer => "TokenIssuer",
            Self::Key => "TokenKey",
            Self::Lifetime => "TokenLifetime",
            Self::Malformed => "TokenMalformed",
            Self::NotYetValid => "TokenNotYetValid",
            Self::Signature => "TokenSignature",
        }
    }

    /// Whether the agent may come again with a freshly read token.
    pub const fn retry(self) -> Retry {
        match self {
            Self::Expired | Self::Key | Self::NotYetValid => Retry::Backoff,
            Self::Audience
            | Self::Claims
            | Self::Issuer
            | Self::Lifetime
            | Self::Malformed
            | Self::Signature => Retry::Never,
        }
    }
}

/// What a token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// Namespace of the service account.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
    /// Its uid.
    pub service_account_uid: String,
    /// Name of the pod the token is bound to.
    pub pod: String,
    /// Uid of that pod.
    pub pod_uid: String,
    /// When the token ends.
    pub expires_at: SystemTime,
}

/// One key with the one algorithm it is used with.
#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// A registered cluster's issuer with its keys.
#[derive(Debug)]
pub struct TokenIssuer {
    name: String,
    audience: String,
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: u64,
    iat: u64,
    nbf: u64,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Named,
    pod: Named,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    uid: String,
}

impl TokenIssuer {
    /// Reads a JWK set once; every key in it must be usable.
    pub fn new(issuer: &str, jwks: &[u8], trust_domain: &TrustDomain) -> Result<Self, JwksError> {
        if jwks.len() > JWKS_BYTES {
            return Err(JwksError::TooLong);
        }
        let set: Set =
            serde_json::from_slice(jwks).map_err(|_quotes_input| JwksError::Malformed)?;
        if !(1..=JWKS_KEYS).contains(&set.keys.len()) {
            return Err(JwksError::Count {
                keys: set.keys.len(),
            });
        }
        let keys = set.keys.into_iter().map(key).collect::<Result<_, _>>()?;
        Ok(Self {
            name: issuer.to_owned(),
            audience: trust_domain.hub_audience(),
            keys,
        })
    }

    /// The issuer, as tokens name it.
    pub fn issuer(&self) -> &str {
        &self.name
    }

    /// Verifies a token at `now`.
    pub fn verify(&self, jwt: &str, now: SystemTime) -> Result<Attested, TokenError> {
        if jwt.len() > TOKEN_BYTES || jwt.bytes().filter(|byte| *byte == b'.').count() != 2 {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(jwt).map_err(|_detail| TokenError::Malformed)?;
        // RFC 7515 §4.1.11: an extension that is not understood; and keys are never taken from
        // the token itself.
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let key = self.key(header.kid.as_deref(), header.alg)?;
        let claims = jsonwebtoken::decode::<Claims>(jwt, &key.key, &validation(key.algorithm));
        let claims = claims.map_err(|error| token_error(&error))?.claims;
        self.check(claims, unix_seconds(now))
    }

    fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Key, TokenError> {
        let found = match id {
            Some(id) => self.keys.iter().find(|key| key.id.as_deref() == Some(id)),
            None => self.keys.first().filter(|_only| self.keys.len() == 1),
        };
        let key = found.ok_or(TokenError::Key)?;
        // RFC 8725 §3.1: the key says the algorithm, not the token.
        if key.algorithm == algorithm {
            Ok(key)
        } else {
            Err(TokenError::Signature)
        }
    }

    fn check(&self, claims: Claims, now: u64) -> Result<Attested, TokenError> {
        let skew = SKEW.as_secs();
        if claims.iss != self.name {
            return Err(TokenError::Issuer);
        }
        let for_us = match &claims.aud {
            Audience::One(audience) => *audience == self.audience,
            Audience::Many(all) => all.len() == 1 && all.contains(&self.audience),
        };
        if !for_us {
            return Err(TokenError::Audience);
        }
        if claims.exp.saturating_add(skew) <= now {
            return Err(TokenError::Expired);
        }
        if claims.nbf.max(claims.iat) > now.saturating_add(skew) {
            return Err(TokenError::NotYetValid);
        }
        let life = claims
            .exp
            .checked_sub(claims.iat)
            .ok_or(TokenError::Malformed)?;
        if life > LONGEST_LIFE.as_secs() {
            return Err(TokenError::Lifetime);
        }
        let bound = claims.kubernetes.ok_or(TokenError::Claims)?;
        let Kubernetes {
            namespace,
            serviceaccount,
            pod,
        } = bound;
        let parts = [
            &namespace,
            &serviceaccount.name,
            &serviceaccount.uid,
            &pod.name,
            &pod.uid,
        ];
        let subject = format!("system:serviceaccount:{namespace}:{}", serviceaccount.name);
        if parts.iter().any(|part| part.is_empty()) || claims.sub != subject {
            return Err(TokenError::Claims);
        }
        Ok(Attested {
            namespace,
            service_account: serviceaccount.name,
            service_account_uid: serviceaccount.uid,
            pod: pod.name,
            pod_uid: pod.uid,
            expires_at: crate::clock::from_unix_seconds(claims.exp),
        })
    }
}

/// Signature and algorithm are the library's; every claim is checked by [`TokenIssuer::check`],
/// with our clock.
fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a foreign, growing enum: anything else is a malformed token"
)]
fn token_error(error: &jsonwebtoken::errors::Error) -> TokenError {
    use jsonwebtoken::errors::ErrorKind;

    match error.kind() {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => TokenError::Signature,
        _ => TokenError::Malformed,
    }
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
    let key = DecodingKey::from_jwk(&jwk).map_err(|_detail| refuse("is not well-formed"))?;
    Ok(Key {
        id: jwk.common.key_id,
        algorithm,
        key,
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

#[cfg(test)]
mod tests;
