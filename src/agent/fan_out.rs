//! Accounts that stand for each field of one secret.
//!
//! ```text
//! prod-* , secret "…#*" ──Engines::keys──▶ [eu, us] ──▶ prod-eu (…#eu), prod-us (…#us)
//!               ▲ changed, refresh, back-off │
//!               └────────────────────────────┘
//! ```
//! An engine that cannot be asked, or says that the whole secret is gone, changes nothing: each
//! account then goes by what becomes of its own field. A field that is missing in a list ends its
//! account when a second list, [`CONFIRM`] later, does not have it either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::AccountSettings;
use crate::credential::{Engines, FetchError, Key, Keys, Reference, Source};
use crate::entropy::SharedEntropy;
use crate::hub::is_account_name;
use crate::limits::ACCOUNTS_PER_AGENT;
use crate::retry::{Backoff, pause_unless};
use crate::tasks::Tasks;

/// Time between two lists without a field before it is believed to be gone.
const CONFIRM: Duration = Duration::from_secs(10);

/// Pause before an engine that failed is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Longest such pause.
const RETRY_CAP: Duration = Duration::from_mins(5);

/// The fields that are known of each secret.
pub(super) type Known = BTreeMap<Reference, BTreeSet<String>>;

/// Follows the fields of every secret that is wanted so.
pub(super) struct FanOut {
    known: watch::Sender<Known>,
    followers: BTreeMap<Reference, Follower>,
    tasks: Tasks,
    entropy: SharedEntropy,
    /// What was left out when it was last looked at, so that it is told once.
    left_out: BTreeSet<(String, String)>,
}

struct Follower {
    engines: Arc<Engines>,
    stop: CancellationToken,
}

/// The secret of an account that stands for each of its fields.
fn each(account: &AccountSettings) -> Option<&Reference> {
    match &account.source {
        Source::Secret { reference, .. } if reference.key == Key::Each => Some(reference),
        _ => None,
    }
}

/// The account of one field.
pub(super) fn account(template: &AccountSettings, field: &str) -> Option<AccountSettings> {
    let name = template.name.replacen('*', field, 1);
    let mut account = AccountSettings {
        name,
        ..template.clone()
    };
    if let Source::Secret { reference, .. } = &mut account.source {
        reference.key = Key::Named(field.to_owned());
    }
    is_account_name(&account.name).then_some(account)
}

impl FanOut {
    pub(super) fn new(tasks: Tasks, entropy: SharedEntropy) -> Self {
        Self {
            known: watch::Sender::default(),
            followers: BTreeMap::new(),
            tasks,
            entropy,
            left_out: BTreeSet::new(),
        }
    }

    /// Tells when other fields are known.
    pub(super) fn changes(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Follows the secrets of these accounts from now on, by these engines.
    pub(super) fn follow(&mut self, accounts: &[AccountSettings], engines: &Arc<Engines>) {
        let wanted: BTreeSet<&Reference> = accounts.iter().filter_map(each).collect();
        let stays = |reference: &Reference, follower: &Follower| {
            wanted.contains(reference) && Arc::ptr_eq(&follower.engines, engines)
        };
        for (reference, gone) in self
            .followers
            .extract_if(.., |reference, one| !stays(reference, one))
        {
            gone.stop.cancel();
            // With other engines, what is known stays until they tell something else.
            if !wanted.contains(&reference) {
                self.known.send_if_modified(|known| {
                    known.remove(&reference);
                    false
                });
            }
        }
        for reference in wanted {
            if !self.followers.contains_key(reference) {
                let follower = self.start(reference, engines);
                self.followers.insert(reference.clone(), follower);
            }
        }
    }

    fn start(&self, reference: &Reference, engines: &Arc<Engines>) -> Follower {
        let stop = CancellationToken::new();
        let following = Following {
            reference: reference.clone(),
            engines: Arc::clone(engines),
            known: self.known.clone(),
            missing: BTreeMap::new(),
        };
        let (own_stop, entropy) = (stop.clone(), Arc::clone(&self.entropy));
        self.tasks.spawn("fan-out", move |agent_stop| async move {
            let running = own_stop.run_until_cancelled(following.run(entropy, own_stop.clone()));
            let _stopped = agent_stop.run_until_cancelled(running).await;
        });
        Follower {
            engines: Arc::clone(engines),
            stop,
        }
    }

    /// The accounts as they are served: those of one field in place of those that stand for each.
    ///
    /// What is left out is told when it is new.
    pub(super) fn expanded(&mut self, accounts: &[AccountSettings]) -> Vec<AccountSettings> {
        let (templates, plain): (Vec<_>, Vec<_>) =
            accounts.iter().partition(|account| each(account).is_some());
        let mut served: BTreeMap<String, AccountSettings> = plain
            .into_iter()
            .map(|account| (account.name.clone(), account.clone()))
            .collect();
        let mut left_out = BTreeSet::new();
        let known = self.known.borrow().clone();
        for template in templates {
            let fields = each(template).and_then(|reference| known.get(reference));
            for field in fields.into_iter().flatten() {
                let why = match account(template, field) {
                    None => "it makes no name of an account",
                    Some(account) if served.contains_key(&account.name) => {
                        "there is another account of that name"
                    }
                    Some(_) if served.len() >= ACCOUNTS_PER_AGENT => "there are too many accounts",
                    Some(account) => {
                        served.insert(account.name.clone(), account);
                        continue;
                    }
                };
                let told = (template.name.clone(), field.clone());
                if !self.left_out.contains(&told) {
                    let (accounts, field) = (&template.name, field.escape_debug().to_string());
                    tracing::warn!(accounts, field, why, "a field of the secret is left out");
                }
                left_out.insert(told);
            }
        }
        self.left_out = left_out;
        served.into_values().collect()
    }
}

/// Follows the fields of one secret.
struct Following {
    reference: Reference,
    engines: Arc<Engines>,
    known: watch::Sender<Known>,
    /// Fields that were there, and since when they are not.
    missing: BTreeMap<String, Instant>,
}

impl Following {
    async fn run(mut self, entropy: SharedEntropy, stop: CancellationToken) {
        let mut backoff = Backoff::new(RETRY, RETRY_CAP, entropy);
        let mut failed = None;
        loop {
            let (pause, version) = match self.engines.keys(&self.reference).await {
                Ok(Keys { names, version }) => {
                    backoff.reset();
                    failed = None;
                    self.take(names);
                    (self.pause(), version)
                }
                Err(error) => {
                    self.tell(&error, &mut failed);
                    (backoff.next_pause(), None)
                }
            };
            tokio::select! {
                _completed = pause_unless(&stop, pause) => {}
                () = self.engines.changed(&self.reference, version.as_deref()) => {}
            }
        }
    }

    /// Until the engine is asked again without having told of a change.
    fn pause(&self) -> Duration {
        let refresh = self.engines.refresh(&self.reference);
        if self.missing.is_empty() {
            return refresh;
        }
        refresh.min(CONFIRM)
    }

    /// Takes over a list; what is missing in it for the first time stays.
    fn take(&mut self, names: Vec<String>) {
        let mut fields: BTreeSet<String> = names.into_iter().collect();
        self.missing.retain(|field, _| !fields.contains(field));
        let now = Instant::now();
        let missing = &mut self.missing;
        self.known.send_if_modified(|known| {
            let before = known.entry(self.reference.clone()).or_default();
            for field in before.difference(&fields).cloned().collect::<Vec<_>>() {
                let since = *missing.entry(field.clone()).or_insert(now);
                if now.duration_since(since) < CONFIRM {
                    fields.insert(field);
                } else {
                    missing.remove(&field);
                }
            }
            let is_news = *before != fields;
            *before = fields;
            is_news
        });
    }

    fn tell(&self, error: &FetchError, failed: &mut Option<String>) {
        let reason = error.reason().as_str();
        if failed.as_deref() == Some(reason) {
            return;
        }
        *failed = Some(reason.to_owned());
        tracing::warn!(reason, %error, "the fields of a secret cannot be listed; the known ones stay");
    }
}
