//! The accounts that the configuration names now, and a worker for each.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::AccountSettings;
use super::accounts::Accounts;
use super::fan_out::FanOut;
use super::supervision::supervise;
use super::worker::Worker;
use crate::clock::SharedClock;
use crate::credential::{self, Engines, OwnCertificate, Store, Surroundings};
use crate::entropy::SharedEntropy;
use crate::policy::{AccountPolicy, Rules};
use crate::stream::Quota;
use crate::tasks::Tasks;

/// What may change while an agent runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Secret engines by profile.
    pub engines: Vec<credential::Settings>,
    /// What is served.
    pub accounts: Vec<AccountSettings>,
}

/// What the workers of all accounts share.
pub(super) struct Common {
    pub(super) rules: Rules,
    pub(super) accounts: Arc<Accounts>,
    pub(super) clock: SharedClock,
    pub(super) entropy: SharedEntropy,
    /// The agent's own, for engines that know it by that.
    pub(super) certificate: OwnCertificate,
    pub(super) hash_key: std::hash::RandomState,
    /// What all accounts together may read and hold at once.
    pub(super) quota: Arc<Quota>,
    /// Owns the connections to clusters.
    pub(super) connections: Tasks,
    /// Owns the workers.
    pub(super) tasks: Tasks,
}

impl Common {
    fn store(&self, engines: &Arc<Engines>) -> Arc<Store> {
        Arc::new(Store::new(
            Arc::clone(engines),
            Arc::clone(&self.clock),
            Arc::clone(&self.entropy),
            self.tasks.clone(),
        ))
    }
}

/// A worker that runs.
struct Member {
    settings: AccountSettings,
    stop: CancellationToken,
    ended: CancellationToken,
}

/// Starts and stops workers as the wish changes.
pub(super) struct Roster {
    common: Common,
    engines: (Vec<credential::Settings>, Arc<Engines>),
    fan_out: FanOut,
    store: Arc<Store>,
    members: BTreeMap<String, Member>,
}

/// Whom the accounts follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Nobody yet: the agent starts.
    Start,
    Configuration,
    /// The fields of a secret that stands for several accounts.
    Fields,
}

impl Roster {
    pub(super) fn new(common: Common) -> Self {
        let fan_out = FanOut::new(common.tasks.clone(), Arc::clone(&common.entropy));
        let surroundings = Surroundings {
            clock: Arc::clone(&common.clock),
            entropy: Arc::clone(&common.entropy),
            certificate: common.certificate.clone(),
        };
        let engines = Arc::new(Engines::new(Vec::new(), surroundings));
        Self {
            store: common.store(&engines),
            common,
            engines: (Vec::new(), engines),
            fan_out,
            members: BTreeMap::new(),
        }
    }

    /// What is fetched of engines, counted.
    pub(super) fn fetches(&self) -> Arc<credential::Figures> {
        self.engines.1.figures()
    }

    /// Follows `wanted` until `stop`.
    pub(super) async fn run(
        mut self,
        mut wanted: watch::Receiver<Arc<Wanted>>,
        stop: CancellationToken,
    ) {
        let mut fields = self.fan_out.changes();
        let following = async {
            let mut cause = Cause::Start;
            loop {
                let wish = Arc::clone(&wanted.borrow_and_update());
                fields.mark_unchanged();
                self.become_as(&wish, cause).await;
                cause = tokio::select! {
                    Ok(()) = wanted.changed() => Cause::Configuration,
                    Ok(()) = fields.changed() => Cause::Fields,
                    else => std::future::pending().await,
                };
            }
        };
        let _stopped = stop.run_until_cancelled(following).await;
        // Leases end when nobody uses them any more.
        for member in self.members.values() {
            member.ended.cancelled().await;
        }
        self.engines.1.close(None).await;
    }

    /// Connects to other engines if others are wanted; gives those that were in use so far.
    fn take_engines(&mut self, wish: &Wanted) -> Arc<Engines> {
        let before = Arc::clone(&self.engines.1);
        if self.engines.0 != wish.engines {
            let engines = Arc::new(before.replaced_by(wish.engines.clone()));
            self.store.ask(Arc::clone(&engines));
            self.engines = (wish.engines.clone(), engines);
        }
        before
    }

    /// Stops what is not wanted as it is, then starts what is missing.
    async fn become_as(&mut self, wish: &Wanted, cause: Cause) {
        let before = self.take_engines(wish);
        let engines = Arc::clone(&self.engines.1);
        self.fan_out.follow(&wish.accounts, &self.engines.1);
        let accounts = self.fan_out.expanded(&wish.accounts);
        let wanted: BTreeMap<&str, &AccountSettings> = accounts
            .iter()
            .map(|account| (account.name.as_str(), account))
            .collect();
        let stays = |name: &String, member: &Member| {
            let source = &member.settings.source;
            let same_engine = match source.reference() {
                Some(reference) if !source.mints() => before.serves_alike(&engines, reference),
                _ => Arc::ptr_eq(&before, &engines) || !source.mints(),
            };
            same_engine && wanted.get(name.as_str()) == Some(&&member.settings)
        };
        let leaving = self
            .members
            .extract_if(.., |name, member| !stays(name, member));
        let leaving: BTreeMap<String, Member> = leaving.collect();
        for member in leaving.values() {
            member.stop.cancel();
        }
        for member in leaving.values() {
            member.ended.cancelled().await;
        }
        if !Arc::ptr_eq(&before, &engines) {
            let closing = async move { before.close(Some(&engines)).await };
            self.common.tasks.spawn("engines-close", |_stop| closing);
        }
        let (mut added, mut changed) = (Vec::new(), Vec::new());
        for (name, settings) in &wanted {
            if self.members.contains_key(*name) {
                continue;
            }
            let known = leaving.contains_key(*name);
            if known { &mut changed } else { &mut added }.push(*name);
            self.start((*settings).clone());
        }
        let removed: Vec<&str> = leaving
            .keys()
            .map(String::as_str)
            .filter(|name| !wanted.contains_key(name))
            .collect();
        for name in &removed {
            self.common.accounts.withdraw(name);
        }
        let is_same = added.is_empty() && changed.is_empty() && removed.is_empty();
        let (added, changed, removed) = (added.join(","), changed.join(","), removed.join(","));
        match cause {
            Cause::Start => {}
            Cause::Configuration => {
                tracing::info!(added, changed, removed, "accounts follow the configuration");
            }
            Cause::Fields if is_same => {}
            Cause::Fields => {
                tracing::info!(
                    added,
                    changed,
                    removed,
                    "accounts follow the fields of a secret"
                );
            }
        }
    }

    fn start(&mut self, settings: AccountSettings) {
        let common = &self.common;
        let policy = AccountPolicy::new(settings.policy.clone(), &common.rules);
        let worker = Worker {
            settings: settings.clone(),
            policy: Arc::new(policy),
            store: Arc::clone(&self.store),
            accounts: Arc::clone(&common.accounts),
            clock: Arc::clone(&common.clock),
            entropy: Arc::clone(&common.entropy),
            hash_key: common.hash_key.clone(),
            quota: Arc::clone(&common.quota),
            connections: common.connections.clone(),
        };
        let owner = common.tasks.clone();
        let stop = owner.stop().child_token();
        let ended = CancellationToken::new();
        let (own_stop, end) = (stop.clone(), ended.clone());
        common
            .tasks
            .spawn("account", move |_agent_stop| async move {
                let _ended = end.drop_guard();
                supervise(worker, owner, own_stop).await;
            });
        let name = settings.name.clone();
        let member = Member {
            settings,
            stop,
            ended,
        };
        self.members.insert(name, member);
    }
}
