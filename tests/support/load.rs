//! Tests that load the machine and hold an answer to a time take turns: two of them at once measure
//! each other.

use tokio::sync::{Mutex, MutexGuard};

static TURN: Mutex<()> = Mutex::const_new(());

/// Waits for this test's turn, which lasts until the guard is dropped.
pub(crate) async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}
