//! What a loop that accepts connections does when that fails: mostly, no file descriptors are left.

use std::io;
use std::time::Duration;

/// Pause after a failed accept: what was not accepted still waits, and would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Failures of one accepting loop, told once each time that they begin.
#[derive(Debug)]
pub struct Accepting {
    door: &'static str,
    failing: bool,
}

impl Accepting {
    /// Of the listener that is called `door` in the log.
    pub const fn at(door: &'static str) -> Self {
        Self {
            door,
            failing: false,
        }
    }

    /// What was accepted; nothing, after a pause, where that failed.
    pub async fn take<T>(&mut self, accepted: io::Result<T>) -> Option<T> {
        let door = self.door;
        match accepted {
            Ok(connection) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(door, "connections are accepted again");
                }
                Some(connection)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, door, "accept failed; tried again every 100 ms");
                }
                let pause = tokio::time::timeout(PAUSE, std::future::pending());
                pause.await.ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_failure_is_followed_by_a_pause() {
        let mut accepting = Accepting::at("test");
        let began = Instant::now();
        assert_eq!(accepting.take(Ok(1)).await, Some(1));
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..3 {
            let failed = Err::<u8, _>(io::ErrorKind::Other.into());
            assert_eq!(accepting.take(failed).await, None);
        }
        assert_eq!(began.elapsed(), 3 * PAUSE);
        assert_eq!(accepting.take(Ok(2)).await, Some(2));
        assert_eq!(began.elapsed(), 3 * PAUSE);
    }
}
