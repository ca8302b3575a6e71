//! What the facade asks of the hub.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::{HeaderMap, Method, StatusCode};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::body::BodyError;
use crate::resource::{self, Gvr, Verb};
use crate::view::View;

/// The hub, as the facade needs it.
pub trait Upstream: Send + Sync + 'static {
    /// The account with this opaque hex id.
    fn account(&self, id: &str) -> Option<Arc<Account>>;

    /// The same, once its kinds are not [`Account::outdated`] any more; as it is where its agent goes
    /// away or takes longer than [`crate::limits::NEWER_KINDS`].
    fn newer_kinds<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Option<Arc<Account>>>;

    /// Sends a request through the account's agent, once. The answer's head is awaited for
    /// [`LiveRequest::timeout`] at most; its body is a stream, and dropping it cancels the request.
    fn send<'a>(
        &'a self,
        account: &'a Account,
        client: &'a str,
        request: LiveRequest,
    ) -> BoxFuture<'a, Result<LiveAnswer, UpstreamError>>;

    /// Whether `client` may do `verb` on `kind` (`Kind` or `Kind.group`) of the account with this
    /// name. The kind is empty for what every bound client may see: discovery, OpenAPI, version.
    fn authorize(
        &self,
        client: &str,
        account: &str,
        verb: Verb,
        kind: &str,
        namespace: Option<&str>,
    ) -> bool;

    /// Takes note of an operation, answered or refused.
    fn audit(&self, record: AuditRecord);
}

/// An account as the facade offers it; a snapshot for one request.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its name in Spinnaker.
    pub name: String,
    /// Its opaque hex id, lower case.
    pub id: String,
    /// Its last known objects.
    pub view: Arc<View>,
    /// The kinds it offers, in any order.
    pub discovery: Arc<Vec<Kind>>,
    /// Whether a definition has changed since those were asked for, and newer ones are on their way.
    pub outdated: bool,
    /// The API server's `/version` document; empty while it is not known.
    pub version_json: Bytes,
    /// The namespaces it is limited to; empty if it is not.
    pub namespaces: Vec<String>,
    /// Whether its agent is there.
    pub freshness: Freshness,
    /// How old the last known state may be to be served.
    pub max_stale: Duration,
}

/// Whether an account's agent is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It is connected, and requests can be sent.
    Connected,
    /// It is not, since then.
    Away {
        /// When it was last known to be there.
        since: SystemTime,
    },
    /// It has not been seen, and nobody knows since when.
    Unknown,
}

/// A kind that an account offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// What it is; its verbs are those that the account allows.
    pub resource: resource::Kind,
    /// Where its reads are answered from.
    pub level: Level,
    /// Whether its values are masked.
    pub masked: bool,
}

impl Kind {
    /// `Kind.group`, or `Kind` for the core group.
    pub fn full_name(&self) -> String {
        if self.resource.gvr.group.is_empty() {
            self.resource.kind.clone()
        } else {
            format!("{}.{}", self.resource.kind, self.resource.gvr.group)
        }
    }
}

/// Where reads of a kind are answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Lists and watches from the view.
    Cached,
    /// Everything from the cluster.
    Live,
}

/// A request for the cluster's API server.
pub struct LiveRequest {
    /// Its method.
    pub method: Method,
    /// Path and query, without the account's prefix.
    pub target: String,
    /// The headers that matter to an API server; never credentials.
    pub headers: HeaderMap,
    /// Its body, wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
    /// How long the head of the answer is awaited.
    pub timeout: Duration,
}

impl fmt::Debug for LiveRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the query (names, selectors) nor the body is for logs.
        f.debug_struct("LiveRequest")
            .field("method", &self.method)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// The body of an answer, as it comes.
pub type LiveBody = BoxStream<'static, Result<Bytes, BodyError>>;

/// An answer of the cluster's API server, filtered by the agent.
pub struct LiveAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: LiveBody,
}

impl fmt::Debug for LiveAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveAnswer")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UpstreamError {
    /// No agent is connected, or it cannot reach the API server; nothing was sent.
    #[error("the cluster cannot be reached at the moment; `sortie get accounts` tells why")]
    Away,
    /// Too many operations run through the agent.
    #[error("too many operations run on this account, try again later")]
    Busy,
    /// The agent will not send it.
    #[error("refused by the agent: {message}")]
    Refused {
        /// Which of its rules.
        kind: Refusal,
        /// One line for people.
        message: String,
        /// For masked content: where in the body.
        field: Option<String>,
    },
    /// No answer came in time; a read.
    #[error("the cluster did not answer in time")]
    TimedOut,
    /// It was sent, and what became of it is not known.
    #[error("the request was sent, but its outcome is not known")]
    OutcomeUnknown,
    /// The answer could not be filtered.
    #[error("the cluster's answer could not be filtered")]
    Unfilterable,
}

/// Which rule of an agent refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The path, query or method.
    Malformed,
    /// A mask where a value belongs.
    MaskedContent,
    /// The account is not the agent's.
    NoAccount,
    /// The agent's policy.
    Policy,
    /// The body of a masked kind is neither JSON nor YAML.
    UnsupportedMediaType,
}

/// The client's name, from its certificate; put into a request's extensions by the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client(pub String);

/// Cancelled when the hub stops; put into a request's extensions by the listener.
///
/// Watches end then, as they do when their time is over, and followed logs are cut: neither would
/// end by itself. Everything else is answered.
#[derive(Clone, Debug)]
pub struct Drain(pub CancellationToken);

/// In an answer's extensions: the listener closes the connection after it, so that its read
/// buffers, which held a secret, are freed and wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseConnection;

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The facade itself: refusals and synthesized objects.
    Facade,
    /// The cluster.
    Live,
    /// The last known state.
    View,
}

impl Served {
    /// A label for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Facade => "facade",
            Self::Live => "live",
            Self::View => "view",
        }
    }
}

/// One operation. It never holds a body or a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Who asked, by certificate; empty if the listener told no name.
    pub client: String,
    /// Name of the account; empty if the path named none.
    pub account: String,
    /// What was asked for; `None` if the path did not say so in the accepted form.
    pub verb: Option<Verb>,
    /// On which resource.
    pub gvr: Option<Gvr>,
    /// In which namespace.
    pub namespace: Option<String>,
    /// On which object.
    pub name: Option<String>,
    /// On which part of it.
    pub subresource: Option<String>,
    /// What was answered; 499 if the client went away before there was an answer.
    pub status: StatusCode,
    /// Where the answer came from.
    pub served: Served,
    /// Time until the head of the answer.
    pub duration: Duration,
}
