//! The agent's half of the stream: feeds, outbox, session, resume; and the sequence rules that
//! both halves share.
//!
//! ```text
//! API server ──bytes──▶ watch ──Scrubbed──▶ Queue ──numbered──▶ outbox ──Batch──▶ hub
//!                        ▲                                        ▲
//!                        └─────────── resume, epoch ──────────────┴── acknowledgement ◀──
//! ```
//! # Invariants
//! - Only [`crate::scrub::Scrubbed`] bytes enter a [`Queue`] (enforced by: type).
//! - A numbered batch never changes, and leaves the outbox only when the hub has acknowledged it
//!   (tests: `queue::tests`).
//! - An event is applied at most once, in order, whatever connection carried it
//!   ([`Receiver`], tests: `sequence::tests`).
//! - Unsent and unacknowledged bytes are bounded ([`crate::limits::PENDING_BYTES`], [`Quota`],
//!   [`crate::limits::FEED_CREDIT_BYTES`]); a full queue stops the reading, never drops.
//! # Failure
//! - Hub away → watches go on until the queue is full, then stop reading; resumed by version.
//! - API server away → the stream says so, keeps what the hub has, and is retried.
//! # Sources
//! - Kubernetes API concepts, "Efficient detection of changes", "Watch bookmarks", "Streaming
//!   lists"; `docs/decisions/0002-three-counters.md`.

mod batch;
mod carried;
mod events;
mod feed;
mod follow;
mod link;
mod operation;
mod pump;
mod queue;
mod quota;
mod sequence;
mod session;
mod watch;

pub use batch::{BatchError, inflated as inflate_batch, open as open_batch};
pub use feed::{Feed, FeedFigures, FeedSettings, Outage, StreamCounts};
pub use follow::Follow;
pub use link::{Link, LinkEnd};
pub use operation::{OperationDown, Operations};
pub use queue::Queue;
pub use quota::Quota;
pub use sequence::{Receiver, Verdict};
pub use session::{Decision, Offers, SessionSettings, Shared};
