//! When a credential is asked for again, and until when it may be used without its engine.
//!
//! ```text
//!             ┌── refresh ± 10 %, or 67 % of its lease ± 10 % ──┐
//! confirmed ──┴─▶ asked ──answer──▶ confirmed …                 │
//!                   ├─ engine away, busy, refuses us ─▶ 1 s … 5 min, jittered
//!                   └─ the engine has nothing usable ─▶ 60 s … 10 min, growing
//! ```
//! Whatever the reason, what was confirmed last is used until `max-stale` after that moment, and
//! never beyond the end of its lease. The pause of a long lease leaves time for several tries. What
//! an engine says is gone, or no longer ours, is given up as soon as a second answer at least
//! [`CONFIRM`] later says so too.
//!
//! Time comes in from outside: nothing here waits.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::fetch::FetchErrorKind;
use crate::entropy::{self, SharedEntropy};

/// Pause before the first repetition when the engine is away.
const AWAY: Duration = Duration::from_secs(1);

/// From here on an engine that is away is asked for one key at most this often.
const AWAY_CAP: Duration = Duration::from_mins(5);

/// Pause after the first answer that there is nothing usable.
const NOTHING: Duration = Duration::from_mins(1);

/// Longest pause after such answers.
const NOTHING_CAP: Duration = Duration::from_mins(10);

/// Time between two answers that a secret is gone before it is believed.
const CONFIRM: Duration = Duration::from_mins(2);

/// Part of a lease after which it is fetched anew.
const LEASE_PART: f64 = 0.67;

/// Shortest and longest pause of a lease: one that ends at once would be asked for without one, and one
/// of weeks may be taken back meanwhile.
const LEASE_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));

/// Time in which a source that is asked has answered or failed: two errands, the second in place of the
/// first.
const ASKING: Duration = Duration::from_secs(30);

/// What a failed attempt says about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The engine is away, busy, or does not accept us.
    Away,
    /// The secret is gone, or is not ours any more.
    Gone,
    /// The engine answered, and its answer cannot be used.
    Unusable,
}

impl Trouble {
    pub(super) const fn of(kind: &FetchErrorKind) -> Self {
        match kind {
            FetchErrorKind::Throttled { .. }
            | FetchErrorKind::Unauthenticated
            | FetchErrorKind::Unavailable { .. } => Self::Away,
            FetchErrorKind::Denied | FetchErrorKind::NotFound => Self::Gone,
            FetchErrorKind::Corrupt | FetchErrorKind::Invalid { .. } => Self::Unusable,
        }
    }
}

/// What one source allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// How often it is asked.
    refresh: Duration,
    /// Pause after the first answer that there is nothing usable.
    nothing: Duration,
    /// Longest pause after such answers.
    nothing_cap: Duration,
    /// For how long the last good answer is used without another.
    max_stale: Duration,
}

impl Terms {
    /// Terms of a secret in an engine.
    ///
    /// Who wants it refreshed more often than once a minute also waits less for what is missing.
    pub(super) fn engine(refresh: Duration, max_stale: Duration) -> Self {
        Self {
            refresh,
            nothing: NOTHING.min(refresh),
            nothing_cap: NOTHING_CAP.min(refresh.saturating_mul(10)),
            max_stale,
        }
    }

    /// Longest pause of a lease: it leaves time for several tries before what is held is too old.
    ///
    /// Each answer lends anew, so it is not asked for more often than what is not lent; nor where the
    /// first failure is meant to be the end.
    fn longest_of_a_lease(&self) -> Duration {
        if self.max_stale.is_zero() {
            return LEASE_PAUSE.1;
        }
        (self.max_stale / 2).max(self.refresh).min(LEASE_PAUSE.1)
    }

    /// Terms of what lies on this machine, where `poll` is cheap and nothing is ever far away.
    pub(super) const fn local(poll: Duration) -> Self {
        Self {
            refresh: poll,
            nothing: poll,
            nothing_cap: poll,
            max_stale: Duration::MAX,
        }
    }
}

/// The schedule of one source.
#[derive(Debug)]
pub(super) struct Schedule {
    terms: Terms,
    entropy: SharedEntropy,
    away: u32,
    nothing: u32,
    usable: Usable,
    /// From when on a failure ends what is held.
    stale_at: Option<SystemTime>,
    gone_since: Option<SystemTime>,
}

/// For how long what is held may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usable {
    /// Nothing is held.
    Not,
    /// Until then, unless it is confirmed before.
    Until(SystemTime),
    /// As long as the process runs.
    Always,
}

impl Schedule {
    pub(super) fn new(terms: Terms, entropy: &SharedEntropy) -> Self {
        Self {
            terms,
            away: 0,
            entropy: Arc::clone(entropy),
            nothing: 0,
            usable: Usable::Not,
            stale_at: None,
            gone_since: None,
        }
    }

    pub(super) const fn usable(&self) -> Usable {
        self.usable
    }

    /// The source gave what can be used, lent for `lease`; gives the pause until it is asked again.
    pub(super) fn confirmed(&mut self, now: SystemTime, lease: Option<Duration>) -> Duration {
        self.away = 0;
        (self.nothing, self.gone_since) = (0, None);
        let refresh = match lease {
            Some(lease) => lease
                .mul_f64(LEASE_PART)
                .min(self.terms.longest_of_a_lease())
                .max(LEASE_PAUSE.0),
            None => self.terms.refresh,
        };
        // Within a tenth, so that what began together spreads out.
        let pause = refresh.mul_f64(0.9 + 0.2 * entropy::unit(&*self.entropy));
        // At least until it has been asked again: the shortest `max-stale` is the first failure.
        let stale = self.terms.max_stale.max(pause + ASKING);
        self.stale_at = now.checked_add(self.terms.max_stale);
        let usable = lease.map_or(stale, |lease| lease.min(stale));
        self.usable = now
            .checked_add(usable)
            .map_or(Usable::Always, Usable::Until);
        pause
    }

    /// An attempt failed; gives the pause until the next one, at least `at_least`.
    pub(super) fn failed(
        &mut self,
        now: SystemTime,
        trouble: Trouble,
        at_least: Duration,
    ) -> Duration {
        let is_stale = self.stale_at.is_some_and(|at| at <= now);
        if is_stale && matches!(self.usable, Usable::Until(end) if end > now) {
            self.usable = Usable::Until(now);
        }
        if trouble == Trouble::Away {
            return self.while_away().max(at_least);
        }
        self.away = 0;
        if trouble == Trouble::Gone {
            let since = *self.gone_since.get_or_insert(now);
            let confirmed = now.duration_since(since).unwrap_or_default() >= CONFIRM;
            if confirmed {
                self.usable = Usable::Not;
            }
        }
        let range = self
            .terms
            .nothing
            .saturating_mul(1 << self.nothing.min(8))
            .min(self.terms.nothing_cap);
        self.nothing = self.nothing.saturating_add(1);
        let pause = range.mul_f64(0.9 + 0.1 * entropy::unit(&*self.entropy));
        pause.max(at_least)
    }

    /// Full jitter below the cap; at the cap never sooner, since the return is looked for apart.
    fn while_away(&mut self) -> Duration {
        let range = AWAY.saturating_mul(1 << self.away.min(16));
        self.away = self.away.saturating_add(1);
        let drawn = entropy::unit(&*self.entropy);
        if range < AWAY_CAP {
            range.mul_f64(0.1 + 0.9 * drawn)
        } else {
            AWAY_CAP.mul_f64(1.0 + 0.1 * drawn)
        }
    }

    /// What was held is given up.
    pub(super) const fn suspended(&mut self) {
        self.usable = Usable::Not;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Fixed;

    const MINUTE: Duration = Duration::from_mins(1);
    const START: SystemTime = SystemTime::UNIX_EPOCH;

    /// Draws near the upper end of every range.
    fn schedule(terms: Terms) -> Schedule {
        let entropy: SharedEntropy = Arc::new(Fixed(0xff));
        Schedule::new(terms, &entropy)
    }

    fn hourly() -> Schedule {
        schedule(Terms::engine(5 * MINUTE, 90 * MINUTE))
    }

    #[test]
    fn what_began_together_spreads_over_a_fifth_of_its_refresh() {
        let pauses = (0..=255).map(|byte| {
            let entropy: SharedEntropy = Arc::new(Fixed(byte));
            let mut schedule = Schedule::new(Terms::engine(5 * MINUTE, 90 * MINUTE), &entropy);
            schedule.confirmed(START, None)
        });
        let (least, most) = pauses.fold((Duration::MAX, Duration::ZERO), |(least, most), pause| {
            (least.min(pause), most.max(pause))
        });
        assert!(least >= 5 * MINUTE * 9 / 10 && most <= 5 * MINUTE * 11 / 10);
        assert!(most.checked_sub(least).unwrap() >= 5 * MINUTE * 19 / 100);
    }

    #[test]
    fn a_lease_is_renewed_at_two_thirds_and_never_outlived() {
        let mut schedule = hourly();
        let pause = schedule.confirmed(START, Some(MINUTE));
        assert!(
            pause < Duration::from_secs(45) && pause > Duration::from_secs(35),
            "{pause:?}"
        );
        assert_eq!(schedule.usable(), Usable::Until(START + MINUTE));
    }

    #[test]
    fn a_lease_is_not_lent_more_often_than_it_has_to_be_and_not_without_a_pause() {
        let mut schedule = schedule(Terms::engine(5 * MINUTE, Duration::from_hours(48)));
        let pause = schedule.confirmed(START, Some(Duration::from_hours(10)));
        assert!(pause > Duration::from_hours(6), "{pause:?}");
        let pause = schedule.confirmed(START, Some(Duration::from_hours(768)));
        assert!(pause <= Duration::from_hours(27), "{pause:?}");
        let pause = schedule.confirmed(START, Some(Duration::ZERO));
        assert!(pause >= Duration::from_millis(900), "{pause:?}");
    }

    #[test]
    fn the_first_failure_of_a_long_lease_is_not_its_end() {
        for (max_stale, lease) in [(1, 10), (2, 768), (24, 48), (24, 768)] {
            let max_stale = Duration::from_hours(max_stale);
            let mut schedule = schedule(Terms::engine(5 * MINUTE, max_stale));
            let mut now = START + schedule.confirmed(START, Some(Duration::from_hours(lease)));
            let mut tries = 0;
            while matches!(schedule.usable(), Usable::Until(end) if end > now) {
                now += schedule.failed(now, Trouble::Away, Duration::ZERO);
                tries += 1;
            }
            assert!(tries > 10, "{tries} tries of {max_stale:?}");
            assert_eq!(schedule.usable(), Usable::Until(START + max_stale));
        }
    }

    #[test]
    fn a_lease_is_lent_anew_no_more_often_than_anything_is_asked_for() {
        for (max_stale, least) in [(MINUTE, 5 * MINUTE), (Duration::ZERO, 360 * MINUTE)] {
            let mut schedule = schedule(Terms::engine(5 * MINUTE, max_stale));
            let pause = schedule.confirmed(START, Some(Duration::from_hours(10)));
            assert!(pause >= least, "{pause:?} with {max_stale:?}");
        }
    }

    #[test]
    fn without_staleness_the_first_failure_is_the_end_and_not_the_pause_before_it() {
        let mut schedule = schedule(Terms::engine(5 * MINUTE, Duration::ZERO));
        let pause = schedule.confirmed(START, None);
        assert_eq!(schedule.usable(), Usable::Until(START + pause + ASKING));
        let asked = START + pause + Duration::from_millis(5);
        schedule.failed(asked, Trouble::Away, Duration::ZERO);
        assert_eq!(schedule.usable(), Usable::Until(asked));
    }

    #[test]
    fn an_engine_that_is_away_is_asked_ever_more_seldom() {
        let mut schedule = hourly();
        schedule.confirmed(START, None);
        let pauses: Vec<_> = (0..12)
            .map(|_| schedule.failed(START, Trouble::Away, Duration::ZERO))
            .collect();
        assert!(pauses[0] <= AWAY && pauses.is_sorted());
        assert!(pauses[11] >= AWAY_CAP && pauses[11] <= AWAY_CAP * 11 / 10);
        let asked_to_wait = schedule.failed(START, Trouble::Away, Duration::from_hours(1));
        assert_eq!(asked_to_wait, Duration::from_hours(1));
        assert_eq!(schedule.usable(), Usable::Until(START + 90 * MINUTE));
    }

    #[test]
    fn what_is_not_there_is_asked_for_between_one_and_ten_minutes() {
        let mut schedule = hourly();
        let pauses: Vec<_> = (0..6)
            .map(|_| schedule.failed(START, Trouble::Gone, Duration::ZERO))
            .collect();
        assert!(pauses[0] > MINUTE * 9 / 10 && pauses[0] <= MINUTE);
        assert!(pauses[5] <= NOTHING_CAP && pauses[5] >= NOTHING_CAP * 9 / 10);
    }

    #[test]
    fn a_secret_is_gone_when_two_answers_two_minutes_apart_say_so() {
        let mut schedule = hourly();
        schedule.confirmed(START, None);
        for (after, usable) in [(0, true), (1, true), (2, false)] {
            schedule.failed(START + after * MINUTE, Trouble::Gone, Duration::ZERO);
            assert_eq!(
                schedule.usable() != Usable::Not,
                usable,
                "after {after} minutes"
            );
        }
        // One answer in between that it is there, and the two begin anew.
        schedule.confirmed(START, None);
        schedule.failed(START, Trouble::Gone, Duration::ZERO);
        schedule.confirmed(START + MINUTE, None);
        schedule.failed(START + 3 * MINUTE, Trouble::Gone, Duration::ZERO);
        assert_ne!(schedule.usable(), Usable::Not);
    }

    #[test]
    fn what_cannot_be_used_takes_nothing_away() {
        let mut schedule = hourly();
        schedule.confirmed(START, None);
        for minute in 0..60 {
            schedule.failed(START + minute * MINUTE, Trouble::Unusable, Duration::ZERO);
        }
        assert_eq!(schedule.usable(), Usable::Until(START + 90 * MINUTE));
    }

    #[test]
    fn what_lies_on_this_machine_is_read_again_soon_and_never_too_old() {
        let mut schedule = schedule(Terms::local(Duration::from_secs(10)));
        schedule.confirmed(START, None);
        assert!(
            schedule.failed(START, Trouble::Unusable, Duration::ZERO) <= Duration::from_secs(10)
        );
        assert_eq!(schedule.usable(), Usable::Always);
    }
}
