//! Tasks with an owner, a name, a stop signal and a place in the drain.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Owns a set of tasks.
///
/// A clone is another handle to the same set. [`Tasks::child`] makes a set of its own that is
/// stopped with this one.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
    died: CancellationToken,
    dead: Arc<OnceLock<&'static str>>,
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A set that is stopped when this one is; its panics stay its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            stop: self.stop.child_token(),
            ..Self::default()
        }
    }

    /// The stop signal of this set.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs `body` as a task. It is expected to end soon after its stop signal.
    ///
    /// A panic stops the whole set and is told by [`Tasks::died`].
    pub fn spawn<Body, Fut>(&self, name: &'static str, body: Body)
    where
        Body: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (stop, died, dead) = (self.stop.clone(), self.died.clone(), Arc::clone(&self.dead));
        // In the task itself: one that waits for it would cost each as much again as a small one
        // has. What panicked is never polled again, so nobody sees it half done.
        let guarded = AssertUnwindSafe(body(self.stop.clone())).catch_unwind();
        self.tracker.spawn(guarded.map(move |ended| {
            if ended.is_err() {
                tracing::error!(task = name, "task panicked");
                // A second panic changes nothing: the first is the one that is told.
                dead.get_or_init(|| name);
                died.cancel();
                stop.cancel();
            }
        }));
    }

    /// Waits until a task of this set has panicked, and tells its name.
    pub async fn died(&self) -> &'static str {
        self.died.cancelled().await;
        self.dead.get().copied().unwrap_or("unknown")
    }

    /// The task that panicked, if one did.
    pub fn dead(&self) -> Option<&'static str> {
        self.dead.get().copied()
    }

    /// Number of tasks that have not ended.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Tells every task to stop, without waiting.
    pub fn cancel(&self) {
        self.stop.cancel();
    }

    /// Tells every task to stop and waits up to `grace`; true if all have ended.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait())
            .await
            .is_ok()
    }

    /// Waits up to `grace` for every task to end by itself, then tells them to stop; true if none
    /// had to be told.
    pub async fn drain_after(&self, grace: Duration) -> bool {
        self.tracker.close();
        let ended = tokio::time::timeout(grace, self.tracker.wait())
            .await
            .is_ok();
        self.stop.cancel();
        ended
    }

    /// Stops the set when dropped.
    pub fn stop_on_drop(&self) -> DropGuard {
        self.stop.clone().drop_guard()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_stops_its_set_and_is_told_by_name() {
        let tasks = Tasks::new();
        tasks.spawn("bystander", |stop| async move { stop.cancelled().await });
        tasks.spawn("broken", |_stop| async move { panic!("on purpose") });
        assert_eq!(tasks.died().await, "broken");
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_childs_panic_leaves_its_parent_running() {
        let parent = Tasks::new();
        let child = parent.child();
        child.spawn("broken", |_stop| async move { panic!("on purpose") });
        assert_eq!(child.died().await, "broken");
        assert!(!parent.stop().is_cancelled());
    }

    #[tokio::test]
    async fn a_parents_stop_reaches_its_children() {
        let parent = Tasks::new();
        let child = parent.child();
        child.spawn("waits", |stop| async move { stop.cancelled().await });
        parent.cancel();
        assert!(child.drain(Duration::from_secs(5)).await);
    }
}
