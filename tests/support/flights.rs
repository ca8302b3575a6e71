//! How many of a kind are under way at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what one server has under way, such as lists or calls, or several that share it.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Flights {
    /// One more, until what this gives is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Flight {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        Flight(Arc::clone(self))
    }

    /// The most that were under way at once.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }
}

/// One that is under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Flight(Arc<Flights>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}
