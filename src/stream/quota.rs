//! What all accounts of one agent share: snapshots under way, and bytes that wait to be sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// Bytes that wait at once and count as a burst: more than changes one by one ever have waiting.
const BURST_BYTES: usize = 1024 * 1024;

/// Bounds what the accounts of one agent hold together; each has its own bounds besides.
#[derive(Debug)]
pub struct Quota {
    snapshots: Arc<Semaphore>,
    waiting: AtomicUsize,
    freed: Notify,
    /// Since it was last told that a burst is over, there was another.
    burst: AtomicBool,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            snapshots: Arc::new(Semaphore::new(limits::SNAPSHOTS_PER_AGENT)),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            burst: AtomicBool::new(false),
        }
    }
}

impl Quota {
    /// Waits for one of the places that snapshots have.
    pub(super) async fn snapshot(&self) -> Option<OwnedSemaphorePermit> {
        // None only if the semaphore were closed, which nobody does.
        let place = Arc::clone(&self.snapshots).acquire_owned().await.ok();
        self.burst.store(true, Ordering::Relaxed);
        place
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
        let waiting = self.waiting.fetch_add(added, Ordering::Relaxed) + added;
        if waiting > BURST_BYTES {
            self.burst.store(true, Ordering::Relaxed);
        }
        let before = self.waiting.fetch_sub(gone, Ordering::Relaxed);
        // Only where somebody may wait: everybody who does looks again.
        if gone > added && before + limits::OBJECT_BYTES > limits::PENDING_BYTES_PER_AGENT {
            self.freed.notify_waiters();
        }
    }

    /// Tells once of every burst, snapshots or many changes at once, that it is over.
    pub fn burst_is_over(&self) -> bool {
        let over = self.snapshots.available_permits() == limits::SNAPSHOTS_PER_AGENT
            && self.waiting.load(Ordering::Relaxed) <= BURST_BYTES;
        over && self.burst.swap(false, Ordering::Relaxed)
    }

    /// Tells, once it is awaited, that others have fewer bytes waiting than when this was called.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_is_told_to_be_over_once_and_not_while_it_lasts() {
        let quota = Quota::default();
        assert!(!quota.burst_is_over(), "there was none");
        let place = quota.snapshot().await;
        assert!(!quota.burst_is_over(), "a snapshot is under way");
        drop(place);
        assert_eq!(
            [quota.burst_is_over(), quota.burst_is_over()],
            [true, false]
        );
        quota.change(BURST_BYTES + 1, 0);
        assert!(!quota.burst_is_over(), "much waits");
        quota.change(0, BURST_BYTES);
        assert!(quota.burst_is_over());
        quota.change(100, 101);
        assert!(!quota.burst_is_over(), "a change is no burst");
    }
}
