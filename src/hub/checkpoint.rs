//! Writes what has changed in the views, and the cursors that cover it, to the store.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Core;
use super::account::Account;
use super::store::{StoreError, StreamCheckpoint};
use crate::clock::unix_seconds;
use crate::fault::Chain;
use crate::secret;
use crate::view::Changes;

/// How often changes are looked for.
const EVERY: Duration = Duration::from_millis(250);

/// Changes are stored at the latest after this many rounds: one second.
const ROUNDS: u32 = 4;

/// Changes of this many bytes are stored at once, and in one transaction, that of a last account
/// besides.
const BYTES: usize = 8 * 1024 * 1024;

/// After this many bytes of changes, the next pause between changes gives free memory back.
const BURST: usize = 32 * 1024 * 1024;

/// Bytes that a new session counts for: what its handshake, its admission and its first batches
/// need for a moment. A burst is as many as 256 of them.
const BURST_PER_SESSION: usize = 128 * 1024;

/// Fewer bytes of changes at once are such a pause.
const QUIET: usize = 256 * 1024;

/// After this many such pauses in a row, half a minute, what a burst set off has happened as well:
/// stores, first heartbeats, answers to them.
const SETTLED: u32 = 120;

/// Tells when free memory is worth giving back.
#[derive(Debug, Default)]
struct Burst {
    bytes: usize,
    /// Pauses until it has settled; none if there was no burst.
    settling: u32,
}

impl Burst {
    fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Whether a burst has ended with this round, or has settled: what a first sync inflated,
    /// compressed and wrote is half as much again as what stays.
    const fn is_over(&mut self, quiet: bool) -> bool {
        if quiet && self.bytes >= BURST {
            (self.bytes, self.settling) = (0, SETTLED);
            return true;
        }
        if self.settling == 0 {
            return false;
        }
        self.settling = if quiet { self.settling - 1 } else { SETTLED };
        self.settling == 0
    }
}

impl Core {
    /// Stores changes until told to stop, and once more then.
    pub(super) async fn checkpoints(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut round, mut failing) = (0, false);
        let (mut burst, mut sessions) = (Burst::default(), 0);
        loop {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                _ = tick.tick() => false,
            };
            round += 1;
            let bytes: usize = self
                .accounts
                .all()
                .iter()
                .map(|account| account.changed_bytes())
                .sum();
            if stopped || round >= ROUNDS || bytes >= BYTES {
                round = 0;
                burst.add(bytes);
                let stored = self.checkpoint().await;
                if stored.is_ok() {
                    let now = unix_seconds(self.clock.now());
                    self.figures.checkpointed.store(now, Ordering::Relaxed);
                }
                report(stored, &mut failing);
            }
            let here = self.sessions.count();
            let came = here.saturating_sub(mem::replace(&mut sessions, here));
            burst.add(came.saturating_mul(BURST_PER_SESSION));
            if burst.is_over(bytes < QUIET && came == 0) {
                let freed = secret::return_free_pages();
                tracing::debug!(freed, "a burst is over; free memory was given back");
            }
            if stopped {
                return;
            }
        }
    }

    /// Stores what has changed up to now.
    ///
    /// Each stream is stored with its cursor in one transaction, and a transaction holds whole
    /// accounts: after a first sync, all of them at once would be as much again as the views hold.
    ///
    /// # Errors
    /// What is not stored is taken along by the next call.
    pub(super) async fn checkpoint(&self) -> Result<(), StoreError> {
        // One after the other: what is older may not be written later.
        let _turn = self.checkpointing.lock().await;
        let mut streams = Vec::new();
        let mut taken = Vec::new();
        let mut bytes = 0;
        for account in self.accounts.all() {
            let (checkpoints, changes) = account.changes();
            bytes += checkpoints
                .iter()
                .map(StreamCheckpoint::bytes)
                .sum::<usize>();
            streams.extend(checkpoints);
            taken.push((account, changes));
            if bytes >= BYTES {
                bytes = 0;
                self.store_changes(mem::take(&mut streams), mem::take(&mut taken))
                    .await?;
            }
        }
        self.store_changes(streams, taken).await
    }

    /// Stores what was taken from these accounts in one transaction, or gives it back to them.
    async fn store_changes(
        &self,
        streams: Vec<StreamCheckpoint>,
        taken: Vec<(Arc<Account>, Vec<Changes>)>,
    ) -> Result<(), StoreError> {
        if streams.is_empty() {
            return Ok(());
        }
        let store = Arc::clone(&self.store);
        let writing = tokio::task::spawn_blocking(move || store.checkpoint(&streams));
        let written = writing.await.unwrap_or(Err(StoreError::Panicked));
        if written.is_err() {
            for (account, changes) in taken {
                account.unstore(changes);
            }
        }
        written
    }
}

/// Says once that the store cannot be written, and once that it can again.
fn report(outcome: Result<(), StoreError>, failing: &mut bool) {
    match outcome {
        Ok(()) if *failing => {
            tracing::info!("the store can be written again");
            *failing = false;
        }
        Err(error) if !*failing => {
            tracing::error!(error = %Chain(&error), "cannot write the store; accounts are served from memory and stored when it can be");
            *failing = true;
        }
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_after_a_burst_and_once_more_when_it_has_settled() {
        let mut burst = Burst::default();
        burst.add(BURST);
        assert!(!burst.is_over(false));
        assert!(burst.is_over(true));
        let rounds = |burst: &mut Burst| (0..3 * SETTLED).filter(|_| burst.is_over(true)).count();
        assert!(!burst.is_over(false));
        assert_eq!(rounds(&mut burst), 1);
        burst.add(BURST - 1);
        assert_eq!(rounds(&mut burst), 0);
    }
}
