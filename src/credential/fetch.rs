//! What an engine does, and how it fails.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use super::{Places, Reason, Reference};
use crate::retry::Retry;
use crate::secret::SecretBytes;

/// A question to an engine, under way.
pub type Asking<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// A wait that has no outcome.
pub type Waiting<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The version of what is not there.
pub(super) const ABSENT: &str = "";

/// A store of secrets, spoken to over one connection of the configuration.
///
/// Whoever asks bounds the time: every future may be dropped at any point.
pub trait Engine: fmt::Debug + Send + Sync {
    /// Fetches what `reference` names, fresh from the store.
    fn fetch<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Fetched>;

    /// The names of the fields of the document, for a reference that means each of them.
    fn keys<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Vec<String>>;

    /// The store's version of the document, asked without fetching any plaintext; of a reference
    /// that means each field, one that changes with the names. `None` where the store cannot tell.
    fn version<'a>(&'a self, _reference: &'a Reference) -> Asking<'a, Option<String>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Whether `version` is still the store's, asked without fetching any plaintext; `None` where
    /// the store cannot tell.
    fn is_current<'a>(
        &'a self,
        _reference: &'a Reference,
        _version: &'a str,
    ) -> Asking<'a, Option<bool>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Whether the store can be reached and works; no credential is sent.
    fn probe(&self) -> Asking<'_, ()>;

    /// Ends when the store has another version than `version`, which is empty if it had none;
    /// `None` where it does not tell, and has to be asked from time to time. What it asks for
    /// meanwhile takes one of `places`, like every errand; what it only listens to takes none.
    fn changed<'a>(
        &'a self,
        _reference: &'a Reference,
        _version: &'a str,
        _places: &'a Places,
    ) -> Option<Waiting<'a>> {
        None
    }

    /// Gives back what was leased: dynamic secrets, and the login of this connection.
    fn close(&self) -> Waiting<'_> {
        Box::pin(std::future::ready(()))
    }
}

/// What an engine gave.
#[derive(Debug)]
pub struct Fetched {
    /// The bytes.
    pub document: SecretBytes,
    /// The store's version of it.
    pub version: Option<String>,
    /// How it is lent, where the store lends it.
    pub lease: Option<Lease>,
    /// When the store itself takes it away, where that is known before.
    pub gone_at: Option<SystemTime>,
}

/// How a store lends something.
#[derive(Debug)]
pub struct Lease {
    /// For how long it may be used.
    pub time: Duration,
    /// Ends with whatever it is kept beside.
    pub in_use: InUse,
}

/// That what a store lent is in use. The store is told when this is dropped, and takes it back.
pub struct InUse(Option<Box<dyn FnOnce() + Send + Sync>>);

impl InUse {
    /// Does `over` at its end: at once, and from wherever that happens to be.
    pub fn new(over: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(over)))
    }

    /// Leaves it lent until its time is over, or the store is closed.
    pub(super) fn left_lent(mut self) {
        self.0 = None;
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Some(over) = self.0.take() {
            over();
        }
    }
}

impl fmt::Debug for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InUse")
    }
}

/// The names of the fields of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// They.
    pub names: Vec<String>,
    /// The store's version of the document, if it tells one.
    pub version: Option<String>,
}

/// A [`FetchError`] before it knows which connection and secret it is about. It has no room for an
/// answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub kind: FetchErrorKind,
    /// HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// What to look at.
    pub hint: &'static str,
}

impl Failure {
    /// A failure without a status.
    pub const fn new(kind: FetchErrorKind, hint: &'static str) -> Self {
        Self {
            kind,
            status: None,
            hint,
        }
    }

    /// Something on our own side that keeps us from logging in.
    pub const fn local(hint: &'static str) -> Self {
        Self::new(FetchErrorKind::Unauthenticated, hint)
    }

    /// Something that keeps us from asking at all.
    pub const fn unavailable(hint: &'static str) -> Self {
        Self::new(FetchErrorKind::Unavailable { sealed: false }, hint)
    }

    /// An answer that is not what was promised.
    pub const fn corrupt(hint: &'static str) -> Self {
        Self::new(FetchErrorKind::Corrupt, hint)
    }

    /// A reference of another engine; the connection's own look-up does not let one come here.
    pub(super) const fn other_engine() -> Self {
        Self::local("the reference is one of another engine")
    }

    /// As [`Failure::new`], from an answer with this status.
    #[must_use]
    pub const fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        cause(f, &self.kind, self.status, self.hint)
    }
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
    /// What a person calls the secret.
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

impl FetchErrorKind {
    /// What an account's state says about it.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Corrupt => Reason::SecretCorrupt,
            Self::Denied => Reason::SecretDenied,
            Self::Invalid { .. } => Reason::SecretField,
            Self::NotFound => Reason::SecretNotFound,
            Self::Throttled { .. } => Reason::EngineThrottled,
            Self::Unauthenticated => Reason::EngineUnauthenticated,
            Self::Unavailable { sealed: true } => Reason::EngineSealed,
            Self::Unavailable { sealed: false } => Reason::EngineUnavailable,
        }
    }
}

impl FetchError {
    /// What the account's state says about it.
    pub const fn reason(&self) -> Reason {
        self.kind.reason()
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
        cause(f, &self.kind, self.status, self.hint)
    }
}

/// What happened, and what to look at.
fn cause(
    f: &mut fmt::Formatter<'_>,
    kind: &FetchErrorKind,
    status: Option<u16>,
    hint: &str,
) -> fmt::Result {
    match kind {
        FetchErrorKind::Corrupt => f.write_str("the answer is not of the promised form")?,
        FetchErrorKind::Denied => f.write_str("access is denied")?,
        FetchErrorKind::Invalid { field } => write!(f, "the secret has no field `{field}`")?,
        FetchErrorKind::NotFound => f.write_str("there is no such secret")?,
        FetchErrorKind::Throttled { .. } => f.write_str("the engine asks for fewer requests")?,
        FetchErrorKind::Unauthenticated => f.write_str("the engine does not accept us")?,
        FetchErrorKind::Unavailable { sealed: true } => f.write_str("the engine is sealed")?,
        FetchErrorKind::Unavailable { sealed: false } => {
            f.write_str("the engine is not available")?;
        }
    }
    if let Some(status) = status {
        write!(f, " (status {status})")?;
    }
    if !hint.is_empty() {
        write!(f, "; {hint}")?;
    }
    Ok(())
}

impl fmt::Debug for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for FetchError {}
