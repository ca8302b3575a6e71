//! The credentials that somebody follows, one keeper for each source.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use super::keeper::{Keeper, Published};
use super::{Credential, Engines, Reason, Source};
use crate::clock::SharedClock;
use crate::entropy::{self, SharedEntropy};
use crate::tasks::Tasks;

/// The credentials that somebody follows.
///
/// Accounts with the same source share one: however many ask at once, the engine is asked once.
/// What nobody follows any more is wiped, and its engine not asked again.
pub struct Store {
    engines: Arc<ArcSwap<Engines>>,
    clock: SharedClock,
    entropy: SharedEntropy,
    digest_key: hmac::Key,
    tasks: Tasks,
    entries: Mutex<BTreeMap<Source, Weak<Entry>>>,
}

/// A source that is kept fresh while this lives.
#[derive(Clone, Debug)]
pub struct Followed {
    entry: Arc<Entry>,
}

#[derive(Debug)]
struct Entry {
    published: watch::Receiver<Published>,
    _stop: DropGuard,
}

impl Store {
    /// A store over `engines`, whose keepers belong to `tasks`.
    pub fn new(
        engines: Arc<Engines>,
        clock: SharedClock,
        entropy: SharedEntropy,
        tasks: Tasks,
    ) -> Self {
        let digest_key = hmac::Key::new(hmac::HMAC_SHA256, &entropy::bytes::<32>(&*entropy));
        Self {
            engines: Arc::new(ArcSwap::new(engines)),
            clock,
            entropy,
            digest_key,
            tasks,
            entries: Mutex::default(),
        }
    }

    /// Asks these engines from now on. Who follows a source whose connection is another one now
    /// follows it anew.
    pub fn ask(&self, engines: Arc<Engines>) {
        self.engines.store(engines);
    }

    /// Follows `source`; its keeper starts with the first who does.
    pub fn follow(&self, source: &Source) -> Followed {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let known = entries.get(source).and_then(Weak::upgrade);
        if let Some(entry) = known.filter(|entry| entry.is_alive()) {
            return Followed { entry };
        }
        entries.retain(|_, entry| entry.strong_count() > 0);
        let entry = Arc::new(self.start(source.clone()));
        entries.insert(source.clone(), Arc::downgrade(&entry));
        Followed { entry }
    }

    /// The credential of `source` at this moment, waiting for the first answer only.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn get(&self, source: &Source) -> Result<Arc<Credential>, (Reason, String)> {
        let followed = self.follow(source);
        let mut published = followed.published();
        let answered = |now: &Published| now.credential.is_some() || now.reason.is_some();
        let Ok(now) = published.wait_for(answered).await else {
            let stopping = "the agent is stopping".to_owned();
            return Err((Reason::EngineUnavailable, stopping));
        };
        match (&now.credential, now.reason) {
            (Some(credential), _) => Ok(Arc::clone(credential)),
            (None, reason) => Err((
                reason.unwrap_or(Reason::EngineUnavailable),
                now.message.clone(),
            )),
        }
    }

    fn start(&self, source: Source) -> Entry {
        let (sender, published) = watch::channel(Published::default());
        let keeper = Keeper {
            source,
            engines: Arc::clone(&self.engines),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            digest_key: self.digest_key.clone(),
            published: sender,
        };
        // A set of its own: a keeper that panics takes no other along.
        let own = self.tasks.child();
        own.spawn("credential", move |stop| keeper.run(stop));
        Entry {
            published,
            _stop: own.stop_on_drop(),
        }
    }
}

impl Entry {
    /// Whether its keeper still runs.
    fn is_alive(&self) -> bool {
        self.published.has_changed().is_ok()
    }
}

impl Followed {
    /// What is known of it now, and from now on.
    pub fn published(&self) -> watch::Receiver<Published> {
        self.entry.published.clone()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("engines", &self.engines.load())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
