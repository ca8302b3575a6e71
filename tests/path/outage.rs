//! A real engine that is away: what is held stays in use, for as long as was agreed.
use std::time::Duration;

use tokio::time::Instant;

use crate::support::capture::Entry;
use crate::support::cut_over::{CutOver, Sort, added, config_map};
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

/// The same with an engine that is away for hours: for how long, and how long its credential is used.
const LONG_AWAY: Duration = Duration::from_hours(2);
const LONG_MAX_STALE: Duration = Duration::from_mins(90);
const LONG_BETWEEN: Duration = Duration::from_secs(5);

/// From when on the engine is asked as seldom as it ever is, and how seldom that is.
const AT_THE_CAP: Duration = Duration::from_mins(30);
const CAP: Duration = Duration::from_mins(5);

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
        // Longer than any test here, so that none ends by itself.
        let query = format!("watch=1&timeoutSeconds={}", 2 * LONG_AWAY.as_secs());
        let mut watches = Vec::new();
        for _ in 0..WATCHES {
            let watching = Api::of(client.https());
            watches.push(watching.watch(&format!("{path}?{query}")).await);
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

    /// Operations until `end`, at each of which the account is ACTIVE, and which all watches tell.
    async fn go_on(&mut self, lab: &CutOver, end: Instant) {
        while Instant::now() < end {
            self.create().await;
            assert_eq!(lab.stand.account("shop").await["state"], "ACTIVE");
            idle(BETWEEN).await;
        }
        self.all_told().await;
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

/// How often the agent has asked the engine, as it recorded.
fn fetches(lab: &CutOver) -> usize {
    let log = lab.stand.agent.log();
    let fetch = |entry: &Entry| entry.text("action") == Some("secret-fetch");
    log.entries().filter(fetch).count()
}

#[tokio::test]
async fn what_must_not_be_used_without_its_engine_suspends_its_account_until_that_is_back() {
    let (mut lab, planted) = CutOver::start(Sort::Token, ", credential-max-stale: 0s").await;
    let client = Client::read(&lab.stand.kubeconfig("shop", "watcher").await);
    let path = format!("{}{}?watch=1", client.path, lab.objects());
    let mut watch = Api::of(client.https()).watch(&path).await;
    lab.bao.server().kill().await;
    suspended(&lab, LIMIT).await;
    // It was opened with what is given up.
    watch.end().await;
    lab.assert_gone(&planted).await;
    // It is asked for again meanwhile, which changes nothing.
    let before = fetches(&lab);
    eventually("the engine is asked again", || {
        (fetches(&lab) > before).then_some(())
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
    uses.go_on(&lab, gone + AWAY).await;
    let well = recovered(&mut lab).await;
    println!(
        "away for {AWAY:?}: {} operations, well {well:?} after its return",
        uses.made.len()
    );

    lab.bao.server().kill().await;
    let gone = Instant::now();
    uses.go_on(&lab, gone + NOT_YET).await;
    assert_eq!(lab.testbed.lists(), lists, "nothing was listed again");
    suspended(&lab, AT_LAST.saturating_sub(gone.elapsed())).await;
    let given_up = gone.elapsed();
    let well = recovered(&mut lab).await;
    println!("away for longer: given up after {given_up:?}, well {well:?} after its return");
}

#[tokio::test]
#[ignore = "takes two hours: `.ci/soak long-outage` runs it"]
async fn an_engine_that_is_away_for_two_hours_costs_nothing_until_its_credential_is_given_up() {
    let more = format!(", credential-max-stale: {}s", LONG_MAX_STALE.as_secs());
    // A certificate outlasts the test; a token of the API server would not.
    let (mut lab, _planted) = CutOver::start(Sort::Certificate, &more).await;
    let mut uses = Uses::of(&lab).await;
    let lists = lab.testbed.lists();

    lab.bao.server().kill().await;
    let gone = Instant::now();
    let mut at_the_cap = None;
    while gone.elapsed() + Duration::from_secs(3) < LONG_MAX_STALE {
        uses.create().await;
        uses.all_told().await;
        assert_eq!(lab.stand.account("shop").await["state"], "ACTIVE");
        if gone.elapsed() >= AT_THE_CAP && at_the_cap.is_none() {
            at_the_cap = Some((Instant::now(), fetches(&lab)));
        }
        idle(LONG_BETWEEN.min(LONG_MAX_STALE.saturating_sub(gone.elapsed()))).await;
    }
    assert_eq!(lab.testbed.lists(), lists, "nothing was listed again");
    suspended(&lab, Duration::from_secs(8)).await;
    let given_up = gone.elapsed();
    while gone.elapsed() < LONG_AWAY {
        assert_eq!(lab.stand.account("shop").await["state"], "SUSPENDED");
        idle(LONG_BETWEEN).await;
    }
    let (since, before) = at_the_cap.expect("the cap is reached before the credential is given up");
    let (asked, time) = (fetches(&lab) - before, since.elapsed());
    assert!(
        time.as_secs() >= asked.saturating_sub(1) as u64 * CAP.as_secs(),
        "{asked} times within {time:?}"
    );
    let well = recovered(&mut lab).await;
    println!(
        "away for {LONG_AWAY:?}: {} operations told by {WATCHES} watches, given up after \
         {given_up:?}, asked {asked} times in the last {time:?}, well {well:?} after its return",
        uses.made.len()
    );
}
