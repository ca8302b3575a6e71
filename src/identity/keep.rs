//! The state folder an agent may be given: its key, certificate and roots in one private file.
//!
//! Without it nothing is on disk and a restarted agent joins anew.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use prost::Message as _;
use secrecy::ExposeSecret as _;
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use super::client::{AnswerError, Certificate, Expected};
use super::files::{self, FileError};
use super::id::{Name, SpiffeId};
use super::key::{KeyError, KeyPair};
use super::public_key::SpkiSha256;
use crate::secret::SecretBytes;
use crate::wire::v1;

const FILE: &str = "identity.bin";

/// Why the kept identity is not used.
#[derive(Debug, Error)]
pub enum KeepError {
    /// The file could not be used.
    #[error("could not use the state folder")]
    File(#[from] FileError),
    /// The content is damaged.
    #[error("`{}` is damaged: remove it to join anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Key, certificate and name do not belong together.
    #[error("`{}` does not hold an identity of this agent: remove it to join anew", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: AnswerError,
    },
    /// It was given by a hub with another root than the one that is trusted now.
    #[error("`{}` holds an identity given by a hub with another root than the pinned one", path.display())]
    OtherRoot {
        /// The file.
        path: PathBuf,
    },
    /// The key failed.
    #[error("could not use the kept key")]
    Key(#[from] KeyError),
}

/// What is in the file.
#[derive(prost::Message)]
#[prost(skip_debug)]
struct Kept {
    #[prost(bytes = "vec", tag = "1")]
    pkcs8: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    answer: Option<v1::EnrolResponse>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept([REDACTED])")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.pkcs8.zeroize();
    }
}

/// Keeps a certificate with its key.
#[expect(
    clippy::disallowed_methods,
    reason = "the operator asked for the key to be kept"
)]
pub fn save(folder: &Path, certificate: &Certificate) -> Result<(), KeepError> {
    files::open_folder(folder)?;
    let pkcs8 = certificate.key().to_pkcs8()?;
    let mut answer = certificate.answer().clone();
    answer.trust = Some(certificate.trust().to_wire());
    let kept = Kept {
        pkcs8: pkcs8.expose_secret().to_vec(),
        answer: Some(answer),
    };
    let content = SecretBytes::new(kept.encode_to_vec());
    Ok(files::replace(&folder.join(FILE), &content)?)
}

/// What was kept for the agent `name` at the hub whose root is pinned; `None` if nothing was, or if
/// it has ended at `now`.
#[expect(
    clippy::disallowed_methods,
    reason = "parsing is what the bytes are for"
)]
pub fn load(
    folder: &Path,
    name: &Name,
    pin: &SpkiSha256,
    now: SystemTime,
) -> Result<Option<Certificate>, KeepError> {
    files::open_folder(folder)?;
    let path = folder.join(FILE);
    let Some(content) = files::read(&path)? else {
        return Ok(None);
    };
    let damaged = || KeepError::Damaged { path: path.clone() };
    let mut kept = Kept::decode(content.expose_secret()).map_err(|_detail| damaged())?;
    let answer = kept.answer.take().ok_or_else(damaged)?;
    let pkcs8 = Zeroizing::new(std::mem::take(&mut kept.pkcs8));
    let key = KeyPair::from_pkcs8(&SecretBytes::new(pkcs8.to_vec()))?;
    let id: SpiffeId = answer.spiffe_id.parse().map_err(|_detail| damaged())?;
    if crate::clock::from_unix_seconds(answer.not_after) <= now {
        return Ok(None);
    }
    let expected = Expected {
        name,
        trust_domain: &id.trust_domain,
        pin: Some(pin),
    };
    Certificate::check(answer, key, &expected, now)
        .map(Some)
        .map_err(|source| {
            if matches!(source, AnswerError::Unpinned) {
                return KeepError::OtherRoot { path };
            }
            KeepError::Mismatch { path, source }
        })
}
