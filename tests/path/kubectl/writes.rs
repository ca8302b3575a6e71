//! Writes in two namespaces, one each way, compared after every step.

use super::Scene;
use crate::support::testbed::Testbed;

pub(super) const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, annotations: { note: one, other: one } }
spec:
  replicas: 1
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [{ name: c, image: "example.com/web:1", env: [{ name: A, value: a }, { name: B, value: b }] }] }
"#;

/// Without a key of the annotations, without one of the variables, with another image.
const WEB_LESS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, annotations: { note: two } }
spec:
  replicas: 1
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [{ name: c, image: "example.com/web:2", env: [{ name: A, value: a }] }] }
"#;

const CONFIG: &str =
    r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"1","b":"2"}}"#;
const CONFIG_LESS: &str =
    r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"3"}}"#;

#[tokio::test]
async fn what_is_applied_through_the_hub_is_what_is_applied_directly() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    scene
        .writes_alike(&[
            ("diff -f -", WEB),
            ("apply -f - --dry-run=client", WEB),
            ("apply -f - --dry-run=server", WEB),
            ("apply -f -", WEB),
            ("apply -f -", WEB),
            ("diff -f -", WEB),
            ("apply view-last-applied deployment/web", ""),
            ("rollout status deployment/web", ""),
            ("apply -f -", WEB_LESS),
            ("rollout status deployment/web", ""),
            ("rollout history deployment/web", ""),
            ("apply -f -", CONFIG),
            ("apply -f -", CONFIG_LESS),
            ("get configmap x -o jsonpath={.data}", ""),
            // From client-side to server-side apply, and then a removed key.
            ("apply --server-side -f -", WEB),
            ("apply --server-side -f -", WEB_LESS),
            ("apply --server-side -f -", CONFIG),
            ("apply --server-side -f -", CONFIG_LESS),
            ("apply --server-side --field-manager=other -f -", CONFIG),
            ("apply --server-side --field-manager=other --force-conflicts -f -", CONFIG),
            ("apply -f -", CONFIG),
            ("apply -f -", "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\"},\"nonsense\":1}"),
            ("apply -f -", "apiVersion: example.com/v1\nkind: Nonsense\nmetadata: { name: n }\n"),
            ("apply --prune -l app=none -f -", CONFIG),
        ])
        .await;
}

#[tokio::test]
async fn what_is_written_through_the_hub_is_what_is_written_directly() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    scene
        .writes_alike(&[
            ("create -f -", WEB),
            ("create -f -", WEB),
            ("replace -f -", WEB_LESS),
            ("rollout status deployment/web", ""),
            ("patch deployment web -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"example.com/web:3\"}]}}}}'", ""),
            ("patch deployment web --type merge -p '{\"metadata\":{\"annotations\":{\"note\":null}}}'", ""),
            ("patch deployment web --type json -p '[{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":2}]'", ""),
            ("patch deployment web --type json -p '[{\"op\":\"test\",\"path\":\"/spec/replicas\",\"value\":7}]'", ""),
            ("patch deployment none -p {}", ""),
            ("rollout status deployment/web", ""),
            ("scale deployment/web --replicas=3", ""),
            ("scale deployment/web --current-replicas=7 --replicas=1", ""),
            ("rollout status deployment/web", ""),
            ("set image deployment/web c=example.com/web:4", ""),
            ("rollout status deployment/web", ""),
            ("rollout undo deployment/web", ""),
            ("rollout status deployment/web", ""),
            ("rollout undo deployment/web --to-revision=1", ""),
            ("rollout status deployment/web", ""),
            ("rollout restart deployment/web", ""),
            ("rollout status deployment/web", ""),
            ("rollout history deployment/web", ""),
            ("rollout pause deployment/web", ""),
            ("rollout pause deployment/web", ""),
            ("rollout resume deployment/web", ""),
            ("rollout status deployment/web", ""),
            ("autoscale deployment/web --max=3", ""),
            ("set env deployment/web C=c", ""),
            ("set resources deployment/web --limits=cpu=1", ""),
            ("label deployment web stage=one", ""),
            ("label deployment web stage=two", ""),
            ("label deployment web stage=two --overwrite", ""),
            ("annotate deployment web stage-", ""),
            ("expose deployment web --port=80", ""),
            ("create configmap x --from-literal=a=1", ""),
            ("create serviceaccount robot", ""),
            ("create role reader --verb=get --resource=pods", ""),
            ("create job once --image=example.com/job", ""),
            ("delete configmap x", ""),
            ("delete configmap x", ""),
            ("delete configmap x --ignore-not-found", ""),
            ("delete deployment web --cascade=orphan", ""),
            ("get deployment", ""),
            ("delete replicaset,service,job --all --wait=false -o name --selector nothing=1", ""),
            ("delete service web", ""),
            ("replace -f -", WEB),
            ("replace --force -f -", WEB),
            ("rollout status deployment/web", ""),
            ("delete -f - --cascade=foreground", WEB),
            ("get deployment web", ""),
        ])
        .await;
}

#[tokio::test]
async fn a_delete_that_waits_ends_with_the_object_and_the_next_list_is_without_it() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    for _ in 0..5 {
        scene.ok("create -f -", WEB).await;
        let seen = scene.ok("get deployment -o name", "").await;
        assert_eq!(seen, "deployment.apps/web\n");
        scene.ok("scale deployment/web --replicas=2", "").await;
        let replicas = scene
            .ok("get deployment -o jsonpath={.items[*].spec.replicas}", "")
            .await;
        assert_eq!(replicas, "2");
        let gone = scene.ok("delete deployment web --timeout=50s", "").await;
        assert_eq!(gone, "deployment.apps \"web\" deleted\n");
        assert_eq!(scene.ok("get deployment -o name", "").await, "");
    }
}
