//! A real engine that is away: what is held stays in use, for as long as was agreed.
use std::time::Duration;

use tokio::time::Instant;

use crate::cut_over::{CutOver, Sort, added, config_map};
use crate::support::capture::Entry;
use crate::support::eventually::{LIMIT, eventually, eventually_async, idle, within};
use crate::support::fake::Client;
use crate::support::kube::{Api, Watch};

/// For how long the engine is away the first time.
const AWAY: Duration = Duration::from_mins(1);

/// For how long a credential is used that its engine does not confirm.
const MAX_STALE: Duration = Duration::from_secs(90);

/// When it is not yet given up, and when at the latest: it was confirmed within the last second, and
/// the account is looked at.
const NOT_YET: Duration = Duration::from_secs(87);
const AT_LAST: Duration = Duration::from_secs(93);

/// Within which the account is well again when the engine is back.
const RECOVERY: Duration = Duration::from_secs(30);

/// Pause between two operations on the account.
const BETWEEN: Duration = Duration::from_millis(200);

/// Watches through the hub.
const WATCHES: usize = 10;

/// The account through the hub: watches, and operations that all of them have to tell.
struct Uses {
    facade: Api,
    path: String,
    watches: Vec<Watch>,
    told: usize,
    made: Vec<String>,
}

impl Uses {
    async fn of(lab: &CutOver) -> Self {
        let client = Client::read(&lab.stand.kubeconfig("shop", "user").await);
        let path = format!("{}{}", client.path, lab.objects());
        let mut watches = Vec::new();
        for _ in 0..WATCHES {
            let watching = Api::of(client.https());
            watches.push(watching.watch(&format!("{path}?watch=1")).await);
        }
        Self {
            facade: Api::of(client.https()),
            path,
            watches,
            told: 0,
            made: Vec::new(),
        }
    }

    /// An operation, which has to succeed.
    async fn create(&mut self) {
        let name = format!("r-{}", self.made.len());
        self.facade.create(&self.path, &config_map(&name)).await;
        self.made.push(name);
    }

    /// Every watch tells everything that was made since the last time.
    async fn all_told(&mut self) {
        let new = &self.made[self.told..];
        for watch in &mut self.watches {
            assert_eq!(added(watch, new.len()).await, new);
        }
        self.told = self.made.len();
    }
}

/// Starts the engine again; gives how long the account took to be well, and asserts that it was not
/// too long.
async fn recovered(lab: &mut CutOver) -> Duration {
    lab.bao.start_again().await;
    lab.bao.unseal().await;
    let back = Instant::now();
    within(RECOVERY, "the account is well again", async || {
        let row = lab.stand.account("shop").await;
        (row["state"] == "ACTIVE" && row["reason"] == "").then_some(())
    })
    .await;
    back.elapsed()
}

/// Waits until the account is suspended because its credential was given up.
async fn suspended(lab: &CutOver, limit: Duration) {
    within(limit, "its credential is given up", async || {
        let row = lab.stand.account("shop").await;
        (row["state"] == "SUSPENDED" && row["reason"] == "CredentialExpired").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_must_not_be_used_without_its_engine_suspends_its_account_until_that_is_back() {
    let (mut lab, planted) = CutOver::start(Sort::Token, ", credential-max-stale: 0s").await;
    lab.bao.server().kill().await;
    suspended(&lab, LIMIT).await;
    lab.assert_gone(&planted).await;
    // It is asked for again meanwhile, which changes nothing.
    let fetches = || {
        let log = lab.stand.agent.log();
        let fetch = |entry: &Entry| entry.text("action") == Some("secret-fetch");
        log.entries().filter(fetch).count()
    };
    let before = fetches();
    eventually("the engine is asked again", || {
        (fetches() > before).then_some(())
    })
    .await;
    suspended(&lab, Duration::from_secs(1)).await;
    recovered(&mut lab).await;
}

#[tokio::test]
#[ignore = "takes four minutes: `.ci/soak outage` runs it"]
async fn an_engine_is_borne_while_it_is_away_and_its_credential_given_up_when_agreed() {
    let more = format!(", credential-max-stale: {}s", MAX_STALE.as_secs());
    let (mut lab, _planted) = CutOver::start(Sort::Token, &more).await;
    let mut uses = Uses::of(&lab).await;
    let lists = lab.testbed.lists();

    lab.bao.server().kill().await;
    let gone = Instant::now();
    eventually_async("the account tells that its engine is away", async || {
        let row = lab.stand.account("shop").await;
        (row["reason"] == "EngineUnavailable").then_some(())
    })
    .await;
    while gone.elapsed() < AWAY {
        uses.create().await;
        assert_eq!(lab.stand.account("shop").await["state"], "ACTIVE");
        idle(BETWEEN).await;
    }
    uses.all_told().await;
    let well = recovered(&mut lab).await;
    println!(
        "away for {AWAY:?}: {} operations, well {well:?} after its return",
        uses.made.len()
    );

    lab.bao.server().kill().await;
    let gone = Instant::now();
    while gone.elapsed() < NOT_YET {
        uses.create().await;
        assert_eq!(lab.stand.account("shop").await["state"], "ACTIVE");
        idle(BETWEEN).await;
    }
    uses.all_told().await;
    assert_eq!(lab.testbed.lists(), lists, "nothing was listed again");
    suspended(&lab, AT_LAST.saturating_sub(gone.elapsed())).await;
    let given_up = gone.elapsed();
    let well = recovered(&mut lab).await;
    println!("away for longer: given up after {given_up:?}, well {well:?} after its return");
}
