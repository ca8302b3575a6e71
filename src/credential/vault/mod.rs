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

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::sync::Mutex;
use zeroize::Zeroize;

use self::client::Client;
use self::failure::Failure;
use super::authorization::read_token;
use super::fetch::{Engine, FetchError, FetchErrorKind, Fetched, Fetching};
use super::reference::Locator;
use crate::secret::SecretBytes;

/// How often a secret is fetched again, where the settings say nothing else.
pub const REFRESH: Duration = Duration::from_mins(5);

/// Time that one fetch may take, log-in included.
const DEADLINE: Duration = Duration::from_secs(5);

/// A connection to one Vault or OpenBao.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name in references.
    pub name: String,
    /// `https://host:port`.
    pub address: String,
    /// The only certificate authorities that may vouch for it, PEM.
    pub ca_file: PathBuf,
    /// How to log in.
    pub auth: AuthMethod,
    /// Whether it serves references that name no connection.
    pub default: bool,
    /// How often a secret is fetched again; usually [`REFRESH`].
    pub refresh: Duration,
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
    deadline: Duration,
    token: Mutex<Option<Arc<SecretBytes>>>,
}

impl Vault {
    /// Prepares a connection; nothing is dialled yet.
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            deadline: DEADLINE,
            token: Mutex::const_new(None),
        }
    }

    /// What it was made from.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn read(&self, locator: &Locator) -> Result<Fetched, Failure> {
        let token = self.token(None).await?;
        match self.read_with(&token, locator).await {
            Err(failure) if failure.kind == FetchErrorKind::Denied => {}
            done => return done,
        }
        let fresh = self.token(Some(&token)).await?;
        match self.read_with(&fresh, locator).await {
            Err(failure) if failure.kind == FetchErrorKind::Denied => {
                self.blame(&fresh, failure).await
            }
            done => done,
        }
    }

    /// After a second 403: is it the token, or what it may read?
    async fn blame(&self, token: &SecretBytes, denied: Failure) -> Result<Fetched, Failure> {
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

    async fn read_with(&self, token: &SecretBytes, locator: &Locator) -> Result<Fetched, Failure> {
        let client = self.client(token).await?;
        let (mut data, version) = client.read(locator).await?;
        let found = field(&mut data, locator);
        wipe(data);
        Ok(Fetched {
            document: found?,
            version: Some(version.to_string()),
        })
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
                let client = Client::build(&self.settings, None, self.deadline).await?;
                client.log_in(mount, role, &proof).await
            }
        }
    }

    async fn client(&self, token: &SecretBytes) -> Result<Client, Failure> {
        Client::build(&self.settings, Some(token), self.deadline).await
    }
}

impl Engine for Vault {
    fn fetch<'a>(&'a self, locator: &'a Locator) -> Fetching<'a> {
        Box::pin(async move {
            let read = tokio::time::timeout(self.deadline, self.read(locator));
            let outcome = read.await.unwrap_or_else(|_elapsed| {
                Err(Failure {
                    kind: FetchErrorKind::Unavailable { sealed: false },
                    status: None,
                    hint: "it did not answer in time",
                })
            });
            outcome.map_err(|failure| FetchError {
                kind: failure.kind,
                profile: self.settings.name.clone(),
                path: format!("{}/{}", locator.mount, locator.path),
                status: failure.status,
                hint: failure.hint,
            })
        })
    }
}

/// Takes the field out of the secret.
fn field(data: &mut Value, locator: &Locator) -> Result<SecretBytes, Failure> {
    let corrupt = |hint| Failure {
        kind: FetchErrorKind::Corrupt,
        status: None,
        hint,
    };
    let Some(fields) = data.as_object_mut() else {
        return Err(corrupt("the secret is not a map of fields"));
    };
    let Some(value) = fields.get_mut(&locator.key) else {
        return Err(Failure {
            kind: FetchErrorKind::Invalid {
                field: locator.key.clone(),
            },
            status: None,
            hint: "",
        });
    };
    let Value::String(text) = value.take() else {
        return Err(corrupt("the field is not a text"));
    };
    let bytes = SecretBytes::new(text.into_bytes());
    if !locator.base64 {
        return Ok(bytes);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "decoded into another sealed value"
    )]
    let decoded = STANDARD.decode(bytes.expose_secret().trim_ascii());
    decoded
        .map(SecretBytes::new)
        .map_err(|_error| corrupt("the field is not base64"))
}

/// Overwrites the fields that were not asked for.
fn wipe(data: Value) {
    if let Value::Object(fields) = data {
        for (_, value) in fields {
            if let Value::String(mut text) = value {
                text.zeroize();
            }
        }
    }
}

#[cfg(test)]
mod tests;
