//! The last known objects of an account, their watchers and fences.
//!
//! ```text
//!            upsert, touch, delete,          ┌────────── View ──────────┐   list, get
//!  session ─ bookmark, snapshot_begin/end ──▶│ streams ──▶ history ─────┼──▶ watch ──▶ Watcher
//!  facade ── fence (after a write) ─────────▶│ fences ── settled ───────┼──▶ "the view has seen it"
//!  store ─── restore ───────────────────────▶│ changes ─ take_changes ──┼──▶ store
//!                                            └──────────────────────────┘
//! ```
//! A [`View`] is synchronous: one lock, held for the time of a copy and never across an await.
//! What waits ([`Watcher::next`], [`View::settled`]) waits for a tick of its kind and looks again.
//!
//! # Invariants
//! - An object is never replaced by an older one (test: `tests::model::the_view_equals_a_naive_model`).
//! - During a snapshot the old state is served; its end replaces it at once, and a snapshot that
//!   never ends changes nothing (test: `tests::a_lost_end_never_deletes`).
//! - A list and the events that follow its version are the state, whatever happened in between; if
//!   that cannot be had, the watch ends with [`WatchError::Gone`] (test:
//!   `tests::model::a_list_and_its_watch_are_the_state`).
//! - A kind that does not fit into the account's bytes is unavailable, never cut short.
//! # Sources
//! - Kubernetes API concepts, "Efficient detection of changes", "Watch bookmarks".

mod changes;
mod feed;
mod fence;
mod few;
mod history;
mod object;
mod packed;
mod read;
mod selector;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod watcher;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::SharedClock;
use crate::limits::VIEW_BYTES_PER_ACCOUNT;
use crate::resource::{Gvr, Scope};

pub use changes::{Changes, Fate};
pub use fence::Settled;
pub use few::Few;
pub use object::Object;
pub use read::{Listing, Unavailable};
pub use selector::{Selector, SelectorError};
use state::State;
pub use watcher::{Event, From, WatchError, Watcher};

/// Events of one kind that are kept for watches that resume.
///
/// kube-apiserver starts with 100 and grows; kubectl lists and then watches within milliseconds.
pub const HISTORY_EVENTS: usize = 1024;

/// Bytes of objects that one kind's history holds besides the state.
pub const HISTORY_BYTES: usize = 8 * 1024 * 1024;

/// Time after which a fence on a deletion no longer sends reads to the cluster.
///
/// Five bookmark intervals: by then the view has seen the deletion, or it never will.
pub const FENCE_LIFETIME: Duration = Duration::from_mins(5);

/// A stream: the objects of a resource within a scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// The resource.
    pub gvr: Gvr,
    /// Which of its objects.
    pub scope: Scope,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The state has changed, or will with the end of the snapshot under way.
    Changed,
    /// It was known already, is older than what is known, or its stream is not attached.
    Ignored,
}

/// What became of the end of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotEnd {
    /// The state is the snapshot.
    Applied,
    /// No snapshot was under way.
    NotBegun,
    /// The snapshot is older than the state, which stays.
    Older,
    /// The snapshot was given up when it grew beyond the account's budget; the kind is unavailable.
    OverBudget,
}

/// Counts of a view, for metrics and people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Objects held.
    pub objects: usize,
    /// Bytes held, history and snapshots under way included.
    pub bytes: usize,
    /// Events ignored because they were older than the state or known already.
    pub ignored: u64,
    /// Kinds that are unavailable because they did not fit.
    pub over_budget: usize,
}

/// The last known objects of one account. Shared as `Arc<View>`.
pub struct View {
    state: Mutex<State>,
    clock: SharedClock,
}

impl View {
    /// An empty view that may hold [`VIEW_BYTES_PER_ACCOUNT`].
    pub fn new(clock: SharedClock) -> Self {
        Self::with_budget(clock, VIEW_BYTES_PER_ACCOUNT)
    }

    /// An empty view that may hold `budget` bytes.
    pub fn with_budget(clock: SharedClock, budget: usize) -> Self {
        Self {
            state: Mutex::new(State::new(budget)),
            clock,
        }
    }

    /// Counts over everything held.
    pub fn totals(&self) -> Totals {
        self.lock().totals()
    }

    /// Number of objects held per kind, e.g. `("Pod", 12)`, sorted by resource.
    pub fn counts(&self) -> Vec<(Gvr, String, usize)> {
        self.lock().counts()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything that could panic, so the state is usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("totals", &self.totals())
            .finish_non_exhaustive()
    }
}
