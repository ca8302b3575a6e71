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
use crate::limits::ACCOUNTS_PER_AGENT;
use crate::policy::is_account_name;
use crate::retry::{self, Backoff};
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
pub(super) fn each(account: &AccountSettings) -> Option<&Reference> {
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
            let running = own_stop.run_until_cancelled(following.run(entropy));
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
    async fn run(mut self, entropy: SharedEntropy) {
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
                    tell(&error, &mut failed);
                    (backoff.next_pause(), None)
                }
            };
            tokio::select! {
                () = retry::pause(pause) => {}
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
            for field in before.iter() {
                if fields.contains(field) {
                    continue;
                }
                let since = *missing.entry(field.clone()).or_insert(now);
                if now.duration_since(since) < CONFIRM {
                    fields.insert(field.clone());
                } else {
                    missing.remove(field);
                }
            }
            let is_news = *before != fields;
            *before = fields;
            is_news
        });
    }
}

/// Says once why the fields cannot be listed, until they can be or for another reason.
fn tell(error: &FetchError, failed: &mut Option<&'static str>) {
    let reason = error.reason().as_str();
    if failed.replace(reason) != Some(reason) {
        tracing::warn!(reason, %error, "the fields of a secret cannot be listed; the known ones stay");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::testkit::Logged;
    use crate::credential::{EngineSettings, Locator, MAX_STALE, Rules, Surroundings, file};
    use crate::entropy;
    use crate::policy;

    fn template(name: &str) -> AccountSettings {
        let reference = Reference {
            profile: Some("vol".to_owned()),
            locator: Locator::File {
                path: String::new(),
            },
            key: Key::Each,
            base64: false,
        };
        AccountSettings {
            name: name.to_owned(),
            source: Source::Secret {
                reference,
                context: None,
                rules: Rules::default(),
                max_stale: None,
            },
            policy: policy::AccountSettings::default(),
            read_roles: Vec::new(),
            write_roles: Vec::new(),
        }
    }

    fn knowing(fields: &[&str]) -> FanOut {
        let fan_out = FanOut::new(Tasks::new(), entropy::system());
        let reference = each(&template("*")).unwrap().clone();
        let fields = fields.iter().map(ToString::to_string).collect();
        fan_out
            .known
            .send_modify(|known| drop(known.insert(reference, fields)));
        fan_out
    }

    fn names(accounts: &[AccountSettings]) -> Vec<&str> {
        let names = accounts.iter().map(|account| account.name.as_str());
        names.collect()
    }

    fn engines(settings: Vec<crate::credential::Settings>) -> Arc<Engines> {
        Arc::new(Engines::new(settings, Surroundings::of_system()))
    }

    fn following() -> Following {
        Following {
            reference: each(&template("*")).unwrap().clone(),
            engines: engines(Vec::new()),
            known: watch::Sender::default(),
            missing: BTreeMap::new(),
        }
    }

    fn list(fields: &[&str]) -> Vec<String> {
        fields.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_field_is_an_account_and_what_makes_no_name_is_told_once() {
        let (logged, _guard) = Logged::start();
        let mut fan_out = knowing(&["eu", "us", "a/b", "lab"]);
        let mut plain = template("prod-lab");
        plain.source = Source::KubeconfigFile {
            path: "lab".into(),
            context: None,
            rules: Rules::default(),
        };
        let wanted = [template("prod-*"), plain.clone()];
        for _ in 0..2 {
            let served = fan_out.expanded(&wanted);
            assert_eq!(names(&served), ["prod-eu", "prod-lab", "prod-us"]);
            assert_eq!(served.get(1), Some(&plain));
            let Some(Source::Secret { reference, .. }) = served.first().map(|one| &one.source)
            else {
                panic!("its credential is a secret");
            };
            assert_eq!(reference.key, Key::Named("eu".to_owned()));
        }
        let text = logged.text();
        assert_eq!(text.matches("it makes no name of an account").count(), 1);
        assert_eq!(text.matches("another account of that name").count(), 1);
    }

    #[test]
    fn there_are_never_more_accounts_than_an_agent_may_have() {
        let fields: Vec<String> = (0..1000).map(|number| format!("f{number:03}")).collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let mut fan_out = knowing(&fields);
        let served = fan_out.expanded(&[template("*")]);
        assert_eq!(served.len(), ACCOUNTS_PER_AGENT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_field_has_to_be_missing_twice() {
        let mut following = following();
        let fields = |following: &Following| {
            let known = following.known.borrow();
            let fields = known.get(&following.reference).cloned();
            fields.unwrap_or_default().into_iter().collect::<Vec<_>>()
        };
        following.take(list(&["eu", "us"]));
        following.take(list(&["us"]));
        assert_eq!(fields(&following), ["eu", "us"]);
        assert!(following.pause() <= CONFIRM);
        // It was back in between.
        tokio::time::advance(CONFIRM).await;
        following.take(list(&["eu", "us"]));
        following.take(list(&["us"]));
        assert_eq!(fields(&following), ["eu", "us"]);
        tokio::time::advance(CONFIRM).await;
        following.take(list(&["us"]));
        assert_eq!(fields(&following), ["us"]);
        assert!(following.missing.is_empty());
    }

    #[tokio::test]
    async fn the_fields_of_a_folder_are_followed_and_a_lost_folder_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("eu"), "").unwrap();
        let engines_of_root = engines(vec![crate::credential::Settings {
            name: "vol".to_owned(),
            default: false,
            refresh: Duration::from_hours(1),
            max_stale: MAX_STALE,
            engine: EngineSettings::File(file::Settings { root: root.clone() }),
        }]);
        let tasks = Tasks::new();
        let mut fan_out = FanOut::new(tasks.clone(), entropy::system());
        let mut changes = fan_out.changes();
        let wanted = [template("prod-*")];
        fan_out.follow(&wanted, &engines_of_root);
        changes.changed().await.unwrap();
        assert_eq!(names(&fan_out.expanded(&wanted)), ["prod-eu"]);
        std::fs::write(root.join("us"), "").unwrap();
        changes.changed().await.unwrap();
        assert_eq!(names(&fan_out.expanded(&wanted)), ["prod-eu", "prod-us"]);

        // Other engines, of which none is the one that is meant.
        std::fs::remove_dir_all(&root).unwrap();
        fan_out.follow(&wanted, &engines(Vec::new()));
        let known = fan_out.expanded(&wanted);
        assert_eq!(names(&known), ["prod-eu", "prod-us"]);
        fan_out.follow(&[], &engines_of_root);
        assert_eq!(names(&fan_out.expanded(&wanted)), [] as [&str; 0]);
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }
}
