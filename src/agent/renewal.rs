//! When the agent asks for its next certificate: on schedule, when told to, or after a failure.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::clock::Clock;
use crate::entropy::{self, SharedEntropy};
use crate::identity::renewal::{RETRY_BASE, Schedule};

/// How often the wall clock is looked at.
const RECHECK: Duration = Duration::from_secs(30);

/// When the certificate is renewed next.
pub(super) struct Renewal {
    /// Earliest next attempt after a failure, or now when told to.
    at: Option<Instant>,
    by_joining: bool,
    failures: u32,
    entropy: SharedEntropy,
}

impl Renewal {
    pub(super) fn new(entropy: &SharedEntropy) -> Self {
        Self {
            at: None,
            by_joining: false,
            failures: 0,
            entropy: Arc::clone(entropy),
        }
    }

    /// Told to renew at once.
    pub(super) fn now(&mut self) {
        self.at = Some(Instant::now());
    }

    /// Whether an attempt is due at a time of its own, whatever the schedule says.
    pub(super) const fn is_asked(&self) -> bool {
        self.at.is_some()
    }

    /// Whether the next certificate is asked for with evidence instead of with the present one.
    pub(super) const fn is_by_joining(&self) -> bool {
        self.by_joining
    }

    /// Told to join again at once.
    pub(super) fn join_now(&mut self) {
        self.by_joining = true;
        self.now();
    }

    /// There is a new certificate.
    pub(super) fn done(&mut self) {
        *self = Self::new(&self.entropy);
    }

    /// When to look next.
    pub(super) fn due(&self, schedule: &Schedule, clock: &dyn Clock) -> Instant {
        // Looked at again every 30 s, so that a stepped clock or a suspended machine is noticed.
        let scheduled = schedule.due_in(clock.now());
        let scheduled = Instant::now() + scheduled.min(RECHECK);
        self.at.unwrap_or(scheduled)
    }

    /// Notes a failed attempt at `now`; the pause before the next one.
    pub(super) fn failed(&mut self, schedule: &Schedule, now: SystemTime) -> Duration {
        let cap = schedule.retry_cap(now);
        let base = RETRY_BASE
            .saturating_mul(1 << self.failures.min(10))
            .min(cap);
        self.failures += 1;
        let pause = base.mul_f64(0.8 + 0.4 * entropy::unit(&*self.entropy));
        self.at = Some(Instant::now() + pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, from_unix_seconds};
    use crate::entropy::Fixed;
    use crate::identity::renewal::{RETRY_CAP, RETRY_CAP_LATE};

    /// A certificate of 1,000 s that is due at 450 s, and the renewal of its agent.
    fn certified(draw: u8) -> (Schedule, Renewal) {
        let (from, until) = (from_unix_seconds(0), from_unix_seconds(1000));
        let entropy: SharedEntropy = Arc::new(Fixed(draw));
        let schedule = Schedule::draw(from, until, &Fixed(0));
        (schedule, Renewal::new(&entropy))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stepped_clock_is_noticed_within_half_a_minute() {
        let (schedule, renewal) = certified(0);
        let clock = ManualClock::new(from_unix_seconds(0));
        assert_eq!(renewal.due(&schedule, &clock), Instant::now() + RECHECK);
        clock.advance(Duration::from_secs(440));
        let near = Instant::now() + Duration::from_secs(10);
        assert_eq!(renewal.due(&schedule, &clock), near);
        clock.advance(Duration::from_hours(1));
        assert_eq!(renewal.due(&schedule, &clock), Instant::now());
        assert!(!renewal.is_asked());
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_to_renew_does_not_wait_for_the_schedule() {
        let (schedule, mut renewal) = certified(0);
        let clock = ManualClock::new(from_unix_seconds(0));
        renewal.now();
        assert!(renewal.is_asked() && !renewal.is_by_joining());
        assert_eq!(renewal.due(&schedule, &clock), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_to_join_holds_until_there_is_a_certificate() {
        let (schedule, mut renewal) = certified(0);
        renewal.join_now();
        let _pause = renewal.failed(&schedule, from_unix_seconds(100));
        assert!(renewal.is_asked() && renewal.is_by_joining());
        renewal.done();
        assert!(!renewal.is_asked() && !renewal.is_by_joining());
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_minute_and_start_over_with_a_certificate() {
        let (schedule, mut renewal) = certified(0);
        let at = from_unix_seconds(500);
        let pauses: Vec<u128> = (0..8)
            .map(|_| renewal.failed(&schedule, at).as_millis())
            .collect();
        // The lowest draw takes a fifth off.
        assert_eq!(
            pauses,
            [800, 1600, 3200, 6400, 12_800, 25_600, 48_000, 48_000]
        );
        let clock = ManualClock::new(at);
        let next = Instant::now() + RETRY_CAP.mul_f64(0.8);
        assert_eq!(renewal.due(&schedule, &clock), next);
        renewal.done();
        assert_eq!(renewal.failed(&schedule, at).as_millis(), 800);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_tenth_of_a_life_is_used_every_ten_seconds() {
        let (schedule, mut renewal) = certified(255);
        for _ in 0..100 {
            let pause = renewal.failed(&schedule, from_unix_seconds(950));
            assert!(pause <= RETRY_CAP_LATE.mul_f64(1.2));
        }
    }
}
