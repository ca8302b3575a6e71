//! Offers each account as a Kubernetes API endpoint to unmodified clients.
//!
//! ```text
//!  GET /accounts/<id>/…  ─▶ path ─▶ authorize ─┬▶ discovery, OpenAPI   (from memory)
//!  (client name from TLS)                      ├▶ list, watch          (View, once it is settled)
//!                                              ├▶ get, live kinds      (Upstream::send)
//!                                              └▶ write                (Upstream::send, then fence)
//! ```
//! # Invariants
//! - An outage is 503 or the last known state with its age; never an empty list, never 403 (tests:
//!   `tests::reads`).
//! - A client sees its own writes: what it lists after a write is the view once that has passed
//!   the write, else the cluster (test: `tests::writes::a_write_is_seen_by_the_next_list`).
//! - A watch or a followed log ends within 5 s of its client's right to it (test:
//!   `tests::watches::a_watch_ends_with_its_clients_right_to_it`).
//! - What an account's discovery does not name is not found; what its path does not say in the one
//!   accepted form is refused and audited (test: `tests::paths`).
//! - Bodies of requests live in wiping buffers, are sent once, and are never audited.
//! # Failure
//! - Each [`UpstreamError`] has one `Status`, in `status.rs`.
//! # Sources
//! - Kubernetes API concepts; kubectl 1.22 to 1.36 as clients.

mod body;
mod discovery;
mod lasting;
mod live;
mod namespaces;
mod openapi;
mod port;
mod query;
mod read;
mod service;
mod status;
#[cfg(test)]
mod tests;
mod watching;
mod write;

use std::time::Duration;

pub use body::{Body, BodyError};
pub use port::{
    Account, AuditRecord, Client, CloseConnection, Drain, Freshness, Kind, Level, LiveAnswer,
    LiveBody, LiveRequest, Refusal, Served, Upstream, UpstreamError,
};
pub use service::Facade;

/// Time a list or watch waits for the view to pass a write, before it asks the cluster.
pub const FENCE_PATIENCE: Duration = Duration::from_secs(1);

/// Time between bookmarks of a watch that allows them; that of kube-apiserver.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_mins(1);

/// How long a watch lasts whose client does not say; kube-apiserver's least (30 to 60 minutes).
pub const WATCH_LIFETIME: Duration = Duration::from_mins(30);

/// Largest answer to a write that is read for its version before it is passed on, in bytes.
///
/// Answers beyond it are passed on unread, and their collection is fenced as a whole.
pub const ANSWER_READ_BYTES: usize = crate::limits::RAW_OBJECT_BYTES;
