//! Vault and OpenBao: a field of a KV version 2 secret.
//!
//! ```text
//! fetch ──token (cached, from file or Kubernetes login)──▶ GET /v1/MOUNT/data/PATH ──▶ field
//!            ▲                                                  │ 403
//!            └────────────── once again ◀───────────────────────┘
//! ```
//! The client library is contained: it makes the requests and reads the answers, over a transport of
//! ours with its own TLS (exactly the configured authority, no resumption), no redirects (the token
//! would go along), no proxy, no idle connections (they keep decrypted answers), a bounded body and
//! a deadline. The library's errors hold raw answers, so they are classified and never shown.
//!
//! # Failure
//! - 403 → the token is renewed once and the read repeated; still 403 → denied if the token is
//!   good, otherwise unauthenticated.
//! # Sources
//! - Vault HTTP API: "KV secrets engine version 2", "Kubernetes auth method", "Token auth method",
//!   "HTTP status codes".

mod client;
mod failure;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;

use self::client::Client;
use super::authorization::read_token;
use super::fetch::{Asking, Engine, Failure, FetchErrorKind, Fetched};
use super::{Locator, Reference, document};
use crate::secret::SecretBytes;

/// Time that one request may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// A connection to one Vault or OpenBao.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `https://host:port`.
    pub address: String,
    /// The only certificate authorities that may vouch for it, PEM.
    pub ca_file: PathBuf,
    /// How to log in.
    pub auth: AuthMethod,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// With the token of a service account.
    Kubernetes {
        /// The role to ask for.
        role: String,
        /// Where the method is mounted, usually `kubernetes`.
        mount: String,
        /// File of the service account's token, read at each login.
        token_file: PathBuf,
    },
    /// With a token that somebody else keeps fresh in a file, read at each login.
    TokenFile(PathBuf),
}

/// A connection to one Vault or OpenBao.
#[derive(Debug)]
pub struct Vault {
    settings: Settings,
    token: Mutex<Option<Arc<SecretBytes>>>,
}

impl Vault {
    /// Prepares a connection; nothing is dialled yet.
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            token: Mutex::const_new(None),
        }
    }

    async fn read(&self, secret: &Secret<'_>) -> Result<(Value, u64), Failure> {
        let token = self.token(None).await?;
        match self.read_with(&token, secret).await {
            Err(failure) if failure.kind == FetchErrorKind::Denied => {}
            done => return done,
        }
        let fresh = self.token(Some(&token)).await?;
        match self.read_with(&fresh, secret).await {
            Err(failure) if failure.kind == FetchErrorKind::Denied => {
                self.blame(&fresh, failure).await
            }
            done => done,
        }
    }

    /// After a second 403: is it the token, or what it may read?
    async fn blame(&self, token: &SecretBytes, denied: Failure) -> Result<(Value, u64), Failure> {
        if matches!(self.settings.auth, AuthMethod::Kubernetes { .. }) {
            return Err(denied); // the token is a moment old
        }
        let client = self.client(token).await?;
        match client.look_up_self().await {
            Ok(()) => Err(denied),
            // Accepted, whatever else it said.
            Err(lookup) if lookup.kind == FetchErrorKind::Corrupt => Err(denied),
            Err(lookup) if lookup.kind == FetchErrorKind::Denied => Err(Failure {
                kind: FetchErrorKind::Unauthenticated,
                hint: "the token in the configured file is expired or revoked",
                ..lookup
            }),
            Err(lookup) => Err(lookup),
        }
    }

    async fn read_with(
        &self,
        token: &SecretBytes,
        secret: &Secret<'_>,
    ) -> Result<(Value, u64), Failure> {
        self.client(token).await?.read(secret).await
    }

    /// The cached token, or a new one if there is none or it is the one that was `refused`.
    async fn token(&self, refused: Option<&Arc<SecretBytes>>) -> Result<Arc<SecretBytes>, Failure> {
        let mut cached = self.token.lock().await;
        if let Some(token) = &*cached
            && refused.is_none_or(|refused| !Arc::ptr_eq(refused, token))
        {
            return Ok(Arc::clone(token));
        }
        let token = Arc::new(self.log_in().await?);
        *cached = Some(Arc::clone(&token));
        Ok(token)
    }

    async fn log_in(&self) -> Result<SecretBytes, Failure> {
        let unreadable =
            |_error| Failure::local("the configured token file cannot be read or holds no token");
        match &self.settings.auth {
            AuthMethod::TokenFile(path) => read_token(path).await.map_err(unreadable),
            AuthMethod::Kubernetes {
                role,
                mount,
                token_file,
            } => {
                let proof = read_token(token_file).await.map_err(unreadable)?;
                let client = Client::build(&self.settings, None, DEADLINE).await?;
                client.log_in(mount, role, &proof).await
            }
        }
    }

    async fn client(&self, token: &SecretBytes) -> Result<Client, Failure> {
        Client::build(&self.settings, Some(token), DEADLINE).await
    }
}

/// Which secret.
struct Secret<'a> {
    mount: &'a str,
    path: &'a str,
    version: Option<u64>,
}

impl<'a> Secret<'a> {
    fn of(reference: &'a Reference) -> Result<Self, Failure> {
        match &reference.locator {
            Locator::Vault {
                mount,
                path,
                version,
            } => Ok(Self {
                mount,
                path,
                version: *version,
            }),
            _ => Err(Failure::other_engine()),
        }
    }
}

impl Engine for Vault {
    fn fetch<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Fetched> {
        Box::pin(async move {
            let (data, version) = self.read(&Secret::of(reference)?).await?;
            Ok(Fetched {
                document: document::field(data, reference)?,
                version: Some(version.to_string()),
                lease: None,
            })
        })
    }

    fn keys<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Vec<String>> {
        Box::pin(async move {
            let (data, _) = self.read(&Secret::of(reference)?).await?;
            document::names(data)
        })
    }

    fn probe(&self) -> Asking<'_, ()> {
        Box::pin(async move {
            let client = Client::build(&self.settings, None, DEADLINE).await?;
            client.health().await
        })
    }
}

#[cfg(test)]
mod tests;
