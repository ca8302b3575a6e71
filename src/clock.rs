//! Wall-clock time as a parameter.
//!
//! Timers use `tokio::time`, which tests can pause; what is compared with dates in certificates
//! and tokens comes from a [`Clock`].

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Tells the wall-clock time.
pub trait Clock: Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> SystemTime;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that others are given"
    )]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The machine's clock, ready to share.
pub fn system() -> SharedClock {
    Arc::new(SystemClock)
}

/// A clock that moves only when told.
#[derive(Debug)]
pub struct ManualClock(Mutex<SystemTime>);

impl ManualClock {
    /// Starts at `now`.
    pub const fn new(now: SystemTime) -> Self {
        Self(Mutex::new(now))
    }

    /// Is at `now` from here on, earlier or later than it was.
    pub fn set(&self, now: SystemTime) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Moves forward by `step`.
    pub fn advance(&self, step: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += step;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since the Unix epoch, zero for times before it.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The end of the year 9999: what is later cannot be written down, and overflows when added to.
const LATEST_SECONDS: u64 = 253_402_300_799;

/// The time that lies `seconds` after the Unix epoch; whatever a peer says, no later than the end of
/// the year 9999.
pub fn from_unix_seconds(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(LATEST_SECONDS))
}

/// RFC 3339 in UTC with whole seconds, as Kubernetes writes times.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = i64::try_from(unix_seconds(time)).unwrap_or(0);
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|at| {
            at.format(&time::format_description::well_known::Rfc3339)
                .ok()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_a_peer_is_beyond_what_can_be_written_and_added_to() {
        let latest = from_unix_seconds(u64::MAX);
        assert_eq!(rfc3339(latest), "9999-12-31T23:59:59Z");
        assert!(latest.checked_add(Duration::from_hours(24)).is_some());
    }
}
