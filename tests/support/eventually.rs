//! Waiting for a state: level-triggered and bounded.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// How long a test waits for what must happen.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Looks at `condition` until it gives a value; panics with `what` after [`LIMIT`].
pub(crate) async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    eventually_async(what, async || condition()).await
}

/// As [`eventually`], for a condition that has to ask somebody.
///
/// An answer that hangs counts against the limit as well.
pub(crate) async fn eventually_async<T, F>(what: &str, condition: F) -> T
where
    F: AsyncFnMut() -> Option<T>,
{
    within(LIMIT, what, condition).await
}

/// As [`eventually_async`], with a limit of its own.
pub(crate) async fn within<T, F>(limit: Duration, what: &str, mut condition: F) -> T
where
    F: AsyncFnMut() -> Option<T>,
{
    let deadline = Instant::now() + limit;
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let waited = timeout_at(deadline, async {
        loop {
            ticks.tick().await;
            if let Some(value) = condition().await {
                return value;
            }
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}

/// Fails the test when `future` takes longer than [`LIMIT`].
pub(crate) async fn bounded<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future)
        .await
        .unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
}

/// Lets a disturbance last; never a way to wait for something.
pub(crate) async fn idle(time: Duration) {
    let over = tokio::time::timeout(time, std::future::pending::<()>()).await;
    assert!(over.is_err(), "nothing ends what never does");
}
