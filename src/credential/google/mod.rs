//! Google: Secret Manager, Cloud Storage, and tokens for GKE.
//!
//! ```text
//! Login (official library, a runtime of its own) ──token──▶ Api ──GET──▶ Secrets │ Storage
//!    key file · metadata server · federation                 (our transport)     └─▶ document
//!                                               └─token──▶ gke::Tokens
//! ```
//! The library makes access tokens and nothing else. What carries secrets goes over the transport
//! of this room: one authority, no redirects, no proxy, a bounded wiped body, a deadline.
//!
//! # Invariants
//! - A document without a checksum, or with another one, is never given out (test:
//!   `tests::a_payload_needs_its_checksum`).
//! - An account file that would run a command, or send a credential to a host without TLS, is
//!   refused before the library sees it (test: `login::tests`).
//! - The library's tasks and its token end with its runtime, at the latest when the connection is
//!   dropped (enforced by: `login::Library`).
//! # Failure
//! - The token service fails or hangs → the login is dropped and made anew by the next errand.
//! - A refusal that is not of Google's form says nothing about a secret → an outage.
//! - 401 → the login is dropped, so that a replaced key file is read; nothing is repeated here.
//! # Sources
//! - Secret Manager REST v1; Cloud Storage JSON API v1; AIP-193 (errors), AIP-4110 to 4117
//!   (credentials); RFC 3720 §B.4 (CRC-32C).

mod api;
mod checksum;
pub mod gke;
mod login;
mod secrets;
mod storage;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub(super) use self::secrets::Secrets;
pub(super) use self::storage::Storage;

/// Where Secret Manager is, where the settings say nothing else.
pub const SECRET_MANAGER: &str = "https://secretmanager.googleapis.com";

/// Where Cloud Storage is, where the settings say nothing else.
pub const CLOUD_STORAGE: &str = "https://storage.googleapis.com";

/// A connection to Secret Manager or Cloud Storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `https://host` or `https://host:port`; usually [`SECRET_MANAGER`] or [`CLOUD_STORAGE`].
    pub endpoint: String,
    /// The only certificate authorities that may vouch for it, PEM; otherwise those of the system.
    pub ca_file: Option<PathBuf>,
    /// How to log in.
    pub auth: AuthMethod,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// As Google's own programs do: the file that `GOOGLE_APPLICATION_CREDENTIALS` names, the one
    /// of `gcloud`, or the metadata server.
    Default,
    /// With a token of a foreign issuer, as an `external_account` file says.
    Federation(PathBuf),
    /// With the key of a service account, in the file that Google made.
    KeyFile(PathBuf),
    /// With the service account of the machine or pod.
    Metadata,
}
