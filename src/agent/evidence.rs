//! What the agent shows to be let in, read anew at each attempt where it can change.

use std::io::Read;
use std::sync::Arc;

use thiserror::Error;
use zeroize::Zeroizing;

use super::{Evidence, Hub};
use crate::fault::Advised;
use crate::identity::client;
use crate::identity::join::{Join, JoinError};
use crate::secret::SecretBytes;

/// Largest token that is read, in bytes.
const TOKEN_BYTES: u64 = 16 * 1024;

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
        },
    ))
}

/// The evidence cannot be read.
#[derive(Debug, Error)]
#[error("cannot read the ServiceAccount token `{}` (`identity.join.token-file`)", path.display())]
pub(super) struct EvidenceError {
    path: std::path::PathBuf,
    #[source]
    source: Advised,
}

impl Evidence {
    /// The evidence of the moment.
    pub(super) fn show(&self) -> Result<client::Evidence, EvidenceError> {
        match self {
            Self::Token { id, secret } => Ok(client::Evidence::Token {
                id: id.clone(),
                secret: Arc::clone(secret),
            }),
            Self::ServiceAccount { token_file } => {
                let failed = |error| EvidenceError {
                    path: token_file.clone(),
                    source: Advised::new(error, "is the volume with the token mounted?"),
                };
                let mut token = Zeroizing::new(Vec::with_capacity(4096));
                let file = std::fs::File::open(token_file).map_err(failed)?;
                file.take(TOKEN_BYTES)
                    .read_to_end(&mut token)
                    .map_err(failed)?;
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
