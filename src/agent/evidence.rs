//! What the agent shows to be let in, read anew at each attempt where it can change.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use zeroize::Zeroizing;

use super::{Evidence, Hub};
use crate::fault::Advised;
use crate::identity::join::{JOIN_BYTES, Join, JoinError};
use crate::identity::{SpkiSha256, client};
use crate::secret::SecretBytes;

/// Largest token that is read, in bytes.
const TOKEN_BYTES: usize = 16 * 1024;

/// What a join string says: which hub, and the token that opens it.
///
/// # Errors
/// It is not a join string.
pub fn joining(text: &[u8]) -> Result<(Hub, Evidence), JoinError> {
    let join = Join::parse(text)?;
    let hub = Hub {
        data: join.data,
        enrol: join.enrol,
        root_spki_sha256: join.root_spki_sha256,
    };
    let secret = Arc::new(join.secret);
    Ok((
        hub,
        Evidence::Token {
            id: join.id,
            secret,
            file: None,
        },
    ))
}

/// Reads the join string at `path`; the error says why not, and quotes nothing of it.
///
/// # Errors
/// There is none, or not a whole one.
pub fn read_join(path: &Path) -> Result<Join, String> {
    let shown = path.display();
    let unreadable = |error: io::Error| {
        format!(
            "cannot read `{shown}`: {error}; `sortie token create AGENT --out FILE` at the hub makes one"
        )
    };
    // White space around it, and one byte more than fits.
    let bytes = read(path, JOIN_BYTES + 64).map_err(unreadable)?;
    Join::parse(&bytes).map_err(|error| format!("`{shown}`: {error}"))
}

/// Reads at most `most` bytes.
fn read(path: &Path, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    File::open(path)?
        .take(most as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The evidence cannot be read.
#[derive(Debug, Error)]
pub(super) enum EvidenceError {
    /// There is no file, or not for us.
    #[error("cannot read the ServiceAccount token `{}` (`identity.join.token-file`)", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Advised,
    },
    /// Something else, or a part of it: the file may be written at this moment.
    #[error("`{}` (`identity.join.token-file`) does not hold a whole token", path.display())]
    NoToken {
        /// Which.
        path: PathBuf,
    },
}

impl Evidence {
    /// The evidence of the moment, for the hub whose root is pinned.
    pub(super) fn show(&self, pin: &SpkiSha256) -> Result<client::Evidence, EvidenceError> {
        match self {
            Self::Token { id, secret, file } => {
                let again = file.as_deref().and_then(|file| another(file, pin));
                Ok(again.unwrap_or_else(|| client::Evidence::Token {
                    id: id.clone(),
                    secret: Arc::clone(secret),
                }))
            }
            Self::ServiceAccount { token_file } => {
                let path = token_file.clone();
                let mut token = read(token_file, TOKEN_BYTES).map_err(|error| {
                    let source = Advised::new(error, "is the volume with the token mounted?");
                    EvidenceError::Unreadable {
                        path: path.clone(),
                        source,
                    }
                })?;
                if !is_whole(token.trim_ascii()) {
                    return Err(EvidenceError::NoToken { path });
                }
                Ok(client::Evidence::Kubernetes {
                    jwt: SecretBytes::new(std::mem::take(&mut *token)),
                })
            }
        }
    }

    /// Whether the evidence is good for one key only.
    pub(super) const fn is_spent(&self) -> bool {
        matches!(self, Self::Token { .. })
    }
}

/// The token that the file holds now. None if that cannot be used: the one that was read at the start
/// stays good while the file is away, or being written.
fn another(file: &Path, pin: &SpkiSha256) -> Option<client::Evidence> {
    let join = read_join(file).ok()?;
    (join.root_spki_sha256 == *pin).then(|| client::Evidence::Token {
        id: join.id,
        secret: Arc::new(join.secret),
    })
}

/// Whether it has the three parts of a token (RFC 7519 §3).
fn is_whole(token: &[u8]) -> bool {
    let mut parts = token.split(|byte| *byte == b'.');
    let filled = parts.by_ref().take(3).filter(|part| !part.is_empty());
    filled.count() == 3 && parts.next().is_none()
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests look at the secrets they made"
)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::entropy;
    use crate::identity::join::new_secret;

    const PIN: SpkiSha256 = [7; 32];

    fn join(id: &str, root_spki_sha256: SpkiSha256) -> SecretBytes {
        let join = Join {
            data: "hub:9091".to_owned(),
            enrol: "hub:9092".to_owned(),
            root_spki_sha256,
            id: id.to_owned(),
            secret: new_secret(&*entropy::system()),
        };
        join.to_text()
    }

    #[test]
    fn a_join_file_is_read_anew_and_one_that_cannot_be_used_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("join");
        let at_start = Join::parse(join("first", PIN).expose_secret()).unwrap();
        let evidence = Evidence::Token {
            id: at_start.id,
            secret: Arc::new(at_start.secret),
            file: Some(file.clone()),
        };
        let shown = || match evidence.show(&PIN) {
            Ok(client::Evidence::Token { id, .. }) => id,
            other => panic!("{other:?}"),
        };
        assert_eq!(shown(), "first");
        let second = join("second", PIN);
        let half = &second.expose_secret()[..40];
        std::fs::write(&file, half).unwrap();
        assert_eq!(shown(), "first");
        std::fs::write(&file, second.expose_secret()).unwrap();
        assert_eq!(shown(), "second");
        let of_another_hub = join("third", [8; 32]);
        std::fs::write(&file, of_another_hub.expose_secret()).unwrap();
        assert_eq!(shown(), "first");
    }

    #[test]
    fn a_service_account_token_that_is_being_written_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        let evidence = Evidence::ServiceAccount {
            token_file: token_file.clone(),
        };
        let gone = evidence.show(&PIN);
        assert!(matches!(gone, Err(EvidenceError::Unreadable { .. })));
        for part in ["", "\n", "aGVhZA", "aGVhZA.Y2xhaW1z", "aGVhZA.Y2xhaW1z."] {
            std::fs::write(&token_file, part).unwrap();
            let shown = evidence.show(&PIN);
            assert!(
                matches!(shown, Err(EvidenceError::NoToken { .. })),
                "{part}"
            );
        }
        for whole in ["aGVhZA.Y2xhaW1z.c2ln\n", "b3RoZXI.Y2xhaW1z.c2ln"] {
            std::fs::write(&token_file, whole).unwrap();
            let Ok(client::Evidence::Kubernetes { jwt }) = evidence.show(&PIN) else {
                panic!("{whole} is a token");
            };
            assert_eq!(jwt.expose_secret(), whole.as_bytes());
        }
    }
}
