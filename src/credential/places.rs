//! How much a connection asks of its engine: at once, and in a second.

use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Errands of one connection under way at once. With four engines, 16.
const IN_FLIGHT: usize = 4;

/// Least time between the beginnings of two errands: 100 a second.
const PACE: Duration = Duration::from_millis(10);

/// The places of one connection, given in the order in which they were asked for.
#[derive(Debug)]
pub struct Places {
    in_flight: Semaphore,
    /// When the next errand may begin.
    next: Mutex<Instant>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    /// None only of a semaphore that is closed, which this one never is.
    _permit: Option<SemaphorePermit<'a>>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            in_flight: Semaphore::new(IN_FLIGHT),
            next: Mutex::new(Instant::now()),
        }
    }
}

impl Places {
    /// Waits for a place, and then until an errand may begin.
    pub async fn take(&self) -> Place<'_> {
        let place = Place {
            _permit: self.in_flight.acquire().await.ok(),
        };
        let mut next = self.next.lock().await;
        let turn = Instant::now().max(*next);
        *next = turn + PACE;
        drop(next);
        tokio::time::sleep_until(turn).await;
        place
    }
}
