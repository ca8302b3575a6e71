//! A hub whose disk is full, and has room again.

use crate::returns::{checkpointed, keep_addresses, service};
use crate::support::eventually::eventually_async;
use crate::support::kubectl::Kubectl;
use crate::support::matrix::fill_disk;
use crate::support::sortie::Sortie;
use crate::support::stand::{self, Plan, Stand};
use crate::support::testbed::Testbed;

const FAILED: &str =
    "cannot write the store; accounts are served from memory and stored when it can be";

/// How often the hub has logged `message`.
fn told(hub: &Sortie, message: &str) -> usize {
    let log = hub.log();
    let told = log
        .entries()
        .filter(|entry| entry.message() == Some(message));
    told.count()
}

#[tokio::test]
async fn a_full_disk_is_told_once_damages_nothing_and_is_left_behind() {
    let cluster = Testbed::shared().await.cluster();
    let namespace = cluster.api().namespace("disk").await;
    let services = format!("/api/v1/namespaces/{namespace}/services");
    let create = async |name: &str| {
        cluster.api().create(&services, &service(name)).await;
    };
    let mut stand = Stand::joining(Plan::one("lab", &cluster.kubeconfig, "")).await;
    keep_addresses(&stand.hub).await;
    stand.wait("lab", "ACTIVE").await;
    let kubectl = Kubectl::pinned(33, &stand.kubeconfig("lab", "visitor").await);
    let shown = async || {
        kubectl
            .ok(&["get", "services", "-n", &namespace, "-o", "name"])
            .await
    };
    create("before").await;
    checkpointed(&stand.hub, &create).await;

    fill_disk(&stand.hub, true);
    create("while-full").await;
    stand.hub.logged(FAILED).await;
    eventually_async("what changes is still shown", async || {
        let shown = shown().await;
        shown.contains("service/while-full").then_some(())
    })
    .await;
    let refused = stand
        .hub
        .command(&["client", "create", "late", "--account", "lab"])
        .await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("the change was not made"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("is the disk full?"), "{refused:?}");
    let clients = stand::ok(stand.hub.command(&["get", "clients"]).await).stdout;
    assert!(!clients.contains("late"), "{clients}");

    fill_disk(&stand.hub, false);
    create("after").await;
    stand.hub.logged("the store can be written again").await;
    assert_eq!(told(&stand.hub, FAILED), 1);
    assert_eq!(told(&stand.hub, "the store can be written again"), 1);
    stand::ok(
        stand
            .hub
            .command(&["client", "create", "late", "--account", "lab"])
            .await,
    );
    checkpointed(&stand.hub, async |name| {
        create(&format!("again-{name}")).await;
    })
    .await;

    stand.agent.kill().await;
    stand.hub.kill().await;
    stand.hub.start_again();
    stand.hub.ready().await;
    let shown = shown().await;
    for name in ["before", "while-full", "after"] {
        assert!(shown.contains(&format!("service/{name}")), "{shown}");
    }
    let clients = stand::ok(stand.hub.command(&["get", "clients"]).await).stdout;
    assert!(clients.contains("late"), "{clients}");
}
