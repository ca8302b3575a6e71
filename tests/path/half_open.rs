//! Peers that neither answer nor end: found within 25 seconds, and served around.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::Instant;

use crate::returns::{figure, service};
use crate::support::double::{Change, Double, Settings};
use crate::support::eventually::{eventually_async, within};
use crate::support::facade::Facade;
use crate::support::stand::{self, Plan, Stand};
use crate::support::testbed::Testbed;

/// Time within which whoever depends on a frozen peer has to say so.
const FOUND: Duration = Duration::from_secs(25);

/// Time within which another instance has to take over.
const LOST: Duration = Duration::from_secs(30);

fn freeze(pid: i32, frozen: bool) {
    let pid = Pid::from_raw(pid).expect("a process");
    let signal = if frozen { Signal::STOP } else { Signal::CONT };
    kill_process(pid, signal).expect("it runs");
}

/// Waits until the account has a state; gives its row.
async fn becomes(stand: &Stand, state: &str) -> Value {
    let what = format!("the account is {state}");
    within(FOUND, &what, async || {
        let row = stand.account("lab").await;
        (row["state"] == state).then_some(row)
    })
    .await
}

fn lists(double: &Double) -> u64 {
    double.count_all("list")
}

#[tokio::test]
async fn watches_that_fall_silent_are_opened_again_without_a_list() {
    let double = Double::start(Settings {
        objects: vec![("services", 3)],
        changing: true,
        ..Settings::default()
    });
    let stand = Stand::start(Plan::one("lab", &double.write_kubeconfig(), "")).await;
    let facade = Facade::of(&stand.kubeconfig("lab", "visitor").await);
    // Two bookmarks of a watch tell how often they come, each second here.
    let before = (double.count("watch", "services"), lists(&double));
    crate::support::eventually::idle(Duration::from_secs(3)).await;
    double.silence_watches();
    let silenced = Instant::now();
    let version = double.change("services", 1, Change::Modified);
    within(FOUND, "the change is seen", async || {
        let list = facade.get("/api/v1/services").await;
        let items = list["items"].as_array()?.clone();
        let versions = items
            .iter()
            .filter_map(|item| item["metadata"]["resourceVersion"].as_str());
        versions
            .into_iter()
            .any(|seen| seen == version.to_string())
            .then_some(())
    })
    .await;
    println!(
        "seen {:?} after the watches fell silent",
        silenced.elapsed()
    );
    let silent = figure(&stand.agent, "sortie_stream_silent_total").await;
    assert!(silent >= 1, "{silent}");
    assert_eq!(lists(&double), before.1);
    assert!(double.count("watch", "services") > before.0);
    assert_eq!(stand.account("lab").await["state"], "ACTIVE");
}

#[tokio::test]
async fn a_frozen_agent_is_told_as_away_and_goes_on_when_it_thaws() {
    let cluster = Testbed::shared().await.cluster();
    let stand = Stand::start(Plan::one("lab", &cluster.kubeconfig, "")).await;
    let facade = Facade::of(&stand.kubeconfig("lab", "visitor").await);
    freeze(stand.agent.pid(), true);
    let frozen = Instant::now();
    let row = becomes(&stand, "STALE").await;
    println!("STALE after {:?}: {row}", frozen.elapsed());
    assert_eq!(row["reason"], "AgentAway", "{row}");
    let served = facade.get("/api/v1/namespaces").await;
    assert!(
        served["items"]
            .as_array()
            .is_some_and(|items| !items.is_empty())
    );
    freeze(stand.agent.pid(), false);
    stand.wait("lab", "ACTIVE").await;
}

#[tokio::test]
async fn a_frozen_hub_is_found_by_its_agent_which_comes_back_when_it_thaws() {
    let cluster = Testbed::shared().await.cluster();
    let stand = Stand::start(Plan::one("lab", &cluster.kubeconfig, "")).await;
    freeze(stand.hub.pid(), true);
    let frozen = Instant::now();
    within(FOUND, "the agent finds its hub frozen", async || {
        stand.agent.log().find("not connected to the hub")
    })
    .await;
    println!("found after {:?}", frozen.elapsed());
    freeze(stand.hub.pid(), false);
    stand.wait("lab", "ACTIVE").await;
}

#[tokio::test]
async fn a_frozen_api_server_is_told_and_its_account_served_as_it_was() {
    let testbed = Testbed::start_audited(&["-nodes", "0", "-controllers=false"]).await;
    let api = testbed.cluster().api();
    let services = "/api/v1/namespaces/default/services";
    api.create(services, &service("before")).await;
    let stand = Stand::start(Plan::one("lab", &testbed.cluster().kubeconfig, "")).await;
    let kubeconfig = stand.kubeconfig("lab", "visitor").await;
    let before = testbed.lists();
    freeze(testbed.server().pid(), true);
    let frozen = Instant::now();
    let row = becomes(&stand, "STALE").await;
    println!("STALE after {:?}: {row}", frozen.elapsed());
    assert_eq!(row["reason"], "ApiUnreachable", "{row}");
    assert!(shows(&kubeconfig, "before").await);
    freeze(testbed.server().pid(), false);
    stand.wait("lab", "ACTIVE").await;
    api.create(services, &service("after")).await;
    eventually_async("what was made since is seen", async || {
        shows(&kubeconfig, "after").await.then_some(())
    })
    .await;
    assert_eq!(testbed.lists(), before);
}

#[tokio::test]
async fn a_frozen_instance_is_replaced_by_the_one_that_waits_and_waits_itself_when_it_thaws() {
    let double = Double::start(Settings {
        objects: vec![("services", 3)],
        ..Settings::default()
    });
    let plan = Plan::one("lab", &double.write_kubeconfig(), "");
    let stand = Stand::start(plan.clone()).await;
    let lists = lists(&double);
    let other = stand::standby(&stand.hub, "lab", &plan, "").await;
    assert_eq!(
        double.count("watch", "services"),
        1,
        "who waits watches nothing"
    );
    freeze(stand.agent.pid(), true);
    let frozen = Instant::now();
    within(LOST, "the other instance has the account", async || {
        (double.count("watch", "services") == 2).then_some(())
    })
    .await;
    stand.wait("lab", "ACTIVE").await;
    println!("taken over {:?} after the freeze", frozen.elapsed());
    freeze(stand.agent.pid(), false);
    eventually_async("the thawed one waits", async || {
        let mut states = stand::instances(&stand.hub).await;
        states.sort();
        (states == ["ACTIVE", "STANDBY"]).then_some(())
    })
    .await;
    let version = double.change("services", 1, Change::Modified).to_string();
    let facade = Facade::of(&stand.kubeconfig("lab", "visitor").await);
    eventually_async("the change is seen", async || {
        let list = facade.get("/api/v1/services").await;
        list.to_string().contains(&version).then_some(())
    })
    .await;
    assert_eq!(double.count_all("list"), lists);
    drop(other);
}

async fn shows(kubeconfig: &Path, name: &str) -> bool {
    let list = Facade::of(kubeconfig).get("/api/v1/services").await;
    let items = list["items"].as_array().expect("a list");
    items.iter().any(|item| item["metadata"]["name"] == name)
}
