//! Requests that create an object, though their verb is another one.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sortie::policy::CREATED_BY_UPDATE;

use crate::support::facade::Facade;
use crate::support::kube::Api;
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::Testbed;

/// The resources of one version of a group that can be updated, subresources aside.
async fn updatable(api: &Api, root: &str) -> Vec<Value> {
    let list = api.get(root).await;
    let resources = list["resources"].as_array().unwrap().iter();
    let is_updatable = |resource: &&Value| {
        let verbs = resource["verbs"].as_array().unwrap();
        verbs.contains(&json!("update")) && !resource["name"].as_str().unwrap().contains('/')
    };
    resources.filter(is_updatable).cloned().collect()
}

/// Whether an update of what is not there gets as far as to look at the object.
async fn is_created(api: &Api, root: &str, group_version: &str, resource: &Value) -> bool {
    let name = resource["name"].as_str().unwrap();
    let namespaced = resource["namespaced"] == true;
    let place = if namespaced {
        "/namespaces/default"
    } else {
        ""
    };
    let mut object = json!({
        "apiVersion": group_version, "kind": resource["kind"], "metadata": { "name": "absent" },
    });
    if namespaced {
        object["metadata"]["namespace"] = json!("default");
    }
    let path = format!("{root}{place}/{name}/absent?dryRun=All");
    let answer = api.ask(Method::PUT, &path, Some(&object)).await;
    answer.status != StatusCode::NOT_FOUND
}

#[tokio::test]
async fn an_api_server_creates_these_kinds_by_an_update() {
    let api = Testbed::shared().await.cluster().api();
    let groups = api.get("/apis").await;
    let groups = groups["groups"].as_array().unwrap().iter();
    let mut versions = vec![(String::new(), "v1".to_owned())];
    for group in groups.filter(|group| !group["name"].as_str().unwrap().contains("example")) {
        let of_group = group["versions"].as_array().unwrap().iter();
        let name = group["name"].as_str().unwrap();
        versions.extend(of_group.map(|version| {
            (
                name.to_owned(),
                version["groupVersion"].as_str().unwrap().to_owned(),
            )
        }));
    }
    let mut created = BTreeSet::new();
    for (group, group_version) in &versions {
        let root = if group.is_empty() {
            "/api/v1".to_owned()
        } else {
            format!("/apis/{group_version}")
        };
        for resource in updatable(&api, &root).await {
            if is_created(&api, &root, group_version, &resource).await {
                created.insert((group.clone(), resource["name"].as_str().unwrap().to_owned()));
            }
        }
    }
    let known = CREATED_BY_UPDATE.map(|(group, name)| (group.to_owned(), name.to_owned()));
    assert_eq!(created, BTreeSet::from(known));
}

#[tokio::test]
async fn who_may_patch_and_update_may_not_create_by_it() {
    let cluster = Testbed::shared().await.cluster();
    let api = cluster.api();
    let namespace = api.namespace("creation").await;
    let account = format!(
        "  - name: lab\n    \
         credential: {{ kubeconfig-file: {} }}\n    \
         kinds: {{ live: [ConfigMap, Lease.coordination.k8s.io] }}\n    \
         operations: [{{ verbs: [get, list, watch, patch, update], kinds: [\"*\"], namespaces: [\"*\"] }}]\n",
        cluster.kubeconfig.display()
    );
    let plan = Plan {
        accounts_yaml: account,
        ..Plan::one("lab", &cluster.kubeconfig, "")
    };
    let stand = Stand::start(plan).await;
    let facade = Facade::of(&stand.kubeconfig("lab", "writer").await);
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
    api.create(&maps, &map).await;

    let apply = "application/apply-patch+yaml";
    let applied = |name: &str| format!("{maps}/{name}?fieldManager=test");
    // Nor an object that is there: who asks cannot be told apart before it is done.
    for name in ["a", "b"] {
        let answer = facade
            .send(Method::PATCH, &applied(name), apply, &map)
            .await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains("`create` on `configmaps.v1` is not allowed"),
            "{message}"
        );
    }
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/a");
    let body = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "a" },
    });
    let answer = facade
        .send(Method::PUT, &lease, "application/json", &body)
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let merge = "application/merge-patch+json";
    let patch = json!({ "data": { "k": "v" } });
    let answer = facade
        .send(Method::PATCH, &format!("{maps}/a"), merge, &patch)
        .await;
    assert_eq!(answer.success()["data"]["k"], "v");
}
