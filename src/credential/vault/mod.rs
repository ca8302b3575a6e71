//! Vault and `OpenBao`: a field of a secret, kept in a key-value store of either version or made
//! for us and lent.
//!
//! ```text
//! fetch ──Logins::current──▶ Stores::read ──▶ field
//!            (one login,      │ what is mounted there? GET data, or the secret itself
//!             renewed)        │ 403: once again with another login
//!                             └─ lent: remembered in Leases, given back when it is over, or at close
//! ```
//! The client library is contained: it makes the requests and reads the answers, over a transport of
//! ours with its own TLS (exactly the configured authority, no resumption), no redirects (the token
//! would go along), no proxy, no idle connections (they keep decrypted answers), a bounded body and
//! a deadline. The library's errors hold raw answers, so they are classified and never shown. Three
//! requests that it lacks, or spells wrong, are ours.
//!
//! # Failure
//! - 403 → another login, and the read once again; still 403 → denied if the token is good,
//!   otherwise unauthenticated.
//! - A renewal that cannot be asked for → the login stays in use until it is over.
//! - A version that the store deletes at a time which has not come yet is there until then.
//! - A fetch that is dropped while a wrapped secret id is on its way has spent it.
//! # Sources
//! - Vault HTTP API: "KV secrets engine" (version 1 and 2), "Token", "`AppRole`", "JWT/OIDC",
//!   "Kubernetes", "TLS certificate" and "Userpass auth method", "`/sys/internal/ui/mounts`",
//!   "`/sys/leases`", "`/sys/wrapping/unwrap`", "HTTP status codes".

mod client;
mod failure;
mod leases;
mod login;
mod proof;
mod requests;
mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::client::Client;
use self::leases::Leases;
use self::login::{Logins, Session};
use self::store::{Content, Document, Stores};
use super::fetch::{Asking, Engine, Failure, FetchErrorKind, Fetched, Lease, Waiting};
use super::own_certificate::OwnCertificate;
use super::transport::Identity;
use super::{Reference, document};
use crate::clock::{self, SharedClock};

/// Time that giving back may take; what is left then ends by itself.
const CLOSING: Duration = Duration::from_secs(5);

/// A connection to one Vault or OpenBao.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `https://host:port`.
    pub address: String,
    /// The namespace of the engine that is spoken to; the root one if none.
    pub namespace: Option<String>,
    /// The only certificate authorities that may vouch for it, PEM.
    pub ca_file: PathBuf,
    /// The certificate that is shown to it.
    pub certificate: Option<Identity>,
    /// How to log in.
    pub auth: AuthMethod,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// With a login of our own.
    Login {
        /// Where the method is mounted, usually under its own name.
        mount: String,
        /// Who we are.
        proof: Proof,
    },
    /// With a token that somebody else keeps fresh in a file, read at each login.
    TokenFile(PathBuf),
}

/// What proves who we are. Files are read at each login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A role's id and a secret id.
    AppRole {
        /// The role's id; not a secret.
        role_id: String,
        /// File of the secret id, or of a token that wraps one.
        secret_id_file: PathBuf,
        /// Whether it is wrapped.
        wrapped: bool,
    },
    /// The certificate of the connection.
    Certificate {
        /// The role to ask for; otherwise the first that fits.
        role: Option<String>,
    },
    /// A signed token.
    Jwt {
        /// The role to ask for; otherwise the method's default.
        role: Option<String>,
        /// File of the token.
        token_file: PathBuf,
    },
    /// The token of a service account.
    Kubernetes {
        /// The role to ask for.
        role: String,
        /// File of the token.
        token_file: PathBuf,
    },
    /// A password.
    Userpass {
        /// The user's name.
        user: String,
        /// File of the password.
        password_file: PathBuf,
    },
}

/// Whom to speak to, and as whom.
#[derive(Debug)]
struct Access {
    settings: Settings,
    /// What [`Identity::Own`] stands for.
    certificate: OwnCertificate,
}

/// A connection to one Vault or OpenBao.
#[derive(Debug)]
pub struct Vault {
    access: Arc<Access>,
    logins: Logins,
    stores: Stores,
    leases: Leases,
    /// Tells which versions have been deleted already.
    clock: SharedClock,
}

impl Vault {
    /// Prepares a connection; nothing is dialled yet.
    pub fn new(settings: Settings, certificate: OwnCertificate) -> Self {
        Self::with_clock(settings, certificate, clock::system())
    }

    pub(super) fn with_clock(
        settings: Settings,
        certificate: OwnCertificate,
        clock: SharedClock,
    ) -> Self {
        Self {
            clock,
            access: Arc::new(Access {
                settings,
                certificate,
            }),
            logins: Logins::default(),
            stores: Stores::default(),
            leases: Leases::default(),
        }
    }

    /// Reads a document, with another login if the first one is refused.
    async fn read(&self, document: &Document) -> Result<(Content, Session), Failure> {
        let session = self.logins.current(&self.access).await?;
        match self.read_with(&session, document).await {
            Err(failure) if failure.kind == FetchErrorKind::Denied => {}
            done => return Ok((done?, session)),
        }
        let fresh = self.logins.instead_of(session, &self.access).await?;
        match self.read_with(&fresh, document).await {
            Err(failure) if failure.kind == FetchErrorKind::Denied => {
                Err(self.logins.blame(&fresh, failure, &self.access).await)
            }
            done => Ok((done?, fresh)),
        }
    }

    async fn read_with(&self, session: &Session, document: &Document) -> Result<Content, Failure> {
        let client = Client::build(&self.access, Some(&session.login.token)).await?;
        self.stores.read(&client, document).await
    }

    async fn fetched(&self, reference: &Reference) -> Result<Fetched, Failure> {
        let (content, session) = self.read(&Document::of(reference)?).await?;
        let lease = content.lent.map(|lent| {
            let time = lent.lease;
            Lease {
                // What was lent under a login ends with it.
                time: session.left().map_or(time, |left| left.min(time)),
                in_use: self.leases.add(lent, &session.login, &self.access),
            }
        });
        Ok(Fetched {
            document: document::field(content.fields, reference)?,
            version: content.version,
            lease,
            gone_at: content.gone_at,
        })
    }

    async fn version_of(&self, reference: &Reference) -> Result<Option<String>, Failure> {
        let document = Document::of(reference)?;
        let session = self.logins.current(&self.access).await?;
        let client = Client::build(&self.access, Some(&session.login.token)).await?;
        let now = self.clock.now();
        self.stores
            .version(&client, &session.login, &document, now)
            .await
    }
}

impl Engine for Vault {
    fn fetch<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Fetched> {
        Box::pin(self.fetched(reference))
    }

    fn keys<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Vec<String>> {
        Box::pin(async move {
            let (content, session) = self.read(&Document::of(reference)?).await?;
            let lend = |lent| self.leases.add(lent, &session.login, &self.access);
            // Over at once: nothing of it but the names is used.
            let _lent = content.lent.map(lend);
            document::names(content.fields)
        })
    }

    fn version<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Option<String>> {
        Box::pin(self.version_of(reference))
    }

    fn is_current<'a>(
        &'a self,
        reference: &'a Reference,
        version: &'a str,
    ) -> Asking<'a, Option<bool>> {
        Box::pin(async move {
            match self.version_of(reference).await {
                Ok(newest) => Ok(newest.map(|newest| newest == version)),
                // The fetch that follows tells how it went.
                Err(failure) if failure.kind == FetchErrorKind::NotFound => Ok(Some(false)),
                Err(failure) => Err(failure),
            }
        })
    }

    fn probe(&self) -> Asking<'_, ()> {
        Box::pin(async move { Client::build(&self.access, None).await?.health().await })
    }

    fn close(&self) -> Waiting<'_> {
        Box::pin(async move {
            let closing = async {
                self.leases.close(&self.access).await;
                self.logins.close(&self.access).await;
            };
            if tokio::time::timeout(CLOSING, closing).await.is_err() {
                tracing::warn!("engine did not take everything back in time");
            }
        })
    }
}

#[cfg(test)]
mod tests;
