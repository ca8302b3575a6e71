//! When to try again.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::entropy::{self, SharedEntropy};

/// What a failure says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Again after a growing pause.
    Backoff,
    /// Not until something else has changed.
    Never,
}

/// Exponential back-off with full jitter: the `n`-th pause is uniform in `(0, min(cap, base·2ⁿ)]`.
///
/// Never shorter than a tenth of its range, so that a failing peer is not hammered.
#[derive(Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
    entropy: SharedEntropy,
}

impl Backoff {
    /// Pauses that start around `base` and never exceed `cap`.
    pub const fn new(base: Duration, cap: Duration, entropy: SharedEntropy) -> Self {
        Self {
            base,
            cap,
            failures: 0,
            entropy,
        }
    }

    /// Forgets earlier failures.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        let range = self
            .base
            .saturating_mul(1 << self.failures.min(16))
            .min(self.cap);
        self.failures = self.failures.saturating_add(1);
        range.mul_f64(0.1 + 0.9 * entropy::unit(&*self.entropy))
    }

    /// Waits for the next pause, or less if `stop` is cancelled; true if the pause was completed.
    pub async fn wait(&mut self, stop: &CancellationToken) -> bool {
        let pause = self.next_pause();
        pause_unless(stop, pause).await
    }
}

/// Waits for `time`, for ever where that is beyond all time. For a task that is stopped from
/// outside, by dropping it.
#[expect(
    clippy::disallowed_methods,
    reason = "the one pause that others are made of"
)]
pub async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Waits for `time`; false, and sooner, if `stop` is cancelled.
pub async fn pause_unless(stop: &CancellationToken, time: Duration) -> bool {
    stop.run_until_cancelled(pause(time)).await.is_some()
}
