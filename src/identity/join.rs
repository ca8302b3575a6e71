//! The join string: where the hub is, which root to pin, and a one-time secret.
//!
//! `sortie-join-v1.` and base64url (no padding) of a JSON object with the keys `data`, `enrol`,
//! `root_spki_sha256` (hex), `id` and `secret` (base64url).

use aws_lc_rs::constant_time;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::public_key::{SpkiSha256, sha256};
use crate::entropy::{self, Entropy};
use crate::secret::SecretBytes;

/// What every join string of this version starts with.
pub const PREFIX: &str = "sortie-join-v1.";

/// Longest join string, in bytes.
pub const JOIN_BYTES: usize = 2048;

/// Length of a token's secret, in bytes.
pub const SECRET_BYTES: usize = 32;

/// Longest token id, in bytes.
pub const ID_BYTES: usize = 64;

/// Why a text is no join string. Never holds a part of the text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum JoinError {
    /// A field is missing, doubled, unknown or has the wrong form.
    #[error("the join string is damaged: copy it again, whole")]
    Damaged,
    /// Does not start with [`PREFIX`].
    #[error("the join string does not start with `{PREFIX}`")]
    Prefix,
    /// Over [`JOIN_BYTES`].
    #[error("the join string is longer than {JOIN_BYTES} bytes")]
    TooLong,
}

/// What an agent needs to join with a token.
#[derive(Debug)]
pub struct Join {
    /// The hub's data address, `host:port`.
    pub data: String,
    /// The hub's enrol address, `host:port`.
    pub enrol: String,
    /// SHA-256 of the public key of the root to pin.
    pub root_spki_sha256: SpkiSha256,
    /// Which token, public.
    pub id: String,
    /// The token's one-time secret.
    pub secret: SecretBytes,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Payload<'a> {
    data: &'a str,
    enrol: &'a str,
    root_spki_sha256: &'a str,
    id: &'a str,
    // Borrowed: the only copies are wiped with the buffers they were decoded in.
    secret: &'a str,
}

impl Join {
    /// Reads a join string; white space around it is ignored.
    pub fn parse(text: &[u8]) -> Result<Self, JoinError> {
        let text = text.trim_ascii();
        if text.len() > JOIN_BYTES {
            return Err(JoinError::TooLong);
        }
        let body = text
            .strip_prefix(PREFIX.as_bytes())
            .ok_or(JoinError::Prefix)?;
        let json = URL_SAFE_NO_PAD
            .decode(body)
            .map(Zeroizing::new)
            .map_err(damaged)?;
        let payload: Payload<'_> = serde_json::from_slice(&json).map_err(damaged)?;
        let secret = URL_SAFE_NO_PAD
            .decode(payload.secret)
            .map(SecretBytes::new)
            .map_err(damaged)?;
        let mut root_spki_sha256 = [0; 32];
        hex::decode_to_slice(payload.root_spki_sha256, &mut root_spki_sha256).map_err(damaged)?;
        let join = Self {
            data: payload.data.to_owned(),
            enrol: payload.enrol.to_owned(),
            root_spki_sha256,
            id: payload.id.to_owned(),
            secret,
        };
        if join.is_sound() {
            Ok(join)
        } else {
            Err(JoinError::Damaged)
        }
    }

    /// The join string, to be written to where the operator asked for it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the join string exists to carry the secret"
    )]
    pub fn to_text(&self) -> SecretBytes {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.secret.expose_secret()));
        let payload = Payload {
            data: &self.data,
            enrol: &self.enrol,
            root_spki_sha256: &hex::encode(self.root_spki_sha256),
            id: &self.id,
            secret: &secret,
        };
        // Five strings always serialize.
        let json = Zeroizing::new(serde_json::to_vec(&payload).unwrap_or_default());
        let body = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*json));
        SecretBytes::new([PREFIX.as_bytes(), body.as_bytes()].concat())
    }

    #[expect(clippy::disallowed_methods, reason = "only the length is looked at")]
    fn is_sound(&self) -> bool {
        let id_fits = (1..=ID_BYTES).contains(&self.id.len())
            && self
                .id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        id_fits
            && self.secret.expose_secret().len() == SECRET_BYTES
            && !self.data.is_empty()
            && !self.enrol.is_empty()
    }
}

/// The cause quotes its input, so it is not kept.
fn damaged<E>(_cause: E) -> JoinError {
    JoinError::Damaged
}

/// A new one-time secret of [`SECRET_BYTES`].
pub fn new_secret(entropy: &dyn Entropy) -> SecretBytes {
    let drawn = Zeroizing::new(entropy::bytes::<SECRET_BYTES>(entropy));
    SecretBytes::new(drawn.to_vec())
}

/// What a hub keeps of a secret: its SHA-256. The secret has 256 random bits, so no slow hash is
/// needed.
#[expect(clippy::disallowed_methods, reason = "only its digest leaves")]
pub fn secret_digest(secret: &SecretBytes) -> [u8; 32] {
    sha256(secret.expose_secret())
}

/// Whether `secret` is the one with this digest; takes the same time either way.
pub fn secret_matches(secret: &SecretBytes, digest: &[u8; 32]) -> bool {
    constant_time::verify_slices_are_equal(&secret_digest(secret), digest).is_ok()
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests look at the secrets they made"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(id: &str, host: &str) -> Join {
        Join {
            data: format!("{host}:9091"),
            enrol: format!("{host}:9092"),
            root_spki_sha256: [7; 32],
            id: id.to_owned(),
            secret: new_secret(&*entropy::system()),
        }
    }

    #[test]
    fn a_join_string_is_one_word() {
        let text = sample("ab12", "hub.example.com").to_text();
        let text = std::str::from_utf8(text.expose_secret()).unwrap();
        assert!(text.starts_with("sortie-join-v1.") && text.len() < 400);
        assert!(!text.contains(char::is_whitespace));
    }

    #[test]
    fn a_damaged_join_string_is_refused_without_being_quoted() {
        let join = sample("ab12", "hub.example.com");
        let text = join.to_text();
        let text = text.expose_secret();
        assert_eq!(
            Join::parse(b"sortie-join-v2.e30").unwrap_err(),
            JoinError::Prefix
        );
        assert_eq!(
            Join::parse(b"sortie-join-v1.e30").unwrap_err(),
            JoinError::Damaged
        );
        assert_eq!(
            Join::parse(&text[..text.len() - 3]).unwrap_err(),
            JoinError::Damaged
        );
        assert_eq!(Join::parse(&[b' '; 4096]).unwrap_err(), JoinError::Prefix);
        assert_eq!(Join::parse(&[b'x'; 4096]).unwrap_err(), JoinError::TooLong);
        let short = Join {
            secret: SecretBytes::new(vec![1; 16]),
            ..join
        };
        assert_eq!(
            Join::parse(short.to_text().expose_secret()).unwrap_err(),
            JoinError::Damaged
        );
    }

    #[test]
    fn only_the_secret_itself_matches_its_digest() {
        let secret = new_secret(&*entropy::system());
        let digest = secret_digest(&secret);
        assert!(secret_matches(&secret, &digest));
        assert!(!secret_matches(&new_secret(&*entropy::system()), &digest));
        assert!(!secret_matches(&SecretBytes::new(Vec::new()), &digest));
    }

    proptest! {
        #[test]
        fn a_join_string_reads_back(id in "[a-zA-Z0-9-]{1,64}", host in "[a-z0-9.-]{1,50}") {
            let join = sample(&id, &host);
            let text = join.to_text();
            let mut line = text.expose_secret().to_vec();
            line.push(b'\n');
            let again = Join::parse(&line).unwrap();
            prop_assert_eq!((&again.data, &again.enrol), (&join.data, &join.enrol));
            prop_assert_eq!((&again.id, again.root_spki_sha256), (&join.id, join.root_spki_sha256));
            prop_assert_eq!(again.secret.expose_secret(), join.secret.expose_secret());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = [PREFIX.as_bytes(), URL_SAFE_NO_PAD.encode(&bytes).as_bytes()].concat();
            prop_assert!(Join::parse(&text).is_err());
            prop_assert!(Join::parse(&bytes).is_err());
        }
    }
}
