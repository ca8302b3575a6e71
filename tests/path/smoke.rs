//! The shortest way through everything.

use crate::support::kubectl::Kubectl;
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::Testbed;

#[tokio::test]
async fn kubectl_reads_and_writes_a_cluster_through_agent_and_hub() {
    let testbed = Testbed::shared().await;
    let cluster = testbed.cluster();
    let namespace = cluster.api().namespace("smoke").await;
    let stand = Stand::start(Plan::one("lab", &cluster.kubeconfig, "")).await;
    let kubeconfig = stand.kubeconfig("lab", "visitor").await;
    let kubectl = Kubectl::pinned(33, &kubeconfig);
    let deployment = [
        "create",
        "deployment",
        "web",
        "--image=example.com/web:1",
        "-n",
        &namespace,
    ];
    kubectl.ok(&deployment).await;
    let seen = kubectl
        .ok(&["get", "deployments", "-n", &namespace, "-o", "name"])
        .await;
    assert_eq!(seen.trim(), "deployment.apps/web");
    kubectl
        .ok(&["scale", "deployment/web", "--replicas=2", "-n", &namespace])
        .await;
    let replicas = [
        "get",
        "deployment",
        "web",
        "-n",
        &namespace,
        "-o",
        "jsonpath={.spec.replicas}",
    ];
    assert_eq!(kubectl.ok(&replicas).await, "2");
}
