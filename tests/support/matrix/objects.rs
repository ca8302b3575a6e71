//! One object of each kind that is cached by default, and the hash of all there are.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};
use sortie::demo::audit::{Collection, state_hash};
use sortie::resource::{Gvr, Scope};

use crate::support::eventually::eventually_async;
use crate::support::facade::Facade;
use crate::support::kube::{Api, definition};

/// Lists of the kinds that are cached by default (`policies/levels.yaml`).
pub(crate) const LISTS: &[&str] = &[
    "/api/v1/namespaces",
    "/api/v1/pods",
    "/api/v1/services",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/replicasets",
    "/apis/apps/v1/statefulsets",
    "/apis/apps/v1/daemonsets",
    "/apis/networking.k8s.io/v1/ingresses",
    "/apis/networking.k8s.io/v1/networkpolicies",
    "/apis/batch/v1/jobs",
    "/apis/batch/v1/cronjobs",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
];

/// Creates `namespace` with one object of each kind in it.
pub(crate) async fn create_one_of_each(api: &Api, namespace: &str) {
    let named =
        |kind: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": namespace}});
    api.create("/api/v1/namespaces", &named("Namespace")).await;
    let below = format!("/api/v1/namespaces/{namespace}");
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    api.create(&format!("{below}/serviceaccounts"), &account)
        .await;
    let pod = json!({"automountServiceAccountToken": false, "containers": [{"name": "main", "image": "example.com/web:1"}]});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": pod});
    let once = json!({"spec": {"restartPolicy": "Never", "automountServiceAccountToken": false,
        "containers": [{"name": "main", "image": "example.com/web:1"}]}});
    let selector = json!({"matchLabels": {"app": "web"}});
    let workload = json!({"selector": selector, "template": template});
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let objects = [
        ("v1", "Pod", "pods", pod),
        (
            "v1",
            "Service",
            "services",
            json!({"clusterIP": "None", "selector": {"app": "web"}}),
        ),
        ("apps/v1", "Deployment", "deployments", workload.clone()),
        ("apps/v1", "ReplicaSet", "replicasets", workload.clone()),
        ("apps/v1", "StatefulSet", "statefulsets", workload.clone()),
        ("apps/v1", "DaemonSet", "daemonsets", workload),
        (
            "networking.k8s.io/v1",
            "Ingress",
            "ingresses",
            json!({"defaultBackend": backend}),
        ),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "networkpolicies",
            json!({"podSelector": {}}),
        ),
        ("batch/v1", "Job", "jobs", json!({"template": once})),
        (
            "batch/v1",
            "CronJob",
            "cronjobs",
            json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": once}}}),
        ),
    ];
    for (version, kind, resource, spec) in objects {
        let root = if version == "v1" { "/api" } else { "/apis" };
        let path = format!("{root}/{version}/namespaces/{namespace}/{resource}");
        let object =
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": "web"}, "spec": spec});
        api.create(&path, &object).await;
    }
    let definition = definition("example.com", "widget");
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    api.create(path, &definition).await;
}

/// Writes `mark` onto one object of each kind, so that a feed which is not open again cannot look
/// settled.
pub(crate) async fn mark_one_of_each(api: &Api, namespace: &str, mark: u64) {
    let change = json!({"metadata": {"annotations": {"mark": mark.to_string()}}});
    for path in LISTS {
        let (above, resource) = path.rsplit_once('/').expect("a path has one");
        let object = match resource {
            "namespaces" => format!("{path}/{namespace}"),
            "customresourcedefinitions" => format!("{path}/widgets.example.com"),
            _ => format!("{above}/namespaces/{namespace}/{resource}/web"),
        };
        eventually_async("a mark on one object of each kind", async || {
            let answer = api.try_ask(Method::PATCH, &object, Some(&change)).await;
            answer.ok()?.status.is_success().then_some(())
        })
        .await;
    }
}

/// The hash of all objects of [`LISTS`] as the cluster shows them, and as the facade does.
pub(crate) async fn hashes(api: &Api, facade: &Facade) -> Option<[String; 2]> {
    let mut sides: [BTreeMap<Collection, Vec<Value>>; 2] = Default::default();
    for path in LISTS {
        let direct = api.try_ask(Method::GET, path, None).await.ok()?;
        if !direct.status.is_success() {
            return None;
        }
        let [cluster, served] = &mut sides;
        cluster.insert(collection(path), items(&direct.json()));
        served.insert(collection(path), items(&facade.try_get(path).await?));
    }
    Some(sides.map(|side| {
        let objects = side.iter();
        let objects: Vec<_> = objects
            .flat_map(|(collection, items)| items.iter().map(move |item| (collection, item)))
            .collect();
        assert!(objects.len() >= LISTS.len(), "one of each kind");
        state_hash(&objects, None)
    }))
}

/// The items without what feeds leave out.
fn items(list: &Value) -> Vec<Value> {
    let mut items = list["items"].as_array().cloned().unwrap_or_default();
    for item in &mut items {
        let metadata = item["metadata"].as_object_mut().expect("an object has it");
        metadata.remove("managedFields");
    }
    items
}

fn collection(path: &str) -> Collection {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let gvr = match parts.as_slice() {
        ["api", version, resource] => Gvr::new("", *version, *resource),
        ["apis", group, version, resource] => Gvr::new(*group, *version, *resource),
        _ => panic!("a list's path: {path}"),
    };
    let kind = gvr.resource.clone();
    Collection {
        gvr,
        kind,
        scope: Scope::Cluster,
    }
}
