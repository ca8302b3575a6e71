//! The independent reader: what really is at the cluster and at the facade, and a report of it.
//!
//! ```text
//! cluster ─list/watch─▶ Reader ─▶ Observer ─▶ lost · duplicated · lag ─┐
//! facade  ─list/watch─▶ Reader ─▶ Snapshot ─▶ state hash ──────────────┼─▶ Report ─judge─▶ ok
//! frames, answers, store, logs ─bytes─▶ Canaries ─▶ found · control ───┘
//! ```
//! # Invariants
//! - Shares no code with the rooms it judges: client, filter and hash are its own (enforced by:
//!   `tests/architecture.rs`).
//! - The verdict comes from the figures alone (test:
//!   `report::tests::each_broken_figure_fails_the_run_by_name`).
//! - Memory is bounded whatever the cluster does; a [`Ledger`] that had to forget says so.
//! # Failure
//! - An endpoint that cannot be read at the start → [`ReadError`]; later, watches are taken up
//!   again where they ended, with back-off.
//! # Sources
//! - Kubernetes API concepts, "Efficient detection of changes".

mod canaries;
mod endpoint;
mod filter;
mod kubeconfig;
mod ledger;
mod observer;
mod plant;
mod reader;
mod report;
mod state;

#[cfg(test)]
mod tests;

pub use canaries::{Canaries, CanaryError, FRAGMENT, Scan};
pub use endpoint::{Credential, Endpoint, ReadError};
pub use filter::{ReferenceFilter, canonical};
pub use kubeconfig::{Context, KubeconfigError};
pub use ledger::{Change, Ledger, Side};
pub use observer::{Observer, QUIET};
pub use plant::{Plant, SECRETS};
pub use reader::{AGENT, Answer, Event, Lines, Listing, Reader};
pub use report::{AccountFigures, CanaryFigures, EventFigures, Lag, Report, StateHashes};
pub use state::{Collection, Snapshot, state_hash};
