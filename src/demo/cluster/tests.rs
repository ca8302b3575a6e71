//! What kube-apiserver would answer, over real TCP and TLS.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{Cluster, Settings};
use crate::clock;
use crate::demo::Seeded;
use crate::demo::audit::{Answer, Credential, Endpoint, Event, Lines, Reader};
use crate::resource::{Gvr, Scope};
use crate::secret::SecretBytes;
use crate::tasks::Tasks;

const MAPS: &str = "/api/v1/namespaces/shop/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shop/deployments";
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    reader: Reader,
    endpoint: Endpoint,
    tasks: Tasks,
}

/// A quiet cluster that remembers `history` changes.
async fn bench(history: usize) -> Bench {
    let tasks = Tasks::new();
    let settings = Settings {
        events_per_second: 0,
        secrets: 4,
        rotations: 0,
        history,
        bookmark_every: Duration::from_millis(50),
        ..Settings::new(Arc::new(Seeded::new(1)), clock::system())
    };
    let (_cluster, running) = Cluster::start(settings, &tasks).await.expect("starts");
    let endpoint = Endpoint {
        url: running.url,
        ca_pem: running.ca_pem,
        credential: Credential::Token(running.token),
    };
    let reader = Reader::new(&endpoint, &tasks).expect("valid endpoint");
    Bench {
        reader,
        endpoint,
        tasks,
    }
}

impl Bench {
    async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        self.typed(method, path, "application/json", body).await
    }

    async fn typed(&self, method: Method, path: &str, media: &'static str, body: Value) -> Answer {
        let sent = self.reader.send(method, path, Some((media, &body))).await;
        sent.expect("an answer")
    }

    async fn get(&self, path: &str) -> Answer {
        self.reader
            .send(Method::GET, path, None)
            .await
            .expect("an answer")
    }

    async fn create_map(&self, name: &str, label: &str) -> Answer {
        let body = json!({"metadata": {"name": name, "labels": {"l": label}}, "data": {"a": "1"}});
        self.send(Method::POST, MAPS, body).await
    }

    async fn watch(&self, from: &str) -> Lines {
        let maps = Gvr::new("", "v1", "configmaps");
        let scope = Scope::Namespace("shop".into());
        self.reader
            .watch(&maps, &scope, from)
            .await
            .expect("a watch")
    }
}

/// The next event that is no bookmark.
async fn next(lines: &mut Lines) -> Event {
    let next = async {
        loop {
            let event = lines.next().await.expect("readable").expect("not ended");
            if event.what != "BOOKMARK" {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, next)
        .await
        .expect("an event in time")
}

fn version(answer: &Answer) -> String {
    let version = answer.body["metadata"]["resourceVersion"].as_str();
    version.expect("a version").to_owned()
}

#[tokio::test]
async fn a_watch_sees_what_is_created_changed_and_deleted_after_its_version() {
    let bench = bench(1000).await;
    let from = version(&bench.get(MAPS).await);
    let created = bench.create_map("one", "x").await;
    assert_eq!(created.status, 201);
    let mut lines = bench.watch(&from).await;
    let event = next(&mut lines).await;
    assert_eq!(
        (event.what.as_str(), &event.object),
        ("ADDED", &created.body)
    );
    let path = format!("{MAPS}/one");
    let patch = json!({"data": {"a": null, "b": "2"}});
    let media = "application/merge-patch+json";
    let patched = bench.typed(Method::PATCH, &path, media, patch).await;
    assert_eq!(patched.body["data"], json!({"b": "2"}));
    assert_eq!(next(&mut lines).await.object, patched.body);
    assert_eq!(
        bench.send(Method::DELETE, &path, json!({})).await.status,
        200
    );
    let gone = next(&mut lines).await;
    assert_eq!(gone.what, "DELETED");
    assert_ne!(
        gone.object["metadata"]["resourceVersion"],
        patched.body["metadata"]["resourceVersion"]
    );
    assert_eq!(bench.get(&path).await.body["reason"], "NotFound");
}

#[tokio::test]
async fn a_write_that_changes_nothing_gets_no_new_version() {
    let bench = bench(1000).await;
    let created = bench.create_map("same", "x").await;
    let path = format!("{MAPS}/same");
    let again = bench.send(Method::PUT, &path, created.body.clone()).await;
    assert_eq!(version(&again), version(&created));
}

#[tokio::test]
async fn a_stale_version_a_taken_name_and_a_wrong_uid_conflict() {
    let bench = bench(1000).await;
    let created = bench.create_map("one", "x").await;
    let path = format!("{MAPS}/one");
    let mut body = created.body.clone();
    body["data"]["a"] = json!("2");
    assert_eq!(
        bench.send(Method::PUT, &path, body.clone()).await.status,
        200
    );
    body["data"]["a"] = json!("3");
    let stale = bench.send(Method::PUT, &path, body).await;
    assert_eq!(
        (stale.status, &stale.body["reason"]),
        (409, &json!("Conflict"))
    );
    let taken = bench.create_map("one", "x").await;
    assert_eq!(
        (taken.status, &taken.body["reason"]),
        (409, &json!("AlreadyExists"))
    );
    let options = json!({"preconditions": {"uid": "another"}});
    assert_eq!(bench.send(Method::DELETE, &path, options).await.status, 409);
}

#[tokio::test]
async fn a_version_that_is_forgotten_is_gone() {
    let bench = bench(5).await;
    for number in 0..10 {
        bench.create_map(&format!("m-{number}"), "x").await;
    }
    let event = next(&mut bench.watch("1").await).await;
    assert_eq!(event.what, "ERROR");
    assert_eq!(event.object["code"], 410);
    let page = bench
        .get(&format!(
            "{MAPS}?resourceVersion=1&resourceVersionMatch=Exact"
        ))
        .await;
    assert_eq!(
        (page.status, &page.body["reason"]),
        (410, &json!("Expired"))
    );
}

#[tokio::test]
async fn an_object_that_leaves_a_selector_is_deleted_for_its_watch() {
    let bench = bench(1000).await;
    let from = version(&bench.get(MAPS).await);
    bench.create_map("one", "in").await;
    bench.create_map("other", "out").await;
    let listed = bench.get(&format!("{MAPS}?labelSelector=l%3Din")).await;
    assert_eq!(listed.body["items"].as_array().map(Vec::len), Some(1));
    let patch = json!([{"op": "replace", "path": "/metadata/labels/l", "value": "out"}]);
    let media = "application/json-patch+json";
    bench
        .typed(Method::PATCH, &format!("{MAPS}/one"), media, patch)
        .await;
    let maps = Gvr::new("", "v1", "configmaps");
    let scope = Scope::Namespace("shop".into());
    let wish = format!("{from}&labelSelector=l%3Din");
    let mut lines = bench
        .reader
        .watch(&maps, &scope, &wish)
        .await
        .expect("a watch");
    assert_eq!(next(&mut lines).await.what, "ADDED");
    assert_eq!(next(&mut lines).await.what, "DELETED");
}

#[tokio::test]
async fn initial_events_end_with_their_bookmark_and_bookmarks_go_on() {
    let bench = bench(1000).await;
    bench.create_map("one", "x").await;
    let wish = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&labelSelector=l%3Dx";
    let mut lines = bench.watch(wish).await;
    assert_eq!(next(&mut lines).await.object["metadata"]["name"], "one");
    let end = lines.next().await.expect("readable").expect("not ended");
    assert_eq!(end.what, "BOOKMARK");
    assert_eq!(
        end.object["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    let later = tokio::time::timeout(PATIENCE, lines.next())
        .await
        .expect("in time");
    let later = later.expect("readable").expect("not ended");
    assert_eq!(
        (
            later.what.as_str(),
            &later.object["metadata"]["annotations"]
        ),
        ("BOOKMARK", &Value::Null)
    );
}

#[tokio::test]
async fn pages_of_a_list_show_one_moment() {
    let bench = bench(1000).await;
    for name in ["p-1", "p-2", "p-3"] {
        bench.create_map(name, "page").await;
    }
    let query = format!("{MAPS}?labelSelector=l%3Dpage&limit=2");
    let first = bench.get(&query).await.body;
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    bench.create_map("p-4", "page").await;
    bench
        .send(Method::DELETE, &format!("{MAPS}/p-3"), json!({}))
        .await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let second = bench.get(&format!("{query}&continue={token}")).await.body;
    let names: Vec<_> = second["items"].as_array().expect("items").iter().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0]["metadata"]["name"], "p-3");
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn scale_and_status_change_only_their_part() {
    let bench = bench(1000).await;
    let path = format!("{DEPLOYMENTS}/web");
    let media = "application/merge-patch+json";
    let patch = json!({"spec": {"replicas": 5}});
    let scaled = bench
        .typed(Method::PATCH, &format!("{path}/scale"), media, patch)
        .await;
    assert_eq!(
        (&scaled.body["kind"], &scaled.body["spec"]["replicas"]),
        (&json!("Scale"), &json!(5))
    );
    let deployment = bench.get(&path).await.body;
    assert_eq!(deployment["spec"]["replicas"], 5);
    assert_eq!(deployment["metadata"]["generation"], 2);
    let patch = json!({"spec": {"paused": true}, "status": {"note": "x"}});
    let changed = bench
        .typed(Method::PATCH, &path, media, patch.clone())
        .await
        .body;
    assert_eq!(
        (&changed["spec"]["paused"], &changed["status"]["note"]),
        (&json!(true), &Value::Null)
    );
    let changed = bench
        .typed(Method::PATCH, &format!("{path}/status"), media, patch)
        .await
        .body;
    assert_eq!(changed["status"]["note"], "x");
    assert_eq!(changed["metadata"]["generation"], 3);
}

#[tokio::test]
async fn apply_creates_then_merges_and_a_dry_run_keeps_nothing() {
    let bench = bench(1000).await;
    let path = format!("{MAPS}/applied");
    let media = "application/apply-patch+yaml";
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}});
    let dry = format!("{path}?dryRun=All&fieldManager=t");
    assert_eq!(
        bench
            .typed(Method::PATCH, &dry, media, body.clone())
            .await
            .status,
        201
    );
    assert_eq!(bench.get(&path).await.status, 404);
    assert_eq!(
        bench.typed(Method::PATCH, &path, media, body).await.status,
        201
    );
    let more = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"b": "2"}});
    let merged = bench.typed(Method::PATCH, &path, media, more).await;
    assert_eq!(
        (merged.status, &merged.body["data"]),
        (200, &json!({"a": "1", "b": "2"}))
    );
}

#[tokio::test]
async fn secrets_take_text_and_namespaces_take_everything_with_them() {
    let bench = bench(1000).await;
    let namespace = json!({"metadata": {"name": "tmp"}});
    bench
        .send(Method::POST, "/api/v1/namespaces", namespace)
        .await;
    let secrets = "/api/v1/namespaces/tmp/secrets";
    let body = json!({"metadata": {"generateName": "s-"}, "stringData": {"a": "text"}});
    let made = bench.send(Method::POST, secrets, body.clone()).await.body;
    assert_eq!(
        (&made["data"], &made["stringData"]),
        (&json!({"a": "dGV4dA=="}), &Value::Null)
    );
    let name = made["metadata"]["name"].as_str().expect("a name");
    assert_eq!(name.len(), 7);
    bench
        .send(Method::DELETE, "/api/v1/namespaces/tmp", json!({}))
        .await;
    assert_eq!(bench.get(&format!("{secrets}/{name}")).await.status, 404);
    assert_eq!(bench.send(Method::POST, secrets, body).await.status, 404);
}

#[tokio::test]
async fn only_the_token_opens_the_cluster() {
    let bench = bench(1000).await;
    let stranger = Endpoint {
        credential: Credential::Token(SecretBytes::new(b"wrong".to_vec())),
        url: bench.endpoint.url.clone(),
        ca_pem: bench.endpoint.ca_pem.clone(),
    };
    let stranger = Reader::new(&stranger, &bench.tasks).expect("valid endpoint");
    for path in ["/version", "/api/v1/secrets", "/nowhere"] {
        let answer = stranger
            .send(Method::GET, path, None)
            .await
            .expect("an answer");
        assert_eq!(
            (answer.status, &answer.body["reason"]),
            (401, &json!("Unauthorized")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn discovery_names_every_kind_with_its_parts() {
    let bench = bench(1000).await;
    let apps = bench.get("/apis/apps/v1").await.body;
    let names: Vec<_> = apps["resources"]
        .as_array()
        .expect("resources")
        .iter()
        .collect();
    assert!(
        names
            .iter()
            .any(|resource| resource["name"] == "deployments/scale")
    );
    let groups = bench.get("/apis").await.body;
    assert_eq!(groups["groups"][0]["name"], "apps");
    assert_eq!(bench.get("/openapi/v2").await.status, 404);
    let document = bench.get("/openapi/v3/apis/apps/v1").await.body;
    let path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
    assert_eq!(
        document["paths"][path]["patch"]["parameters"][1]["name"],
        "fieldValidation"
    );
}

#[tokio::test]
async fn a_stop_ends_every_task_of_the_cluster() {
    let bench = bench(1000).await;
    let mut lines = bench.watch("0").await;
    assert_eq!(next(&mut lines).await.what, "ADDED");
    assert!(bench.tasks.drain(PATIENCE).await);
}
