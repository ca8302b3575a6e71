//! What the workers tell, and the uplink carries: offers, feeds, contexts of operations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::metrics::Figures;
use crate::clock::{SharedClock, unix_seconds};
use crate::ops;
use crate::stream::{Feed, Offers, StreamCounts};
use crate::telemetry::health::Latches;
use crate::wire::v1;

/// Counts of all accounts, by name.
pub type Counts = Vec<(String, StreamCounts)>;

/// Shared between the workers and the uplink.
#[derive(Debug)]
pub(super) struct Accounts {
    pub(super) offers: watch::Sender<Arc<Offers>>,
    pub(super) feeds: watch::Sender<Arc<BTreeMap<String, Arc<Feed>>>>,
    contexts: Mutex<BTreeMap<String, ops::Context>>,
    clock: SharedClock,
    latches: Latches,
    pub(super) figures: Figures,
}

/// What a worker tells of its account.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) state: v1::AccountState,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) next_retry: Option<std::time::SystemTime>,
    /// What is known of its credential; as it was if none.
    pub(super) credential: Option<v1::Credential>,
}

impl Status {
    pub(super) const fn new(state: v1::AccountState) -> Self {
        Self {
            state,
            reason: "",
            message: String::new(),
            next_retry: None,
            credential: None,
        }
    }

    pub(super) fn failed(reason: &'static str, message: impl Into<String>) -> Self {
        let state = v1::AccountState::Failed;
        Self {
            state,
            reason,
            message: message.into(),
            next_retry: None,
            credential: None,
        }
    }
}

impl Accounts {
    pub(super) fn new(clock: SharedClock, latches: Latches) -> Arc<Self> {
        Arc::new(Self {
            offers: watch::Sender::default(),
            feeds: watch::Sender::default(),
            contexts: Mutex::default(),
            clock,
            latches,
            figures: Figures::default(),
        })
    }

    /// Offers an account, or takes over what is new of it.
    pub(super) fn offer(&self, mut offer: v1::AccountOffer, status: &Status) {
        let now = unix_seconds(self.clock.now());
        self.offers.send_if_modified(|offers| {
            let known = offers.get(&offer.name);
            offer.state = status.state.into();
            status.reason.clone_into(&mut offer.reason);
            offer.message.clone_from(&status.message);
            offer.next_retry = status.next_retry.map_or(0, unix_seconds);
            if status.credential.is_some() {
                offer.credential.clone_from(&status.credential);
            }
            let same_state = known.filter(|known| known.state == offer.state);
            offer.since = same_state.map_or(now, |known| known.since);
            if known == Some(&offer) {
                return false;
            }
            log(&offer, known);
            let mut changed = Offers::clone(offers);
            changed.insert(offer.name.clone(), offer.clone());
            *offers = Arc::new(changed);
            true
        });
        let active = |offer: &v1::AccountOffer| offer.state() == v1::AccountState::Active;
        if self.offers.borrow().values().any(active) {
            self.latches.close("accounts");
        }
    }

    /// Gives an account's feed to the links.
    pub(super) fn set_feed(&self, name: &str, feed: Option<Arc<Feed>>) {
        self.feeds.send_modify(|feeds| {
            let mut changed = BTreeMap::clone(feeds);
            match feed {
                Some(feed) => drop(changed.insert(name.to_owned(), feed)),
                None => drop(changed.remove(name)),
            }
            *feeds = Arc::new(changed);
        });
    }

    /// The account is not served any more.
    pub(super) fn withdraw(&self, name: &str) {
        self.set_feed(name, None);
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        contexts.remove(name);
        drop(contexts);
        self.offers.send_modify(|offers| {
            let mut changed = Offers::clone(offers);
            changed.remove(name);
            *offers = Arc::new(changed);
        });
    }

    pub(super) fn set_context(&self, context: ops::Context) {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        contexts.insert(context.account.clone(), context);
    }

    pub(super) fn context(&self, name: &str) -> Option<ops::Context> {
        let contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        contexts.get(name).cloned()
    }

    pub(super) fn counts(&self) -> Counts {
        let feeds = Arc::clone(&self.feeds.borrow());
        feeds
            .iter()
            .map(|(name, feed)| (name.clone(), feed.counts()))
            .collect()
    }
}

/// The state's name, as people see it.
pub(super) fn state_name(offer: &v1::AccountOffer) -> &'static str {
    let name = offer.state().as_str_name();
    name.trim_start_matches("ACCOUNT_STATE_")
}

fn log(offer: &v1::AccountOffer, known: Option<&v1::AccountOffer>) {
    let state = state_name(offer);
    let same =
        known.is_some_and(|known| known.state == offer.state && known.reason == offer.reason);
    let (account, reason, detail) = (&offer.name, &offer.reason, &offer.message);
    match offer.state() {
        _ if same => tracing::debug!(account, state, reason, detail, "account"),
        v1::AccountState::Failed | v1::AccountState::Suspended => {
            tracing::warn!(account, state, reason, detail, "account");
        }
        _ if !reason.is_empty() => tracing::warn!(account, state, reason, detail, "account"),
        _ => tracing::info!(account, state, "account"),
    }
}
