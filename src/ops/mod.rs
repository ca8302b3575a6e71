//! Executes tunnelled requests in the agent, under the agent's own policy.
//!
//! ```text
//! Dispatch ─▶ Target ─▶ policy ─▶ body checked ─▶ API server ─▶ scrub ─▶ OperationUp
//! ```
//! # Invariants
//! - What does not round-trip as a [`Target`], is not an allowed kind, or is not permitted by the
//!   account's policy, is never sent (tests: `tests/real`).
//! - The path that is sent is rebuilt from the parsed target.
//! - Only [`crate::scrub::Scrubbed`] bytes go up (enforced by: [`up::Up::body`]).
//! - Every operation leaves one audit record, which names the client that the hub asserts.
//! # Failure
//! - Not sent, or not answered → one [`v1::OperationFailure`]; a write that may have been carried
//!   out is `OUTCOME_UNKNOWN`, and never repeated here.

mod execute;
mod headers;
mod turns;
mod up;
mod version;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tonic::Status;

use crate::cluster::Cluster;
use crate::policy::{AccountPolicy, AllowedKind};
use crate::resource::{Gvr, ResourceVersion};
use crate::telemetry::metrics::Tally;
use crate::wire::v1;

pub use execute::run;
pub use turns::{Turn, Turns};

/// The kinds of an account by where they are served.
pub type Kinds = BTreeMap<Gvr, AllowedKind>;

/// Is told the resource and version of a write's answer.
pub type Wrote = Arc<dyn Fn(&Gvr, ResourceVersion) + Send + Sync>;

/// What operations on one account need.
#[derive(Clone)]
pub struct Context {
    /// Name of the account.
    pub account: String,
    /// What it may do.
    pub policy: Arc<AccountPolicy>,
    /// Its kinds, as last discovered.
    pub kinds: watch::Receiver<Arc<Kinds>>,
    /// The connection to its API server; none before the first.
    pub cluster: watch::Receiver<Option<Arc<Cluster>>>,
    /// Is told the version of each write's answer.
    pub wrote: Wrote,
    /// Counts operations by verb and outcome.
    pub tally: Arc<Tally<2>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// The hub's end of an operation is gone; there is nobody to tell.
#[derive(Debug)]
pub(crate) struct Gone;

/// What the hub sends down an operation's stream.
pub type Down = BoxStream<'static, Result<v1::OperationDown, Status>>;

/// Why there is no answer, or not all of it.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: v1::OperationFailureKind,
    message: String,
    field: String,
}

impl Failure {
    fn new(kind: v1::OperationFailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            field: String::new(),
        }
    }

    fn at(self, field: String) -> Self {
        Self { field, ..self }
    }
}
