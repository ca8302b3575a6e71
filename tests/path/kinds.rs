//! Kinds that come while an account is served.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::support::double::{Change, Double, Fault, Settings};
use crate::support::eventually::{eventually, eventually_async};
use crate::support::facade::Facade;
use crate::support::kube::definition;
use crate::support::stand::{self, Plan, Stand};
use crate::support::testbed::Testbed;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// How often: each time another phase of the agent's asking is met.
const ROUNDS: usize = 4;

/// How long an answer of an API server is waited for.
const UNANSWERED: Duration = Duration::from_secs(30);

/// What Helm does with a chart that brings a definition and an object of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_is_there_for_whoever_has_seen_its_definition() {
    let testbed = Testbed::start(&["-nodes", "0", "-controllers=false"]).await;
    let more = "    kinds: { live: [\"*\"] }\n";
    let stand = Stand::start(Plan::one("lab", &testbed.cluster().kubeconfig, more)).await;
    let facade = Facade::of(&stand.kubeconfig("lab", "visitor").await);
    for round in 0..ROUNDS {
        let (group, plural) = (format!("round-{round}.example.org"), "gadgets");
        let defined = format!("{DEFINITIONS}/{plural}.{group}");
        let created = facade
            .send(
                Method::POST,
                DEFINITIONS,
                "application/json",
                &definition(&group, "gadget"),
            )
            .await;
        created.success();
        eventually_async("the definition is established", async || {
            let conditions = facade.get(&defined).await["status"]["conditions"].take();
            let mut conditions = conditions.as_array()?.iter();
            conditions
                .any(|it| it["type"] == "Established" && it["status"] == "True")
                .then_some(())
        })
        .await;
        assert!(knows(&facade, &group).await, "round {round}");
        let object = json!({"apiVersion": format!("{group}/v1"), "kind": "Gadget",
            "metadata": {"name": "first"}});
        let path = format!("/apis/{group}/v1/namespaces/default/{plural}");
        let created = facade
            .send(Method::POST, &path, "application/json", &object)
            .await;
        created.success();
        testbed.cluster().api().delete(&defined).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_takes_over_knows_the_kinds_that_came_while_it_waited() {
    let testbed = Testbed::start(&["-nodes", "0", "-controllers=false"]).await;
    let more = "    kinds: { live: [\"*\"] }\n";
    let plan = Plan::one("lab", &testbed.cluster().kubeconfig, more);
    let hub = stand::hub(plan.agent_ttl).await;
    let mut active = stand::agent(&hub, "lab", &plan).await;
    stand::wait(&hub, &active, "lab", "ACTIVE").await;
    let standby = stand::standby(&hub, "lab", &plan, "").await;
    let facade = Facade::of(&stand::kubeconfig(&hub, "lab", "visitor").await);
    let group = "late.example.org";
    let is_there = async || knows(&facade, group).await.then_some(());
    testbed
        .cluster()
        .api()
        .create(DEFINITIONS, &definition(group, "gadget"))
        .await;
    eventually_async("the new kind is told", is_there).await;
    active.kill().await;
    eventually_async("the other instance serves alone", async || {
        (stand::instances(&hub).await == ["ACTIVE"]).then_some(())
    })
    .await;
    stand::wait(&hub, &standby, "lab", "ACTIVE").await;
    eventually_async("it is told again", is_there).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_an_account_is_told_while_its_kinds_are_asked_for() {
    let cluster = Double::start(Settings {
        objects: vec![("customresourcedefinitions", 1)],
        ..Settings::default()
    });
    let stand = Stand::start(Plan::one("lab", &cluster.write_kubeconfig(), "")).await;
    let asked = || cluster.count("other", "/version");
    let before = asked();
    cluster.fault("/version", Fault::Hang);
    cluster.change("customresourcedefinitions", 0, Change::Modified);
    eventually("the kinds are asked for", || {
        (asked() > before).then_some(())
    })
    .await;
    let since = Instant::now();
    cluster.fault("/api", Fault::Status(503));
    cluster.close_watches();
    stand.wait("lab", "STALE").await;
    assert!(since.elapsed() < UNANSWERED / 2, "{:?}", since.elapsed());
}

/// Whether the account's discovery has the group.
async fn knows(facade: &Facade, group: &str) -> bool {
    let groups = facade.get("/apis").await;
    let mut groups = groups["groups"].as_array().expect("a list").iter();
    groups.any(|it| it["name"] == group)
}
