//! When a stream that cannot be read is tried again.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::entropy::{self, SharedEntropy};
use crate::retry::{Backoff, pause};

/// First and longest pause before a stream is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How far apart the streams of an account come back once one of them is read again.
const RETURN: Duration = Duration::from_secs(1);

/// The pauses between a stream's attempts: they grow, until the account's API server is seen to
/// answer another stream.
///
/// That cuts one pause short, but no two in a row: an API server that answers and breaks off, again
/// and again, is asked twice as often for it, and no more.
#[derive(Debug)]
pub(super) struct Again {
    backoff: Backoff,
    entropy: SharedEntropy,
    /// Streams of the account that were interrupted and are read again: how often so far.
    returns: watch::Receiver<u64>,
    /// Whether the next pause may be cut short.
    may_hurry: bool,
}

impl Again {
    /// Before the first attempt.
    pub(super) fn new(returns: watch::Receiver<u64>, entropy: SharedEntropy) -> Self {
        Self {
            backoff: Backoff::new(RETRY.0, RETRY.1, entropy.clone()),
            entropy,
            returns,
            may_hurry: true,
        }
    }

    /// An attempt begins: what returned before says nothing about how it ends.
    pub(super) fn begin(&mut self) {
        self.returns.mark_unchanged();
    }

    /// The stream was read.
    pub(super) const fn succeeded(&mut self) {
        self.backoff.reset();
        self.may_hurry = true;
    }

    /// Waits before the next attempt; false, and sooner, if `stop` is cancelled.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> bool {
        let whole = pause(self.backoff.next_pause());
        let waiting = async {
            tokio::select! {
                () = whole => false,
                () = another_returned(&mut self.returns, &*self.entropy), if self.may_hurry => true,
            }
        };
        let Some(hurried) = stop.run_until_cancelled(waiting).await else {
            return false;
        };
        self.may_hurry = !hurried;
        true
    }
}

/// Waits until another stream has returned, and for this one's place behind it.
async fn another_returned(returns: &mut watch::Receiver<u64>, entropy: &dyn entropy::Entropy) {
    if returns.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    pause(RETURN.mul_f64(entropy::unit(entropy))).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;
    use crate::entropy::Fixed;

    fn failed_often() -> (watch::Sender<u64>, Again) {
        let returns = watch::Sender::new(0);
        let mut again = Again::new(returns.subscribe(), Arc::new(Fixed(0xff)));
        for _ in 0..10 {
            again.backoff.next_pause();
        }
        again.begin();
        (returns, again)
    }

    /// Seconds until the next attempt.
    async fn waited(again: &mut Again) -> u64 {
        let since = Instant::now();
        assert!(again.wait(&CancellationToken::new()).await);
        (since.elapsed() + Duration::from_millis(500)).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_long_until_another_returns() {
        let (returns, mut again) = failed_often();
        assert_eq!(waited(&mut again).await, 10);
        let (waited, ()) = tokio::join!(waited(&mut again), async {
            pause(Duration::from_secs(3)).await;
            returns.send_modify(|count| *count += 1);
        });
        assert_eq!(waited, 4, "three, and one for its place behind the other");
    }

    #[tokio::test(start_paused = true)]
    async fn a_return_during_the_attempt_counts_and_one_before_it_does_not() {
        let (returns, mut again) = failed_often();
        returns.send_modify(|count| *count += 1);
        assert_eq!(waited(&mut again).await, 1);
        again.succeeded();
        let (returns, mut again) = failed_often();
        returns.send_modify(|count| *count += 1);
        again.begin();
        assert_eq!(waited(&mut again).await, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn no_two_pauses_in_a_row_are_cut_short_unless_the_stream_was_read_between_them() {
        let (returns, mut again) = failed_often();
        let hurried = async |again: &mut Again| {
            returns.send_modify(|count| *count += 1);
            waited(again).await
        };
        assert_eq!(hurried(&mut again).await, 1);
        again.begin();
        assert_eq!(hurried(&mut again).await, 10);
        again.begin();
        assert_eq!(hurried(&mut again).await, 1);
        again.succeeded();
        for _ in 0..10 {
            again.backoff.next_pause();
        }
        again.begin();
        assert_eq!(hurried(&mut again).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_once_everything_stops() {
        let (_returns, mut again) = failed_often();
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(!again.wait(&stop).await);
    }
}
