//! The Kubernetes control plane, its clients and its end.

use serde_json::json;

use crate::support::kubectl::Kubectl;
use crate::support::testbed::Testbed;

#[tokio::test]
async fn a_released_kubectl_lists_the_namespaces() {
    let cluster = Testbed::shared().await.cluster();
    let mine = cluster.api().namespace("listed").await;
    let kubectl = Kubectl::pinned(33, &cluster.kubeconfig);
    let names = kubectl.ok(&["get", "namespaces", "-o", "name"]).await;
    let wanted = format!("namespace/{mine}");
    assert!(names.lines().any(|name| name == wanted), "{names}");
}

#[tokio::test]
async fn a_watch_tells_what_is_created_patched_and_deleted() {
    let api = Testbed::shared().await.cluster().api();
    let namespace = api.namespace("watched").await;
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let version = api.get(&maps).await["metadata"]["resourceVersion"].clone();
    let since = version.as_str().unwrap();
    let mut watch = api
        .watch(&format!(
            "{maps}?watch=1&resourceVersion={since}&fieldSelector=metadata.name=m"
        ))
        .await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    api.create(&maps, &map).await;
    api.patch(&format!("{maps}/m"), &json!({"data": {"k": "v"}}))
        .await;
    api.delete(&format!("{maps}/m")).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(watch.next().await.unwrap()["type"].clone());
    }
    assert_eq!(seen, ["ADDED", "MODIFIED", "DELETED"]);
}

#[tokio::test]
async fn a_killed_control_plane_comes_back_with_its_objects_at_its_port() {
    let mut testbed = Testbed::start(&["-nodes", "0"]).await;
    let url = testbed.cluster().url.clone();
    let namespace = testbed.cluster().api().namespace("kept").await;
    testbed.kill().await;
    testbed.start_again().await;
    assert_eq!(testbed.cluster().url, url);
    let path = format!("/api/v1/namespaces/{namespace}");
    let kept = testbed.cluster().api().get(&path).await;
    assert_eq!(kept["metadata"]["name"], json!(namespace));
}

#[tokio::test]
async fn the_audit_log_names_who_asked_for_what() {
    let testbed = Testbed::start_audited(&["-nodes", "0", "-controllers=false"]).await;
    let api = testbed.cluster().api();
    api.get("/api/v1/namespaces/default/pods").await;
    let listed = |entry: &serde_json::Value| {
        entry["verb"] == "list"
            && entry["objectRef"]["resource"] == "pods"
            && entry["user"]["username"] == "testbed-admin"
    };
    crate::support::eventually::eventually("the list is in the audit log", || {
        testbed.audit().iter().any(listed).then_some(())
    })
    .await;
}
