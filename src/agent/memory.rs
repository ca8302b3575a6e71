//! Gives memory back to the system after a burst.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::secret;
use crate::stream::Quota;

/// How often it is looked whether a burst is over.
const EVERY: Duration = Duration::from_secs(20);

/// Looks after the memory of an agent until told to stop.
///
/// The first sync of 100 accounts needs half as much again as what stays, and a slow hub makes that
/// double: a container is not to be charged for it for ever.
pub(super) async fn look_after(quota: Arc<Quota>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if quota.burst_is_over() {
            let freed = secret::return_free_pages();
            tracing::debug!(freed, "a burst is over; free memory was given back");
        }
    }
}
