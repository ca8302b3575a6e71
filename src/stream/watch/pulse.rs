//! How long a watch may say nothing before it counts as dead.

use std::time::Duration;

use tokio::time::Instant;

/// Silence after which a watch is opened again, until two bookmarks have told how often they come.
///
/// kube-apiserver sends one a minute to each watch that asked for them.
const SILENCE: Duration = Duration::from_secs(150);

/// The same once they have: so many times the pause between them, and no less than this.
const PAUSES: f64 = 2.5;
const SHORTEST_SILENCE: Duration = Duration::from_secs(10);

/// What the bookmarks of a stream's watches have taught.
///
/// The longest pause counts: kube-apiserver sends one bookmark more shortly before a watch ends, and
/// two that waited for the reader come together.
#[derive(Debug)]
pub(super) struct Pulse {
    silence: Duration,
    /// Longest pause between two bookmarks of one watch.
    longest: Duration,
    /// When the watch under way told its last bookmark.
    bookmarked: Option<Instant>,
}

impl Pulse {
    pub(super) const fn new() -> Self {
        Self {
            silence: SILENCE,
            longest: Duration::ZERO,
            bookmarked: None,
        }
    }

    /// Silence after which a watch counts as dead.
    pub(super) const fn silence(&self) -> Duration {
        self.silence
    }

    /// Another watch begins.
    pub(super) const fn begin(&mut self) {
        self.bookmarked = None;
    }

    /// Learns from the pause between two bookmarks of one watch.
    pub(super) fn beat(&mut self) {
        let now = Instant::now();
        if let Some(before) = self.bookmarked.replace(now) {
            self.longest = self.longest.max(now - before);
            let silence = self.longest.mul_f64(PAUSES);
            self.silence = silence.clamp(SHORTEST_SILENCE, SILENCE);
        }
    }

    /// A watch told nothing for so long that it counted as dead: what was learned may be wrong.
    pub(super) const fn unlearn(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_measured_by_the_pause_between_two_bookmarks_of_one_watch() {
        let mut pulse = Pulse::new();
        assert_eq!(pulse.silence(), SILENCE);
        let after = async |pulse: &mut Pulse, seconds| {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            pulse.beat();
            pulse.silence()
        };
        assert_eq!(
            after(&mut pulse, 1).await,
            SILENCE,
            "one bookmark tells nothing"
        );
        assert_eq!(after(&mut pulse, 20).await, Duration::from_secs(50));
        assert_eq!(
            after(&mut pulse, 1).await,
            Duration::from_secs(50),
            "the last one comes early"
        );
        assert_eq!(after(&mut pulse, 3600).await, SILENCE);
        pulse.unlearn();
        assert_eq!(after(&mut pulse, 1).await, SILENCE);
        assert_eq!(after(&mut pulse, 1).await, SHORTEST_SILENCE);
        pulse.unlearn();
        pulse.begin();
        tokio::time::advance(Duration::from_secs(20)).await;
        pulse.beat();
        assert_eq!(
            pulse.silence(),
            SILENCE,
            "the pause between watches is not one"
        );
    }
}
