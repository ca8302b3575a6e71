//! What a hub tells about its readiness.

use crate::telemetry::health::Latches;

/// A hub is ready once it runs: everything is bound and read before that.
pub(super) fn latches() -> Latches {
    Latches::open(&[])
}
