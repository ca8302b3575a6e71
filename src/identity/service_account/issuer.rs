//! The issuer of one registered cluster, and the check of its tokens.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;

use super::jwks::{self, JwksError, Key};
use super::{Attested, LONGEST_LIFE, SKEW, TOKEN_BYTES, TokenError};
use crate::clock::{from_unix_seconds, unix_seconds};
use crate::identity::id::TrustDomain;

/// A registered cluster's issuer with its keys.
#[derive(Debug)]
pub struct TokenIssuer {
    name: String,
    audience: String,
    keys: Vec<Key>,
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
    /// Missing in a token that is bound to nothing.
    pod: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    uid: String,
}

/// The issuer that a token names, by which its keys are chosen; nothing of it is verified yet.
pub fn claimed_issuer(jwt: &str) -> Result<String, TokenError> {
    #[derive(Deserialize)]
    struct Claimed {
        iss: String,
    }

    if jwt.len() > TOKEN_BYTES {
        return Err(TokenError::Malformed);
    }
    let claims = jwt.split('.').nth(1).ok_or(TokenError::Malformed)?;
    let claims = URL_SAFE_NO_PAD.decode(claims);
    let claims = claims.map_err(|_detail| TokenError::Malformed)?;
    let claimed: Claimed =
        serde_json::from_slice(&claims).map_err(|_detail| TokenError::Malformed)?;
    Ok(claimed.iss)
}

impl TokenIssuer {
    /// Reads a JWK set once; every key in it must be usable.
    pub fn new(issuer: &str, jwks: &[u8], trust_domain: &TrustDomain) -> Result<Self, JwksError> {
        let keys = jwks::read(jwks)?;
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
        let claims = jsonwebtoken::decode::<Claims>(jwt, &key.decoding, &validation(key.algorithm));
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
        let pod = pod.ok_or(TokenError::Claims)?;
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
            expires_at: from_unix_seconds(claims.exp),
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
