//! One account: from its credential to its feed, and what changes on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::accounts::{Accounts, Status};
use super::kinds::{Chosen, LeftOut, TOO_MANY_STREAMS, choose, discovery, scopes};
use super::rediscovery::{Answer, Rediscovery};
use super::trial::{self, CREDENTIAL_REJECTED, Taken, Trial, told, without_credential};
use super::{AccountSettings, certificate};
use crate::clock::SharedClock;
use crate::cluster::{Cluster, ClusterError, Discovery};
use crate::credential::{Published, Store};
use crate::entropy::SharedEntropy;
use crate::fault::Chain;
use crate::ops::{self, Kinds};
use crate::policy::{AccountPolicy, Level};
use crate::resource::Gvr;
use crate::retry::{Backoff, pause_unless};
use crate::stream::{Feed, FeedSettings, Follow, Quota};
use crate::tasks::Tasks;
use crate::wire::v1;

/// Snapshots of one account under way at once; kube-apiserver's fairness prefers few.
const SNAPSHOTS: usize = 3;

/// Pause before a credential is followed anew whose keeper has ended.
const UNKEPT_PAUSE: Duration = Duration::from_secs(5);

/// What one account needs.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) settings: AccountSettings,
    pub(super) policy: Arc<AccountPolicy>,
    pub(super) store: Arc<Store>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) clock: SharedClock,
    pub(super) entropy: SharedEntropy,
    pub(super) hash_key: std::hash::RandomState,
    pub(super) quota: Arc<Quota>,
    /// Owns the connections to the cluster, which outlive a stop until their operations are over.
    pub(super) connections: Tasks,
}

/// What comes after a step of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    /// The credential is gone, or for another cluster now: everything starts anew.
    Anew,
    Stop,
}

/// What is known of the cluster.
pub(super) struct Known {
    uid: String,
    version: Vec<u8>,
    found: Discovery,
}

impl Worker {
    /// Serves the account until `stop`, or until `anew` says that everything has to start again.
    pub(super) async fn run(
        self,
        credential: watch::Receiver<Published>,
        tasks: Tasks,
        stop: CancellationToken,
        anew: CancellationToken,
    ) {
        // Dropped with the future: everything of this account stops with its worker.
        let _stops = tasks.stop_on_drop();
        let running = self.serve(credential, &tasks, &stop);
        if stop.run_until_cancelled(running).await == Some(Next::Anew) {
            anew.cancel();
        }
    }

    async fn serve(
        &self,
        mut credential: watch::Receiver<Published>,
        tasks: &Tasks,
        stop: &CancellationToken,
    ) -> Next {
        self.tell(&BTreeMap::new(), &Status::new(v1::AccountState::Activating));
        let (cluster, known) = match self.connect(&mut credential, stop).await {
            Ok(connected) => connected,
            Err(next) => return next,
        };
        let (cluster_now, cluster) = watch::channel(cluster);
        let feed = Feed::new(FeedSettings {
            account: self.settings.name.clone(),
            cluster_uid: known.uid.clone(),
            policy_digest: self.policy.digest(),
            quota: Arc::clone(&self.quota),
        });
        let (kinds_now, kinds) = watch::channel(Arc::new(Kinds::new()));
        self.serve_operations(&feed, kinds, &cluster, tasks);
        certificate::follow(&self.settings.name, cluster_now.clone(), tasks);
        let serving = Serving {
            worker: self,
            follow: Follow {
                cluster,
                snapshots: Arc::new(Semaphore::new(SNAPSHOTS)),
                entropy: Arc::clone(&self.entropy),
                rules: Arc::clone(self.policy.scrub_rules()),
                hash_key: self.hash_key.clone(),
            },
            feed,
            cluster_now,
            kinds_now,
            tasks: tasks.clone(),
        };
        serving.run(known, credential, stop).await
    }

    /// Waits for a credential with which the API server can be asked, and asks it.
    ///
    /// # Errors
    /// What is done instead: stop, or begin anew because nobody keeps the credential any more.
    async fn connect(
        &self,
        credential: &mut watch::Receiver<Published>,
        stop: &CancellationToken,
    ) -> Result<(Arc<Cluster>, Known), Next> {
        let entropy = Arc::clone(&self.entropy);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), entropy);
        loop {
            let published = credential.borrow_and_update().clone();
            let Some(held) = published.credential.clone() else {
                let facts = told(&self.settings.source, &published, None);
                let mut status = without_credential(published);
                status.credential = Some(facts);
                self.tell(&BTreeMap::new(), &status);
                if credential.changed().await.is_err() {
                    return Err(self.unkept(stop).await);
                }
                continue;
            };
            let failure = match Cluster::new(held, self.connections.clone()).await {
                Ok(cluster) => match learn(&cluster).await {
                    Ok(known) => {
                        self.audit(&published, Taken::First);
                        return Ok((Arc::new(cluster), known));
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let pause = backoff.next_pause();
            self.tell(
                &BTreeMap::new(),
                &failed(&failure, self.clock.now() + pause),
            );
            tokio::select! {
                waited = pause_unless(stop, pause) => if !waited { return Err(Next::Stop) },
                changed = credential.changed() => if changed.is_err() {
                    return Err(self.unkept(stop).await);
                },
            }
        }
    }

    /// What to do when the keeper of the credential is gone, which a panic alone can bring about: not
    /// at once again, because the next one may end the same way.
    async fn unkept(&self, stop: &CancellationToken) -> Next {
        let message = "what keeps the credential has ended; it begins anew".to_owned();
        self.tell(&BTreeMap::new(), &Status::failed("Internal", message));
        if pause_unless(stop, UNKEPT_PAUSE).await {
            Next::Anew
        } else {
            Next::Stop
        }
    }

    fn serve_operations(
        &self,
        feed: &Arc<Feed>,
        kinds: watch::Receiver<Arc<Kinds>>,
        cluster: &watch::Receiver<Arc<Cluster>>,
        tasks: &Tasks,
    ) {
        let (now, operations_cluster) = watch::channel(Some(Arc::clone(&cluster.borrow())));
        let mut changes = cluster.clone();
        tasks.spawn("operations-cluster", move |stop| async move {
            let following = async {
                while changes.changed().await.is_ok() {
                    now.send_replace(Some(Arc::clone(&changes.borrow_and_update())));
                }
            };
            let _stopped = stop.run_until_cancelled(following).await;
            now.send_replace(None);
        });
        let wrote = Arc::clone(feed);
        self.accounts.set_context(ops::Context {
            account: self.settings.name.clone(),
            policy: Arc::clone(&self.policy),
            kinds,
            cluster: operations_cluster,
            tally: Arc::clone(&self.accounts.figures.operations),
            wrote: Arc::new(move |gvr: &Gvr, version| wrote.mark(gvr, version)),
        });
    }

    fn audit(&self, published: &Published, taken: Taken) {
        let tally = &self.accounts.figures.credentials;
        trial::audit(&self.settings, published, taken, tally);
    }

    /// Offers the account as it is now.
    pub(super) fn tell(&self, cluster: &BTreeMap<&str, String>, status: &Status) {
        let known = self
            .accounts
            .offers
            .borrow()
            .get(&self.settings.name)
            .cloned();
        let mut offer = known.unwrap_or_default();
        offer.name.clone_from(&self.settings.name);
        offer.read_roles.clone_from(&self.settings.read_roles);
        offer.write_roles.clone_from(&self.settings.write_roles);
        if let Some(uid) = cluster.get("uid") {
            offer.cluster_uid.clone_from(uid);
        }
        if let Some(version) = cluster.get("version") {
            offer.server_version.clone_from(version);
        }
        self.accounts.offer(offer, status);
    }
}

pub(super) async fn learn(cluster: &Cluster) -> Result<Known, ClusterError> {
    let version = cluster.version().await?;
    let uid = cluster.uid().await?;
    let found = cluster.discovery().await?;
    for group_version in &found.incomplete {
        tracing::warn!(group_version, "kinds of a group are not known now");
    }
    Ok(Known {
        uid,
        version,
        found,
    })
}

fn failed(error: &ClusterError, next: SystemTime) -> Status {
    let mut status = Status::failed(error.reason().as_str(), Chain(error).to_string());
    status.next_retry = Some(next);
    status
}

/// An account whose cluster is known.
struct Serving<'a> {
    worker: &'a Worker,
    follow: Follow,
    feed: Arc<Feed>,
    cluster_now: watch::Sender<Arc<Cluster>>,
    kinds_now: watch::Sender<Arc<Kinds>>,
    tasks: Tasks,
}

impl Serving<'_> {
    async fn run(
        self,
        known: Known,
        mut credential: watch::Receiver<Published>,
        stop: &CancellationToken,
    ) -> Next {
        let uid = known.uid.clone();
        let facts = BTreeMap::from([
            ("uid", uid.clone()),
            ("version", git_version(&known.version)),
        ]);
        let asked_at = *self.feed.definitions().borrow();
        let mut left_out = self.follow_kinds(&known, asked_at);
        let mut kinds = self.rediscover(asked_at);
        self.worker
            .accounts
            .set_feed(&self.worker.settings.name, Some(Arc::clone(&self.feed)));
        let in_use = credential.borrow_and_update().generation;
        let mut trial = Trial::of(in_use, self.worker.clock.now(), &self.worker.entropy);
        let mut progress = self.feed.progress();
        loop {
            self.tell_state(&facts, &credential.borrow(), &trial, left_out.as_ref());
            tokio::select! {
                () = stop.cancelled() => return Next::Stop,
                changed = credential.changed() => {
                    let published = credential.borrow_and_update().clone();
                    if published.suspended {
                        self.worker.audit(&published, Taken::GivenUp);
                        return Next::Anew;
                    }
                    // Its keeper is gone.
                    if changed.is_err() { return Next::Anew }
                    if self.try_credential(published, &uid, &mut trial).await == Next::Anew {
                        return Next::Anew;
                    }
                }
                () = trial.is_due() => {
                    let published = credential.borrow().clone();
                    if self.try_credential(published, &uid, &mut trial).await == Next::Anew {
                        return Next::Anew;
                    }
                }
                changed = progress.changed() => if changed.is_err() { return Next::Stop },
                Some(Answer { definitions, known }) = kinds.recv() => match known {
                    Some(known) if known.uid != uid => {
                        let account = &self.worker.settings.name;
                        tracing::warn!(account, "another cluster answers than before");
                        return Next::Anew;
                    }
                    Some(known) => left_out = self.follow_kinds(&known, definitions),
                    None => self.feed.keep_discovery(definitions),
                },
            }
        }
    }

    /// Has the kinds asked for again and again; tells what came of it.
    fn rediscover(&self, asked_at: u64) -> mpsc::Receiver<Answer> {
        let (answers, told) = mpsc::channel(1);
        let rediscovery = Rediscovery {
            account: self.worker.settings.name.clone(),
            cluster: self.follow.cluster.clone(),
            definitions: self.feed.definitions(),
            asked_at,
        };
        self.tasks.spawn("kinds", |stop| async move {
            let _stopped = stop.run_until_cancelled(rediscovery.run(answers)).await;
        });
        told
    }

    /// ACTIVE once every stream has been read once, STALE while none can be; a failing engine does
    /// not end that.
    fn tell_state(
        &self,
        facts: &BTreeMap<&str, String>,
        credential: &Published,
        trial: &Trial,
        left_out: Option<&LeftOut>,
    ) {
        let outage = self.feed.outage();
        let state = match (self.feed.is_ready(), &outage) {
            (true, None) => v1::AccountState::Active,
            (true, Some(_)) => v1::AccountState::Stale,
            (false, _) => v1::AccountState::Activating,
        };
        let mut status = Status::new(state);
        let source = &self.worker.settings.source;
        status.credential = Some(told(source, credential, Some(trial.since)));
        if let Some(outage) = outage {
            status.reason = outage.reason.as_str();
            status.message = outage.message;
        } else if let Some(refusal) = &trial.refusal {
            status.reason = CREDENTIAL_REJECTED;
            status.message.clone_from(&refusal.message);
        } else if let Some(reason) = credential.reason {
            status.reason = reason.as_str();
            status.message.clone_from(&credential.message);
            status.next_retry = credential.next_try;
        } else if let Some(left_out) = left_out {
            status.reason = TOO_MANY_STREAMS;
            status.message = left_out.to_string();
        }
        self.worker.tell(facts, &status);
    }

    /// Tries a new credential before it replaces the one in use. One that does not work is tried
    /// again, while the old one stays.
    async fn try_credential(&self, published: Published, uid: &str, trial: &mut Trial) -> Next {
        let Some(credential) = published.credential.clone() else {
            return Next::GoOn;
        };
        if published.generation == trial.in_use {
            return Next::GoOn;
        }
        let account = &self.worker.settings.name;
        let connections = self.worker.connections.clone();
        let changed = match Cluster::new(credential, connections).await {
            Ok(cluster) => cluster.uid().await.map(|found| (cluster, found)),
            Err(error) => Err(error),
        };
        match changed {
            Ok((_, found)) if found != uid => {
                self.worker.audit(&published, Taken::OtherCluster);
                tracing::warn!(account, "the new credential is for another cluster");
                return Next::Anew;
            }
            Ok((cluster, _)) => {
                self.cluster_now.send_replace(Arc::new(cluster));
                trial.accept(published.generation, self.worker.clock.now());
                self.worker.audit(&published, Taken::CutOver);
                tracing::info!(account, version = published.version, "credential changed");
            }
            Err(error) => {
                let error = Chain(&error).to_string();
                tracing::error!(
                    account,
                    version = published.version,
                    error,
                    "the new credential does not work; the old one stays in use"
                );
                trial.refuse(&error);
                self.worker.audit(&published, Taken::Refused);
            }
        }
        Next::GoOn
    }

    /// Starts streams of kinds that came, ends those of kinds that went; what is left out. The kinds
    /// were asked for when definitions had changed so often.
    fn follow_kinds(&self, known: &Known, definitions: u64) -> Option<LeftOut> {
        let policy = &self.worker.policy;
        let before = Arc::clone(&self.kinds_now.borrow());
        let Chosen { kinds, left_out } = choose(&known.found, &before, policy);
        let by_gvr = kinds
            .iter()
            .map(|kind| (kind.kind().gvr.clone(), kind.clone()));
        let allowed: Kinds = by_gvr.collect();
        for gone in before.keys().filter(|gvr| !allowed.contains_key(gvr)) {
            self.feed.remove(gone);
        }
        let cached = allowed
            .values()
            .filter(|kind| kind.level() == Level::Cached);
        for kind in cached {
            for scope in scopes(kind, policy.namespaces()) {
                if !self.feed.has(&kind.kind().gvr, &scope) {
                    self.feed.follow(kind, scope, &self.follow, &self.tasks);
                }
            }
        }
        // First: what the hub is told of is served.
        self.kinds_now.send_replace(Arc::new(allowed));
        let told = discovery(&kinds, policy, &known.version);
        self.feed.set_discovery(told, definitions);
        left_out
    }
}

pub(super) fn git_version(version: &[u8]) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(version).ok();
    let told = parsed
        .as_ref()
        .and_then(|v| v.get("gitVersion"))
        .and_then(|v| v.as_str());
    told.unwrap_or_default().chars().take(64).collect()
}
