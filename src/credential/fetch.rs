//! What an engine does, and how it fails.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::{Locator, Reason};
use crate::retry::Retry;
use crate::secret::SecretBytes;

/// A fetch under way.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + 'a>>;

/// A store of secrets.
pub trait Engine: fmt::Debug + Send + Sync {
    /// Fetches the field at `locator`, fresh from the store; bounded in time by the engine.
    fn fetch<'a>(&'a self, locator: &'a Locator) -> Fetching<'a>;
}

/// What an engine gave.
#[derive(Debug)]
pub struct Fetched {
    /// The field's bytes.
    pub document: SecretBytes,
    /// The store's version of it.
    pub version: Option<String>,
}

/// A secret that could not be fetched.
///
/// Holds static text, a status code, and names from our own configuration; it has no source and no
/// room for an answer.
#[derive(Clone, PartialEq, Eq)]
pub struct FetchError {
    /// What happened.
    pub kind: FetchErrorKind,
    /// The named connection.
    pub profile: String,
    /// Mount and path of the secret.
    pub path: String,
    /// HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// What to look at.
    pub hint: &'static str,
}

/// What happened to a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchErrorKind {
    /// The answer is not of the promised form.
    Corrupt,
    /// The engine knows this agent and refuses it the secret.
    Denied,
    /// The secret has no such field.
    Invalid {
        /// The field.
        field: String,
    },
    /// There is no such secret.
    NotFound,
    /// The engine asks for fewer requests.
    Throttled {
        /// When to come back, if it said so.
        retry_after: Option<Duration>,
    },
    /// The engine does not accept this agent.
    Unauthenticated,
    /// The engine cannot be reached or does not work.
    Unavailable {
        /// Whether it is sealed.
        sealed: bool,
    },
}

impl FetchError {
    /// What the account's state says about it.
    pub const fn reason(&self) -> Reason {
        match &self.kind {
            FetchErrorKind::Corrupt => Reason::SecretCorrupt,
            FetchErrorKind::Denied => Reason::SecretDenied,
            FetchErrorKind::Invalid { .. } => Reason::SecretField,
            FetchErrorKind::NotFound => Reason::SecretNotFound,
            FetchErrorKind::Throttled { .. } => Reason::EngineThrottled,
            FetchErrorKind::Unauthenticated => Reason::EngineUnauthenticated,
            FetchErrorKind::Unavailable { sealed: true } => Reason::EngineSealed,
            FetchErrorKind::Unavailable { sealed: false } => Reason::EngineUnavailable,
        }
    }

    /// Whether the same request may succeed later without anybody changing the secret.
    pub const fn retry(&self) -> Retry {
        match &self.kind {
            FetchErrorKind::Throttled { .. } | FetchErrorKind::Unavailable { .. } => Retry::Backoff,
            FetchErrorKind::Corrupt
            | FetchErrorKind::Denied
            | FetchErrorKind::Invalid { .. }
            | FetchErrorKind::NotFound
            | FetchErrorKind::Unauthenticated => Retry::Never,
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot fetch `{}` from engine `{}`: ",
            self.path, self.profile
        )?;
        match &self.kind {
            FetchErrorKind::Corrupt => f.write_str("the answer is not of the promised form")?,
            FetchErrorKind::Denied => f.write_str("access is denied")?,
            FetchErrorKind::Invalid { field } => write!(f, "the secret has no field `{field}`")?,
            FetchErrorKind::NotFound => f.write_str("there is no such secret")?,
            FetchErrorKind::Throttled { .. } => {
                f.write_str("the engine asks for fewer requests")?;
            }
            FetchErrorKind::Unauthenticated => f.write_str("the engine does not accept us")?,
            FetchErrorKind::Unavailable { sealed: true } => f.write_str("the engine is sealed")?,
            FetchErrorKind::Unavailable { sealed: false } => {
                f.write_str("the engine is not available")?;
            }
        }
        if let Some(status) = self.status {
            write!(f, " (status {status})")?;
        }
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl fmt::Debug for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for FetchError {}
