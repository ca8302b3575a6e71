//! What comes back by itself and what does not: agents, hubs, accounts.
#![expect(clippy::expect_used, reason = "helpers of tests fail their test")]

use std::fs;

use bytes::Bytes;
use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::double::{Double, Settings};
use crate::support::eventually::{bounded, eventually, eventually_async};
use crate::support::fake::Client;
use crate::support::kube::Api;
use crate::support::kubectl::Kubectl;
use crate::support::sortie::{Sortie, http_get};
pub(crate) use crate::support::stand::keep_addresses;
use crate::support::stand::{self, Plan, Stand};
use crate::support::testbed::Testbed;

/// Gives an agent that has been stopped a folder of its own for its identity.
fn with_state(agent: &Sortie) {
    let text = fs::read_to_string(agent.config_file()).expect("readable");
    let state = agent.folder().join("identity");
    let text = format!("state-dir: {}\n{text}", state.display());
    fs::write(agent.config_file(), text).expect("writable");
}

/// A stand whose agent keeps its identity, and which is ACTIVE.
async fn lasting(plan: Plan) -> Stand {
    let mut stand = Stand::joining(plan.clone()).await;
    stand.agent.stop().await;
    with_state(&stand.agent);
    // The key of the first start is gone, and the token with it.
    let join = stand.hub.folder().join("lab.join");
    fs::remove_file(&join).expect("it was there");
    let join = join.display().to_string();
    let mut create = vec!["token", "create", "lab", "--out", &join];
    for account in &plan.accounts {
        create.extend(["--account", account]);
    }
    stand::ok(stand.hub.command(&create).await);
    stand.agent.start_again();
    stand
}

#[tokio::test]
async fn an_agent_that_joined_by_token_comes_back_with_a_state_folder_and_says_why_not_without() {
    let cluster = Testbed::shared().await.cluster();
    let mut stand = Stand::start(Plan::one("lab", &cluster.kubeconfig, "")).await;
    stand.agent.kill().await;
    stand.wait("lab", "STALE").await;
    stand.agent.start_again();
    assert_eq!(stand.agent.ended().await, 77, "{:?}", stand.agent.log());
    let log = fs::read_to_string(stand.agent.folder().join("agent-1.err")).unwrap();
    assert!(log.contains("`state-dir`"), "{log}");
    assert!(
        log.contains("`sortie token create lab` makes a new one"),
        "{log}"
    );
    assert_eq!(stand.hub.log().refusals("TokenUsed", "agent=\"lab\""), 1);

    let mut stand = lasting(Plan::one("lab", &cluster.kubeconfig, "")).await;
    stand.wait("lab", "ACTIVE").await;
    for _ in 0..2 {
        stand.agent.kill().await;
        stand.wait("lab", "STALE").await;
        stand.agent.start_again();
        let started = Instant::now();
        stand.wait("lab", "ACTIVE").await;
        println!("ACTIVE {:?} after the start", started.elapsed());
        assert!(started.elapsed() <= stand::BACK);
    }
}

#[tokio::test]
async fn an_agent_that_is_pointed_at_another_hub_joins_there() {
    let cluster = Testbed::shared().await.cluster();
    let plan = Plan::one("lab", &cluster.kubeconfig, "");
    let mut stand = lasting(plan.clone()).await;
    stand.wait("lab", "ACTIVE").await;
    stand.agent.stop().await;
    let other = stand::hub(plan.agent_ttl).await;
    let join = stand.hub.folder().join("lab.join");
    fs::remove_file(&join).expect("it was there");
    let join = join.display().to_string();
    let create = ["token", "create", "lab", "--account", "lab", "--out", &join];
    stand::ok(other.command(&create).await);
    stand.agent.start_again();
    stand::wait(&other, &stand.agent, "lab", "ACTIVE").await;
    let told = "the kept identity is of no use at this hub; joining anew";
    assert!(stand.agent.log().find(told).is_some());
    // It is kept in the place of the one before.
    stand.agent.stop().await;
    stand.agent.start_again();
    stand::wait(&other, &stand.agent, "lab", "ACTIVE").await;
    assert_eq!(
        other
            .log()
            .entries()
            .filter(|it| it.text("action") == Some("enrol"))
            .count(),
        1
    );
}

/// A Service with one port.
pub(crate) fn service(name: &str) -> Value {
    let spec = json!({"ports": [{"port": 80}]});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_hub_that_was_killed_serves_what_it_knew_and_goes_on_without_a_list() {
    let testbed = Testbed::start_audited(&[]).await;
    let cluster = testbed.cluster();
    let namespace = cluster.api().namespace("restart").await;
    let services = format!("/api/v1/namespaces/{namespace}/services");
    let mut stand = Stand::joining(Plan::one("lab", &cluster.kubeconfig, "")).await;
    keep_addresses(&stand.hub).await;
    stand.wait("lab", "ACTIVE").await;
    let kubeconfig = stand.kubeconfig("lab", "visitor").await;
    let kubectl = Kubectl::pinned(33, &kubeconfig);
    let get = ["get", "services", "-n", &namespace, "-o", "name"];
    cluster.api().create(&services, &service("before")).await;
    let seen = async |name: &str| {
        let path = format!("service/{name}");
        eventually_async(&path, async || {
            let ran = kubectl.run(&get).await;
            ran.stdout.contains(&path).then_some(())
        })
        .await;
    };
    seen("before").await;
    let write = async |name: &str| {
        cluster.api().create(&services, &service(name)).await;
    };
    checkpointed(&stand.hub, write).await;
    let before = testbed.lists();
    assert!(
        !before.is_empty(),
        "the agent's requests are in the audit log"
    );

    stand.agent.pause(true);
    stand.hub.kill().await;
    stand.hub.start_again();
    stand.hub.ready().await;
    let row = stand.account("lab").await;
    assert_eq!(
        (&row["state"], &row["reason"]),
        (&json!("STALE"), &json!("AgentAway")),
        "{row}"
    );
    assert!(kubectl.ok(&get).await.contains("service/before"));
    let client = Client::read(&kubeconfig);
    let (https, path) = (client.https(), format!("{}{services}", client.path));
    let asking = https.open(Method::GET, &path, "application/json", Bytes::new());
    let answer = asking.await.unwrap();
    assert_eq!(answer.status(), 200);
    let age = answer
        .headers()
        .get("age")
        .and_then(|age| age.to_str().ok());
    let age: Option<u64> = age.and_then(|age| age.parse().ok());
    assert!(age.is_some(), "{:?}", answer.headers());

    cluster.api().create(&services, &service("meanwhile")).await;
    stand.agent.pause(false);
    stand.wait("lab", "ACTIVE").await;
    seen("meanwhile").await;
    let after = testbed.lists();
    eprintln!(
        "lists before the kill {}, after it {}",
        before.len(),
        after.len() - before.len()
    );
    assert_eq!(after[before.len()..], [] as [String; 0]);
    // It waited for what this hub, too, makes of the account, and needed one link.
    assert_eq!(stand.hub.log().refusals("NotAccepted", "lab"), 0);
}

/// Waits until all that the hub shows now is in its store: until the second write from here on.
pub(crate) async fn checkpointed(hub: &Sortie, change: impl AsyncFn(&str)) {
    let file = hub.folder().join("state").join(sortie::hub::STORE_FILE);
    let written = || fs::metadata(&file).and_then(|meta| meta.modified()).ok();
    for name in ["tick-1", "tick-2"] {
        let since = written();
        change(name).await;
        eventually("a checkpoint", || (written() > since).then_some(())).await;
    }
}

#[tokio::test]
async fn an_account_waits_for_approval_and_is_suspended_and_approved_by_hand() {
    let cluster = Testbed::shared().await.cluster();
    let mut plan = Plan::one("lab", &cluster.kubeconfig, "");
    plan.accounts.clear();
    let stand = Stand::joining(plan).await;
    stand.wait("lab", "PENDING").await;
    let kubectl = Kubectl::pinned(33, &stand.kubeconfig("lab", "visitor").await);
    let get = ["get", "namespaces", "-o", "name"];
    let pending = kubectl.run(&get).await;
    assert_ne!(pending.code, Some(0), "{pending:?}");
    stand::ok(stand.hub.command(&["account", "approve", "lab"]).await);
    stand.wait("lab", "ACTIVE").await;
    assert!(kubectl.ok(&get).await.contains("namespace/kube-system"));

    let client = Client::read(&stand.kubeconfig("lab", "watcher").await);
    let path = format!("{}/api/v1/namespaces/none/services?watch=1", client.path);
    let mut watch = Api::of(client.https()).watch(&path).await;

    stand::ok(stand.hub.command(&["account", "suspend", "lab"]).await);
    stand.wait("lab", "SUSPENDED").await;
    watch.end().await;
    let suspended = kubectl.run(&["get", "services", "-A"]).await;
    assert_ne!(suspended.code, Some(0), "{suspended:?}");
    // The cluster changes meanwhile.
    let while_suspended = cluster.api().namespace("suspended").await;
    stand::ok(stand.hub.command(&["account", "approve", "lab"]).await);
    stand.wait("lab", "ACTIVE").await;
    eventually_async("what changed while it was suspended", async || {
        let listed = kubectl.run(&get).await.stdout;
        listed.contains(&while_suspended).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_account_whose_kubeconfig_points_at_another_cluster_is_suspended_until_approved() {
    let testbed = Testbed::start(&["-clusters", "2"]).await;
    let [first, second] = testbed.clusters() else {
        panic!("two clusters")
    };
    let path = "/api/v1/namespaces/default/services";
    first.api().create(path, &service("of-the-first")).await;
    second.api().create(path, &service("of-the-second")).await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    fs::copy(&first.kubeconfig, &kubeconfig).unwrap();
    let stand = Stand::start(Plan::one("lab", &kubeconfig, "")).await;
    let kubectl = Kubectl::pinned(33, &stand.kubeconfig("lab", "visitor").await);
    let get = ["get", "services", "-n", "default", "-o", "name"];
    assert!(kubectl.ok(&get).await.contains("of-the-first"));
    let uid = stand.account("lab").await["cluster-uid"].clone();

    // The agent looks at its file every ten seconds; nobody restarts it.
    fs::copy(&second.kubeconfig, &kubeconfig).unwrap();
    stand.wait("lab", "SUSPENDED").await;
    let row = stand.account("lab").await;
    assert_eq!(row["reason"], "ClusterChanged", "{row}");
    assert_eq!(row["cluster-uid"], uid);
    let log = stand.agent.log();
    let lost = log.find("not connected to the hub");
    assert!(lost.is_none(), "other accounts of the link go on: {lost:?}");
    let refused = kubectl.run(&get).await;
    assert!(!refused.stdout.contains("of-the-second"), "{refused:?}");
    stand::ok(stand.hub.command(&["account", "approve", "lab"]).await);
    stand.wait("lab", "ACTIVE").await;
    let listed = kubectl.ok(&get).await;
    assert!(
        listed.contains("of-the-second") && !listed.contains("of-the-first"),
        "{listed}"
    );
    let row: Value = stand.account("lab").await;
    assert_ne!(row["cluster-uid"], uid);
}

#[tokio::test]
async fn an_operation_that_runs_when_its_agent_is_told_to_stop_is_answered() {
    let double = Double::start(Settings {
        objects: vec![("services", 1)],
        ..Settings::default()
    });
    let stand = Stand::start(Plan::one("lab", &double.write_kubeconfig(), "")).await;
    let client = Client::read(&stand.kubeconfig("lab", "visitor").await);
    let path = format!(
        "{}/api/v1/namespaces/ns-0/services/services-000000",
        client.path
    );
    let (https, body) = (
        client.https(),
        Bytes::from_static(b"{\"metadata\":{\"labels\":{\"a\":\"b\"}}}"),
    );
    double.freeze(true);
    let patching = https.send(Method::PATCH, &path, "application/merge-patch+json", body);
    let stopping = async {
        eventually("the API server was asked", || {
            (double.count("patch", "services") > 0).then_some(())
        })
        .await;
        let agent = Pid::from_raw(stand.agent.pid()).expect("a process");
        kill_process(agent, Signal::TERM).expect("it runs");
        stand.wait("lab", "STALE").await;
        double.freeze(false);
        stand.agent.ended().await
    };
    let (answer, exit) = tokio::join!(bounded("the answer", patching), stopping);
    let answer = answer.unwrap();
    assert_eq!(
        answer.status,
        200,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    assert_eq!(exit, 0);
}

#[tokio::test]
async fn an_operation_whose_agent_dies_is_answered_with_what_is_known() {
    let double = Double::start(Settings {
        objects: vec![("services", 1)],
        ..Settings::default()
    });
    let mut stand = Stand::start(Plan::one("lab", &double.write_kubeconfig(), "")).await;
    let client = Client::read(&stand.kubeconfig("lab", "visitor").await);
    let path = format!(
        "{}/api/v1/namespaces/ns-0/services/services-000000",
        client.path
    );
    let https = client.https();
    let patch = || {
        let body = Bytes::from_static(b"{\"metadata\":{\"labels\":{\"a\":\"b\"}}}");
        https.send(Method::PATCH, &path, "application/merge-patch+json", body)
    };
    double.freeze(true);
    let dying = async {
        eventually("the API server was asked", || {
            (double.count("patch", "services") > 0).then_some(())
        })
        .await;
        stand.agent.kill().await;
    };
    let (answer, ()) = tokio::join!(bounded("the answer", patch()), dying);
    let answer = answer.unwrap();
    let told = answer.json()["message"].to_string();
    println!("{} {told}", answer.status);
    assert_eq!(answer.status, 504, "sent, and nobody knows: {told}");
    assert!(told.contains("its outcome is not known"), "{told}");

    stand.wait("lab", "STALE").await;
    let answer = bounded("the answer", patch()).await.unwrap();
    let told = answer.json()["message"].to_string();
    println!("{} {told}", answer.status);
    assert_eq!(answer.status, 503, "never sent: {told}");
    let reading = https.send(Method::GET, &path, "application/json", Bytes::new());
    let answer = bounded("the answer", reading).await.unwrap();
    assert_eq!(answer.status, 200, "what is known is served");
}

#[tokio::test]
async fn a_cluster_that_is_gone_is_told_and_served_as_it_was_until_it_is_back() {
    let mut testbed = Testbed::start_audited(&[]).await;
    let api = testbed.cluster().api();
    let namespace = api.namespace("gone").await;
    let services = format!("/api/v1/namespaces/{namespace}/services");
    api.create(&services, &service("before")).await;
    let plan = Plan::one("lab", &testbed.cluster().kubeconfig, "");
    let stand = Stand::start(plan).await;
    let kubectl = Kubectl::pinned(33, &stand.kubeconfig("lab", "visitor").await);
    let get = ["get", "services", "-n", &namespace, "-o", "name"];
    assert!(kubectl.ok(&get).await.contains("service/before"));

    testbed.kill().await;
    stand.wait("lab", "STALE").await;
    let address = testbed.cluster().url.trim_start_matches("https://");
    let row = eventually_async("the address is named", async || {
        let row = stand.account("lab").await;
        let named = row["message"].as_str()?.contains(address);
        named.then_some(row)
    })
    .await;
    assert_eq!(row["reason"], "ApiUnreachable", "{row}");
    assert!(kubectl.ok(&get).await.contains("service/before"));
    let create = ["create", "service", "clusterip", "late", "--tcp=80"];
    let refused = kubectl
        .run(&[&create[..], &["-n", &namespace]].concat())
        .await;
    assert_ne!(refused.code, Some(0));
    println!("{row}\n{}", refused.stderr);

    let before = testbed.lists().len();
    testbed.start_again().await;
    stand.wait("lab", "ACTIVE").await;
    let api = testbed.cluster().api();
    api.create(&services, &service("after")).await;
    eventually_async("the new service", async || {
        let listed = kubectl.run(&get).await.stdout;
        listed.contains("service/after").then_some(())
    })
    .await;
    // A new server's cache begins now: what it answers 410, as a watch's event, has to be read
    // anew, and nothing else.
    let after = testbed.lists().split_off(before);
    let expired = figure(&stand.agent, "sortie_stream_expired_total").await;
    println!("{} lists, {expired} answers of 410", after.len());
    assert!(after.len() <= expired, "{after:?}");
}

/// The sum of a metric over all its labels.
pub(crate) async fn figure(server: &Sortie, name: &str) -> usize {
    let address = server.address("metrics").await;
    let text = http_get(address, "/metrics").await.expect("metrics");
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}
