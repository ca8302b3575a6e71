//! Runs the worker of one account, again after a panic, until it is told to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::AccountSettings;
use super::accounts::Status;
use super::worker::Worker;
use crate::retry::{Backoff, pause_unless};
use crate::tasks::Tasks;

/// First and longest pause before a worker that panicked is run again. After as long without a panic
/// they begin anew.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// Time that the tasks of a failed worker get.
const GRACE: Duration = Duration::from_secs(5);

/// Time that operations get which still run when their account is taken off.
const OPERATIONS: Duration = Duration::from_secs(10);

/// Runs a worker, and runs it again after a panic, until `stop`.
pub(super) async fn supervise(worker: Worker, owner: Tasks, stop: CancellationToken) {
    tell_relaxations(&worker.settings);
    let entropy = Arc::clone(&worker.entropy);
    let mut backoff = Backoff::new(AGAIN.0, AGAIN.1, entropy);
    let mut well_since = Instant::now();
    // Followed from one worker to the next: what nobody follows is wiped, and what was given up would
    // be asked for as if it had never been there.
    let mut followed = worker.store.follow(&worker.settings.source);
    loop {
        let credential = followed.published();
        let tasks = owner.child();
        let connections = worker.connections.child();
        let one = Worker {
            connections: connections.clone(),
            ..worker.clone()
        };
        let set = tasks.clone();
        let ended = CancellationToken::new();
        let anew = ended.clone();
        tasks.spawn("worker", move |stop| one.run(credential, set, stop, anew));
        let died = tokio::select! {
            () = stop.cancelled() => {
                drop(followed);
                return leave(&worker, &tasks, &connections, &owner).await;
            }
            () = ended.cancelled() => None,
            task = tasks.died() => Some(task),
            task = connections.died() => Some(task),
        };
        // Nothing is carried over, least of all from another cluster, which the hub has to judge.
        worker.accounts.set_feed(&worker.settings.name, None);
        let pause = died.map(|task| {
            // After so long it has nothing to do with the panics before.
            if well_since.elapsed() >= AGAIN.1 {
                backoff.reset();
            }
            let pause = backoff.next_pause();
            let mut status = Status::failed("Internal", format!("task `{task}` panicked"));
            status.next_retry = Some(worker.clock.now() + pause);
            worker.tell(&BTreeMap::new(), &status);
            pause
        });
        let _all_ended = tokio::join!(tasks.drain(GRACE), connections.drain(GRACE));
        if let Some(pause) = pause {
            if !pause_unless(&stop, pause).await {
                return;
            }
            well_since = Instant::now();
        }
        // The same, unless its keeper is gone.
        followed = worker.store.follow(&worker.settings.source);
    }
}

/// What the account's kubeconfig may do besides what every kubeconfig may.
fn tell_relaxations(settings: &AccountSettings) {
    let account = &settings.name;
    let allowed = settings
        .source
        .rules()
        .map_or(&[][..], |rules| &rules.allow);
    for relaxation in allowed {
        let allows = relaxation.as_str();
        if relaxation.gives_up_tls() {
            tracing::warn!(
                account,
                allows,
                "the account's kubeconfig may give up the protection of TLS"
            );
        } else {
            tracing::info!(
                account,
                allows,
                "the account's kubeconfig is read less strictly"
            );
        }
    }
}

/// Ends what belonged to a worker that was told to stop. When the whole agent stops, its uplink
/// ends the connections, once their operations are over.
async fn leave(worker: &Worker, tasks: &Tasks, connections: &Tasks, owner: &Tasks) {
    let _all_ended = tasks.drain(GRACE).await;
    worker.accounts.set_feed(&worker.settings.name, None);
    if owner.stop().is_cancelled() {
        return;
    }
    let (connections, left) = (connections.clone(), worker.connections.clone());
    left.spawn("leave", |stop| async move {
        let operating = connections.drain_after(OPERATIONS);
        let _stopped = stop.run_until_cancelled(operating).await;
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::SystemTime;

    use tokio::sync::watch;

    use super::*;
    use crate::agent::accounts::Accounts;
    use crate::clock::{Clock, ManualClock, SharedClock, from_unix_seconds};
    use crate::credential::{Engines, Rules, Source, Store, Surroundings};
    use crate::entropy::{Fixed, SharedEntropy};
    use crate::policy::{self, AccountPolicy};
    use crate::stream::Offers;
    use crate::telemetry::health::Latches;
    use crate::wire::v1;

    const NOW: u64 = 1_000_000;

    /// Asked whenever a worker tells of its account; panics once when it is told to.
    #[derive(Debug, Default)]
    struct Treacherous(AtomicBool);

    impl Clock for Treacherous {
        fn now(&self) -> SystemTime {
            assert!(!self.0.swap(false, Ordering::Relaxed), "on purpose");
            from_unix_seconds(NOW)
        }
    }

    /// An account whose kubeconfig is not there, which its worker tells every now and then.
    struct Bench {
        clock: Arc<Treacherous>,
        offers: watch::Receiver<Arc<Offers>>,
        tasks: Tasks,
    }

    impl Bench {
        fn start() -> Self {
            let treacherous = Arc::new(Treacherous::default());
            let asked: SharedClock = Arc::<Treacherous>::clone(&treacherous);
            let accounts = Accounts::new(asked, Latches::open(&["accounts"]));
            let clock: SharedClock = Arc::new(ManualClock::new(from_unix_seconds(NOW)));
            let entropy: SharedEntropy = Arc::new(Fixed(255));
            let tasks = Tasks::new();
            let engines = Arc::new(Engines::new(Vec::new(), Surroundings::of_system()));
            let (time, chance) = (Arc::clone(&clock), Arc::clone(&entropy));
            let settings = AccountSettings {
                name: "shop".to_owned(),
                source: Source::KubeconfigFile {
                    path: "/nowhere".into(),
                    context: None,
                    rules: Rules::default(),
                },
                policy: policy::AccountSettings::default(),
                read_roles: Vec::new(),
                write_roles: Vec::new(),
            };
            let rules = policy::load().unwrap();
            let offers = accounts.offers.subscribe();
            let worker = Worker {
                policy: Arc::new(AccountPolicy::new(settings.policy.clone(), &rules)),
                settings,
                store: Arc::new(Store::new(engines, time, chance, tasks.clone())),
                accounts,
                clock,
                entropy,
                hash_key: std::hash::RandomState::new(),
                quota: Arc::default(),
                connections: Tasks::new(),
            };
            let owner = tasks.clone();
            tasks.spawn("account", move |stop| supervise(worker, owner, stop));
            Self {
                clock: treacherous,
                offers,
                tasks,
            }
        }

        fn shop(&mut self) -> v1::AccountOffer {
            let offers = self.offers.borrow_and_update();
            offers.get("shop").cloned().unwrap_or_default()
        }

        /// Lets the worker panic when it tells something next, and gives the seconds until it is run
        /// again.
        async fn pause_after_a_panic(&mut self) -> u64 {
            self.clock.0.store(true, Ordering::Relaxed);
            loop {
                self.offers.changed().await.unwrap();
                let shop = self.shop();
                if shop.reason == "Internal" {
                    return shop.next_retry - NOW;
                }
            }
        }

        /// Waits until the worker runs again, and lets it run for `time`.
        async fn run_well(&mut self, time: Duration) {
            while self.shop().reason != "KubeconfigInvalid" {
                self.offers.changed().await.unwrap();
            }
            tokio::time::advance(time).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_panics_is_run_again_ever_later_and_soon_again_after_it_ran_well() {
        let mut bench = Bench::start();
        for pause in [1, 2, 4, 8] {
            assert_eq!(bench.pause_after_a_panic().await, pause);
        }
        bench.run_well(AGAIN.1 / 2).await;
        assert_eq!(bench.pause_after_a_panic().await, 16, "not for long");
        bench.run_well(AGAIN.1).await;
        assert_eq!(bench.pause_after_a_panic().await, 1);
        assert!(bench.tasks.drain(GRACE).await);
    }
}
