//! Watches the cluster and the facade at the same time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::endpoint::ReadError;
use super::ledger::{Change, Ledger, Side};
use super::reader::{Event, Listing, Reader};
use super::report::{EventFigures, Lag};
use super::state::Collection;
use crate::entropy::SharedEntropy;
use crate::fault::Chain;
use crate::resource::ResourceVersion;
use crate::retry::{Backoff, pause_unless};
use crate::tasks::Tasks;

/// Silence on both sides after which nothing is under way any more.
pub const QUIET: Duration = Duration::from_secs(1);

/// Two watches per collection, and what they have seen.
#[derive(Clone, Debug)]
pub struct Observer {
    ledger: Arc<Mutex<Ledger>>,
    started: Instant,
}

/// One watch that is taken up again until stopped.
struct Follow {
    reader: Reader,
    side: Side,
    number: usize,
    collection: Collection,
    ledger: Arc<Mutex<Ledger>>,
    entropy: SharedEntropy,
}

impl Observer {
    /// Lists every collection on both sides, then watches them from there.
    ///
    /// When this returns, every later change is seen.
    pub async fn start(
        cluster: &Reader,
        facade: &Reader,
        collections: &[Collection],
        entropy: &SharedEntropy,
        tasks: &Tasks,
    ) -> Result<Self, ReadError> {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        for (number, collection) in collections.iter().enumerate() {
            let follow = |side, reader: &Reader| Follow {
                reader: reader.clone(),
                side,
                number,
                collection: collection.clone(),
                ledger: Arc::clone(&ledger),
                entropy: Arc::clone(entropy),
            };
            let (shown, real) = (follow(Side::Facade, facade), follow(Side::Cluster, cluster));
            // The facade first: a life between the two lists is then seen where it does not
            // matter, and not taken for a lost one. Watches begin when both lists are noted.
            let (shown_from, real_from) = (shown.list().await?, real.list().await?);
            tasks.spawn("audit-watch", |stop| shown.run(shown_from, stop));
            tasks.spawn("audit-watch", |stop| real.run(real_from, stop));
        }
        Ok(Self {
            ledger,
            started: Instant::now(),
        })
    }

    /// Waits until both sides have been silent for [`QUIET`]; false if stopped before.
    ///
    /// The workload has to be held first, or this never ends.
    pub async fn quiet(&self, stop: &CancellationToken) -> bool {
        loop {
            let last = locked(&self.ledger).last_event().unwrap_or(self.started);
            let missing = QUIET.saturating_sub(last.elapsed());
            if missing.is_zero() {
                return true;
            }
            if !pause_unless(stop, missing).await {
                return false;
            }
        }
    }

    /// See [`Ledger::figures`].
    pub fn figures(&self, coalesced: u64, relists: u64) -> EventFigures {
        locked(&self.ledger).figures(coalesced, relists)
    }

    /// See [`Ledger::lag`].
    pub fn lag(&self) -> Lag {
        locked(&self.ledger).lag()
    }

    /// See [`Ledger::overflowed`].
    pub fn overflowed(&self) -> bool {
        locked(&self.ledger).overflowed()
    }
}

fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why one watch ended.
enum End {
    /// It timed out or broke: to be taken up at this version.
    Resume(String),
    /// The version is no longer remembered: to be listed again.
    Relist,
}

impl Follow {
    async fn list(&self) -> Result<String, ReadError> {
        let Listing { version, items } = self
            .reader
            .list(&self.collection.gvr, &self.collection.scope)
            .await?;
        let now: Vec<_> = items
            .iter()
            .map(|item| (uid(item), version_of(item)))
            .collect();
        let from = ResourceVersion::parse(&version).unwrap_or_default();
        locked(&self.ledger).baseline(self.side, self.number, from, &now);
        Ok(version)
    }

    async fn run(self, version: String, stop: CancellationToken) {
        // A stop ends the watch wherever it is: nothing is half done.
        let _stopped = stop.run_until_cancelled(self.follow(version, &stop)).await;
    }

    async fn follow(&self, mut version: String, stop: &CancellationToken) {
        let base = Duration::from_millis(50);
        let entropy = Arc::clone(&self.entropy);
        let mut backoff = Backoff::new(base, Duration::from_secs(2), entropy);
        loop {
            let before = version.clone();
            version = match self.watch(version).await {
                End::Resume(version) => version,
                End::Relist => match self.list().await {
                    Ok(version) => version,
                    Err(error) => {
                        tracing::debug!(side = ?self.side, error = %Chain(&error), "audit list failed");
                        before.clone()
                    }
                },
            };
            if version != before {
                backoff.reset();
            }
            if !backoff.wait(stop).await {
                return;
            }
        }
    }

    async fn watch(&self, mut version: String) -> End {
        let collection = &self.collection;
        let opened = self
            .reader
            .watch(&collection.gvr, &collection.scope, &version)
            .await;
        let mut lines = match opened {
            Ok(lines) => lines,
            Err(error) if error.is_gone() => return End::Relist,
            Err(error) => {
                tracing::debug!(side = ?self.side, error = %Chain(&error), "audit watch failed");
                return End::Resume(version);
            }
        };
        while let Ok(Some(Event { what, object })) = lines.next().await {
            let alive = match what.as_str() {
                "ADDED" | "MODIFIED" => Some(true),
                "DELETED" => Some(false),
                "BOOKMARK" => None,
                _ if object.get("code").and_then(Value::as_u64) == Some(410) => {
                    return End::Relist;
                }
                _ => return End::Resume(version),
            };
            if let Some(alive) = alive {
                let change = if alive {
                    Change::Alive(version_of(&object))
                } else {
                    Change::Gone(version_of(&object))
                };
                let (uid, now) = (uid(&object), Instant::now());
                locked(&self.ledger).event(self.side, self.number, &uid, change, now);
            }
            text(&object, "/metadata/resourceVersion").clone_into(&mut version);
        }
        End::Resume(version)
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn uid(object: &Value) -> String {
    text(object, "/metadata/uid").to_owned()
}

fn version_of(object: &Value) -> ResourceVersion {
    ResourceVersion::parse(text(object, "/metadata/resourceVersion")).unwrap_or_default()
}
