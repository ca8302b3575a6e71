//! What the links of one agent instance share: its accounts, and what the hub makes of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::feed::Feed;
use super::operation::Operations;
use crate::clock::SharedClock;
use crate::wire::{self, v1};

/// The accounts of this instance, as offered to the hub.
pub type Offers = BTreeMap<String, v1::AccountOffer>;

/// What the hub makes of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the account is fed.
    pub admission: v1::Admission,
    /// One line for people.
    pub message: String,
}

/// What the hub makes of each account.
pub(super) type Decisions = Arc<BTreeMap<String, Decision>>;

/// The feed of each account that has a cluster.
pub(super) type Feeds = Arc<BTreeMap<String, Arc<Feed>>>;

/// What does not change while the process lives.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// This process: 16 random bytes.
    pub instance: [u8; 16],
    /// Name of the pod or host, for people.
    pub host: String,
}

/// What the links of one agent instance share.
#[derive(Debug)]
pub struct Shared {
    settings: SessionSettings,
    generation: AtomicU64,
    session: Mutex<Vec<u8>>,
    pub(super) offers: watch::Receiver<Arc<Offers>>,
    pub(super) feeds: watch::Receiver<Feeds>,
    decisions: watch::Sender<Decisions>,
    /// The session in which the hub decided: another hub, or one that was restarted, has to decide
    /// again before it takes feeds.
    decided_in: Mutex<Vec<u8>>,
    pub(super) operations: Arc<dyn Operations>,
    pub(super) clock: SharedClock,
}

impl Shared {
    /// Ties a session to the accounts it offers, the feeds it carries and the operations it runs.
    pub fn new(
        settings: SessionSettings,
        offers: watch::Receiver<Arc<Offers>>,
        feeds: watch::Receiver<Feeds>,
        operations: Arc<dyn Operations>,
        clock: SharedClock,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            generation: AtomicU64::new(0),
            session: Mutex::default(),
            offers,
            feeds,
            decisions: watch::Sender::default(),
            decided_in: Mutex::default(),
            operations,
            clock,
        })
    }

    /// What the hub makes of the offered accounts.
    pub fn decisions(&self) -> watch::Receiver<Decisions> {
        self.decisions.subscribe()
    }

    fn session(&self) -> Vec<u8> {
        self.session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Counts one more connection; gives its number.
    pub(super) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Notes the session that the hub has opened, or taken up again.
    pub(super) fn welcomed(&self, session: &[u8]) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session.to_vec();
    }

    /// Whether the hub has decided on the accounts in this session.
    pub(super) fn has_decided(&self, session: &[u8]) -> bool {
        let decided = self.decided_in.lock();
        *decided.unwrap_or_else(PoisonError::into_inner) == session
    }

    /// Whether the hub takes the feed of an account, by its last decision.
    pub(super) fn is_accepted(&self, account: &str) -> bool {
        let decisions = self.decisions.borrow();
        let decision = decisions.get(account);
        decision.is_some_and(|decision| decision.admission == v1::Admission::Accepted)
    }

    pub(super) fn hello(&self, generation: u64) -> v1::AgentHello {
        v1::AgentHello {
            versions: wire::VERSIONS.to_vec(),
            capabilities: Vec::new(),
            instance: self.settings.instance.to_vec().into(),
            generation,
            session: self.session().into(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.settings.host.clone(),
        }
    }

    /// Takes what the hub has decided in `session`.
    pub(super) fn decide(&self, session: &[u8], decisions: v1::AccountDecisions) {
        let decided: BTreeMap<String, Decision> = decisions
            .accounts
            .into_iter()
            .map(|decision| {
                let admission = decision.admission();
                (
                    decision.name,
                    Decision {
                        admission,
                        message: decision.message,
                    },
                )
            })
            .collect();
        let decided_in = self.decided_in.lock();
        *decided_in.unwrap_or_else(PoisonError::into_inner) = session.to_vec();
        self.decisions.send_if_modified(|old| {
            let differs = **old != decided;
            if differs {
                for (account, decision) in &decided {
                    if old.get(account) != Some(decision) {
                        log(account, decision);
                    }
                }
                *old = Arc::new(decided);
            }
            differs
        });
    }
}

/// Tells the operator of the agent what the hub makes of an account: nobody else here does.
fn log(account: &str, decision: &Decision) {
    use v1::Admission as A;
    let why = &decision.message;
    match decision.admission {
        A::Accepted | A::Standby => {
            tracing::debug!(account, why, "account accepted");
        }
        A::Taken => tracing::warn!(
            account,
            reason = "AccountTaken",
            why,
            "the hub does not serve the account"
        ),
        A::Pending | A::Suspended | A::Unspecified => {
            tracing::warn!(account, why, "the hub does not serve the account");
        }
    }
}
