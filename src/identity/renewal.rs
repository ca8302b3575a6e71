//! When to renew: arithmetic on times that are given.

use std::time::{Duration, SystemTime};

use crate::entropy::{self, Entropy};

/// First pause after a failed renewal.
pub const RETRY_BASE: Duration = Duration::from_secs(1);

/// Longest pause between attempts while more than a tenth of the lifetime is left.
pub const RETRY_CAP: Duration = Duration::from_mins(1);

/// Longest pause between attempts in the last tenth of the lifetime.
pub const RETRY_CAP_LATE: Duration = Duration::from_secs(10);

/// The span of the lifetime in which renewals start: at least 40 % is left for an outage, and the
/// renewals of a fleet that enrolled together are spread over 15 %.
const WINDOW: (f64, f64) = (0.45, 0.60);

/// The life of one certificate, with the one moment drawn for its renewal.
///
/// The draw is made once: drawing again at each check makes everybody renew at the start of the
/// window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    issued_at: SystemTime,
    not_after: SystemTime,
    renew_at: SystemTime,
}

impl Schedule {
    /// Draws the moment of renewal for a certificate issued at `issued_at` (the issuer's clock, not
    /// the backdated `not_before`) that ends at `not_after`.
    pub fn draw(issued_at: SystemTime, not_after: SystemTime, entropy: &dyn Entropy) -> Self {
        let life = not_after.duration_since(issued_at).unwrap_or_default();
        let (from, to) = WINDOW;
        let share = from + (to - from) * entropy::unit(entropy);
        Self {
            issued_at,
            not_after,
            renew_at: issued_at + life.mul_f64(share),
        }
    }

    /// When the certificate was issued, by the issuer's clock.
    pub const fn issued_at(&self) -> SystemTime {
        self.issued_at
    }

    /// When to start renewing.
    pub const fn renew_at(&self) -> SystemTime {
        self.renew_at
    }

    /// End of the certificate.
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether renewal is due at `now`.
    pub fn is_due(&self, now: SystemTime) -> bool {
        now >= self.renew_at
    }

    /// Time from `now` until renewal is due; zero if it is.
    pub fn due_in(&self, now: SystemTime) -> Duration {
        self.renew_at.duration_since(now).unwrap_or_default()
    }

    /// Longest pause between attempts at `now`.
    pub fn retry_cap(&self, now: SystemTime) -> Duration {
        let life = self
            .not_after
            .duration_since(self.issued_at)
            .unwrap_or_default();
        let left = self.not_after.duration_since(now).unwrap_or_default();
        if left > life / 10 {
            RETRY_CAP
        } else {
            RETRY_CAP_LATE
        }
    }

    /// Share of the lifetime that has passed at `now`, 0 to 1.
    pub fn elapsed(&self, now: SystemTime) -> f64 {
        let life = self
            .not_after
            .duration_since(self.issued_at)
            .unwrap_or_default();
        let past = now.duration_since(self.issued_at).unwrap_or_default();
        if life.is_zero() {
            1.0
        } else {
            past.div_duration_f64(life).min(1.0)
        }
    }
}

/// How far the hub's clock is ahead of, or behind, the local one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockOffset {
    ahead: Duration,
    behind: Duration,
}

/// Offsets above this are worth a warning.
pub const CLOCK_OFFSET_WARNING: Duration = Duration::from_mins(1);

impl ClockOffset {
    /// From the hub's time as just received, and the local one.
    pub fn measure(hub: SystemTime, local: SystemTime) -> Self {
        Self {
            ahead: hub.duration_since(local).unwrap_or_default(),
            behind: local.duration_since(hub).unwrap_or_default(),
        }
    }

    /// The hub's time when the local clock says `local`.
    pub fn hub_time(self, local: SystemTime) -> SystemTime {
        (local + self.ahead)
            .checked_sub(self.behind)
            .unwrap_or(local)
    }

    /// The absolute offset.
    pub fn size(self) -> Duration {
        self.ahead.max(self.behind)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::from_unix_seconds;
    use crate::entropy::Fixed;

    #[test]
    fn renewal_lies_between_45_and_60_percent_of_the_life() {
        let (start, end) = (from_unix_seconds(1_000_000), from_unix_seconds(1_100_000));
        let first = Schedule::draw(start, end, &Fixed(0)).renew_at();
        let last = Schedule::draw(start, end, &Fixed(255)).renew_at();
        assert_eq!(first, from_unix_seconds(1_045_000));
        assert!(last > from_unix_seconds(1_059_990) && last <= from_unix_seconds(1_060_000));
    }

    #[test]
    fn attempts_come_closer_in_the_last_tenth() {
        let schedule = Schedule::draw(from_unix_seconds(0), from_unix_seconds(1000), &Fixed(7));
        assert_eq!(schedule.retry_cap(from_unix_seconds(899)), RETRY_CAP);
        assert_eq!(schedule.retry_cap(from_unix_seconds(901)), RETRY_CAP_LATE);
        assert_eq!(schedule.retry_cap(from_unix_seconds(2000)), RETRY_CAP_LATE);
    }

    proptest! {
        #[test]
        fn due_and_the_time_until_due_agree(
            start in 0u64..4_000_000_000, life in 0u64..400_000, at in 0u64..4_000_000_000,
            draw: u8,
        ) {
            let start_at = from_unix_seconds(start);
            let schedule =
                Schedule::draw(start_at, from_unix_seconds(start + life), &Fixed(draw));
            let now = from_unix_seconds(at);
            prop_assert_eq!(schedule.is_due(now), schedule.due_in(now).is_zero());
            prop_assert!(schedule.renew_at() >= start_at);
            prop_assert!(schedule.renew_at() <= schedule.not_after());
        }

        #[test]
        fn the_hubs_time_is_known_whichever_clock_is_ahead(hub in 0u64..5_000_000, local in 0u64..5_000_000) {
            let (hub, local) = (from_unix_seconds(hub), from_unix_seconds(local));
            prop_assert_eq!(ClockOffset::measure(hub, local).hub_time(local), hub);
        }
    }
}
