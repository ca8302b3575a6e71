//! What all accounts of one agent share: snapshots under way, and bytes that wait to be sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// Bounds what the accounts of one agent hold together; each has its own bounds besides.
#[derive(Debug)]
pub struct Quota {
    snapshots: Arc<Semaphore>,
    waiting: AtomicUsize,
    freed: Notify,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            snapshots: Arc::new(Semaphore::new(limits::SNAPSHOTS_PER_AGENT)),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }
}

impl Quota {
    /// Waits for one of the places that snapshots have.
    pub(super) async fn snapshot(&self) -> Option<OwnedSemaphorePermit> {
        // None only if the semaphore were closed, which nobody does.
        Arc::clone(&self.snapshots).acquire_owned().await.ok()
    }

    /// Whether an account in which `pending` bytes wait may take `more`.
    ///
    /// Each may have [`limits::PENDING_BYTES_SHARE`], whatever the others have: one whose feed
    /// nobody reads must not stop the others.
    pub(super) fn has_room(&self, pending: usize, more: usize) -> bool {
        let share = pending + more <= limits::PENDING_BYTES_SHARE;
        share || self.waiting.load(Ordering::Relaxed) + more <= limits::PENDING_BYTES_PER_AGENT
    }

    /// Accounts for bytes that wait from now on, and for those that do no longer.
    pub(super) fn change(&self, added: usize, gone: usize) {
        self.waiting.fetch_add(added, Ordering::Relaxed);
        let before = self.waiting.fetch_sub(gone, Ordering::Relaxed);
        // Only where somebody may wait: everybody who does looks again.
        if gone > added && before + limits::OBJECT_BYTES > limits::PENDING_BYTES_PER_AGENT {
            self.freed.notify_waiters();
        }
    }

    /// Tells, once it is awaited, that others have fewer bytes waiting than when this was called.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }
}
