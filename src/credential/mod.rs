//! Resolves an account's kubeconfig, from a secret engine, a file or the pod, into sealed memory.
//!
//! ```text
//! Store ──▶ Keeper (one per source) ──Engines──▶ SecretBytes ──kubeconfig::read──▶ Credential
//!   ▲          │ Schedule: when, until when   (Connection: deadline, pace, probe)      │
//! accounts ◀───┴── Published (watch: the last good one, its facts, what is wrong) ◀────┘
//! ```
//! # Invariants
//! - Nothing is written to disk, and nothing is executed but a command that the account's own
//!   configuration spells out with all its arguments (test: `kubeconfig::tests`).
//! - A [`FetchError`] and a [`KubeconfigError`] hold static text, numbers, names from our own
//!   configuration and paths, so no document and no answer can be printed through them
//!   (enforced by: type; test: `vault::tests::no_failure_shows_a_planted_secret`). Neither do the
//!   libraries' logs, at any level (test: `vault::tests::no_log_line_shows_a_planted_secret`).
//! - A credential trusts exactly the certificate authority that came with it, or anybody where the
//!   account allows that by name; the roots of the system are never used for an API server.
//! # Failure
//! - An engine that is away → the last good credential stays until `credential-max-stale`, then the
//!   account is suspended and the credential wiped; the engine is asked again after 1 s, at most
//!   5 min, and within 30 s of its return.
//! - A secret that is gone, told twice two minutes apart → suspended and wiped.
//! - An answer that cannot be used → the last good one stays, with the [`Reason`].
//! # Sources
//! - Kubernetes `clientcmd/api/v1` (kubeconfig); Vault HTTP API, "KV secrets engine version 2".

mod authorization;
#[cfg(feature = "aws")]
pub mod aws;
mod certificate;
mod connection;
mod document;
mod engines;
mod exec;
mod fetch;
pub mod file;
#[cfg(feature = "google")]
pub mod google;
mod issuer;
mod keeper;
pub mod kubeconfig;
pub mod kubernetes;
mod material;
mod minted;
mod minting;
mod noop;
mod oidc;
mod own_certificate;
mod places;
mod proxy;
mod reference;
mod schedule;
mod server;
mod service_account;
mod settings;
mod source;
mod store;
mod surroundings;
#[cfg(test)]
pub(crate) mod testkit;
mod transport;
pub mod vault;

use std::fmt;

pub(crate) use authorization::basic;
pub use authorization::{Auth, AuthorizationError, TokenFile};
pub use engines::{Engines, Figures};
pub use fetch::{
    Asking, Engine, Failure, FetchError, FetchErrorKind, Fetched, InUse, Keys, Lease, Waiting,
};
pub use keeper::Published;
pub use kubeconfig::{KubeconfigError, Minting, Profile, Purpose, Relaxation, Rules};
pub use material::{Credential, Trust};
pub use minted::{Made, Minted, Minter};
pub use own_certificate::OwnCertificate;
pub use places::{Place, Places};
pub use proxy::{Proxy, ProxyKind, ProxyUser};
pub use reference::{EngineId, Key, Locator, Reference, ReferenceError};
pub use server::{Server, ServerError, is_refused_address};
pub use settings::{EngineSettings, MAX_STALE, REFRESH, Settings};
pub use source::Source;
pub use store::{Followed, Store};
pub use surroundings::Surroundings;
pub use transport::Identity;

/// Why an account has no fresh credential; printed as its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The engine could not be asked for longer than `credential-max-stale`, or the lease ended.
    CredentialExpired,
    /// The engine asks for fewer requests.
    EngineThrottled,
    /// The engine is sealed.
    EngineSealed,
    /// The engine does not accept this agent.
    EngineUnauthenticated,
    /// The engine cannot be reached or does not work.
    EngineUnavailable,
    /// The kubeconfig asks for a command to be run.
    ExecUnsupported,
    /// The kubeconfig is not one that is accepted.
    KubeconfigInvalid,
    /// What the engine answered is not a secret of the promised form.
    SecretCorrupt,
    /// The engine knows this agent and refuses it the secret.
    SecretDenied,
    /// The secret has no such field.
    SecretField,
    /// There is no such secret.
    SecretNotFound,
}

impl Reason {
    /// The name, as account states and metrics show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CredentialExpired => "CredentialExpired",
            Self::EngineThrottled => "EngineThrottled",
            Self::EngineSealed => "EngineSealed",
            Self::EngineUnauthenticated => "EngineUnauthenticated",
            Self::EngineUnavailable => "EngineUnavailable",
            Self::ExecUnsupported => "ExecUnsupported",
            Self::KubeconfigInvalid => "KubeconfigInvalid",
            Self::SecretCorrupt => "SecretCorrupt",
            Self::SecretDenied => "SecretDenied",
            Self::SecretField => "SecretField",
            Self::SecretNotFound => "SecretNotFound",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
