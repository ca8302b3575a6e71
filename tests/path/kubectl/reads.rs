//! Reads of one namespace, and what kubectl learns about the API.

use serde_json::{Value, json};

use super::{Scene, normal, run};
use crate::support::testbed::Testbed;

const OBJECTS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, labels: { t: rs, scene: kubectl } }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web, t: rs } }
    spec: { containers: [{ name: c, image: example.com/web:1 }] }
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: db }
spec:
  serviceName: db
  selector: { matchLabels: { app: db } }
  template:
    metadata: { labels: { app: db } }
    spec: { containers: [{ name: c, image: example.com/db:1 }] }
---
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: log }
spec:
  selector: { matchLabels: { app: log } }
  template:
    metadata: { labels: { app: log } }
    spec: { containers: [{ name: c, image: example.com/log:1 }] }
---
apiVersion: batch/v1
kind: Job
metadata: { name: j1 }
spec:
  template:
    metadata: { annotations: { testbed.sortie.dev/run-for: 1ms } }
    spec: { restartPolicy: Never, containers: [{ name: c, image: example.com/job:1 }] }
---
apiVersion: batch/v1
kind: CronJob
metadata: { name: nightly }
spec:
  schedule: "0 0 1 1 *"
  jobTemplate:
    spec:
      template:
        spec: { restartPolicy: Never, containers: [{ name: c, image: example.com/job:1 }] }
---
apiVersion: v1
kind: Service
metadata: { name: web, labels: { t: rs } }
spec: { selector: { app: web }, ports: [{ port: 80 }] }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: web }
spec: { defaultBackend: { service: { name: web, port: { number: 80 } } } }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: closed }
spec: { podSelector: {} }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: x }
data: { key: value }
---
apiVersion: v1
kind: Event
metadata: { name: seen }
involvedObject: { kind: Deployment, namespace: "{ns}", name: web, apiVersion: apps/v1 }
reason: Seen
message: it was seen
type: Normal
firstTimestamp: "2026-01-01T00:00:00Z"
lastTimestamp: "2026-01-01T00:00:00Z"
---
apiVersion: v1
kind: Secret
metadata: { name: s }
stringData: { user: root, password: hunter2 }
"#;

/// Output that has no ages in it.
const EXACT: &[&str] = &[
    "get deployment web -o json",
    "get deployment web -o yaml",
    "get deployment web -o name",
    "get deployment web -o json --show-managed-fields",
    "get deployments -o json",
    "get deploy,rs,pods -o json",
    "get deploy,rs,pods -o yaml",
    "get deploy,rs,pods -o name",
    "get all -o name",
    "get all -o json",
    "get pods -o jsonpath='{range .items[*]}{.metadata.name}={.status.phase} {end}'",
    "get pods -o custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[0].image",
    "get pods -l app=web -o name",
    "get pods -l 'app in (web,db)' -o name",
    "get pods -l 'app notin (web)' -o name",
    "get pods -l '!app' -o name",
    "get deploy,service -l t=rs -o name",
    "get pods --field-selector status.phase=Running -o name",
    "get pods --field-selector spec.nodeName=node-0 -o name",
    "get pods --field-selector spec.schedulerName=default-scheduler -o name",
    "get replicasets --field-selector status.replicas=1 -o name",
    "get pods --sort-by=.metadata.uid -o name",
    "get deployment --field-selector metadata.name=web -o json",
    "get deployment --field-selector metadata.name=none -o json",
    "get deployment -A -l scene=kubectl -o json",
    "get pods -A -o name",
    "get namespaces -o json",
    "get namespace {ns} -o json",
    "get configmap -o json",
    "get configmap/x deployment/web -o name",
    "get statefulset,daemonset,cronjob,job,ingress,networkpolicy,service -o json",
    "get deployments --chunk-size=1 -o name",
    "get deployment none",
    "get deployment none -o json",
    "get deployment none --ignore-not-found",
    "get nonsense",
    "get pods -l '=='",
    "get pods --field-selector nonsense=1",
    "get serviceaccount,endpoints,endpointslice -o name",
    "get nodes -o name",
    "get crd -o name",
    "get secret -o name",
    "get events -o json",
    "get events --field-selector involvedObject.name=web -o name",
    "get secret s -o jsonpath={.metadata.uid}",
    "rollout status deployment/web",
    "rollout status statefulset/db",
    "rollout status daemonset/log",
    "rollout history deployment/web",
    "rollout history deployment/web --revision=1",
    "rollout history statefulset/db",
    "rollout history daemonset/log",
    "logs job/j1",
    "logs job/j1 -c=c",
    "logs deployment/web -c c",
    "logs -l app=db",
    "logs db-0",
    "logs none",
    "auth can-i get pods",
    "auth can-i '*' '*'",
    "auth can-i create secrets",
    "auth whoami -o jsonpath={.status.userInfo}",
    "api-versions",
    "api-resources --sort-by=name",
    "api-resources --sort-by=kind -o wide",
    "api-resources --namespaced=false -o name",
    "version -o json",
    "wait --for=condition=Available deployment/web",
    "wait --for=condition=complete job/j1",
    "wait --for=jsonpath={.status.phase}=Running pod/db-0",
];

/// Output with ages.
const AGED: &[&str] = &[
    "get deployment web",
    "get deploy,rs,pods",
    "get deploy,rs,pods -o wide",
    "get all",
    "get all -o wide --show-labels",
    "get pods -A -l app=web",
    "get pods --no-headers",
    "get deployment --field-selector metadata.name=none",
    "get secret",
    "get secret s",
    "get events",
    "get events --sort-by=.lastTimestamp",
    "events",
    "get namespaces",
    "get job,cronjob,ingress,networkpolicy",
    "describe deployment web",
    "describe deployment",
    "describe pods",
    "describe pod db-0",
    "describe replicaset",
    "describe service web",
    "describe job j1",
    "describe cronjob nightly",
    "describe configmap x",
    "describe ingress web",
    "describe networkpolicy closed",
    "describe namespace {ns}",
    "describe deployment none",
];

async fn filled(testbed: &Testbed) -> Scene {
    let scene = Scene::on(testbed.cluster()).await;
    scene.ok("create -f -", OBJECTS).await;
    scene.ok("rollout status deployment/web", "").await;
    scene.ok("rollout status statefulset/db", "").await;
    scene.ok("rollout status daemonset/log", "").await;
    scene
        .ok("wait --for=condition=complete job/j1 --timeout=50s", "")
        .await;
    scene.agrees().await;
    scene
}

#[tokio::test]
async fn what_is_read_through_the_hub_is_what_is_read_directly() {
    // Of its own: other tests would change what is listed over all namespaces.
    let testbed = Testbed::start(&[]).await;
    let scene = filled(&testbed).await;
    scene.reads_alike(EXACT, normal::exact).await;
    scene.reads_alike(AGED, normal::text).await;

    // A Secret has its mask, and what the account keeps of it; all else is the same.
    for line in [
        "get secret s -o json",
        "get secret,configmap --field-selector metadata.name=s -o json",
    ] {
        let direct = run(&scene.direct, line, &scene.namespace, "").await.stdout;
        let mut expected: Value = serde_json::from_str(&direct).unwrap();
        let hub: Value = serde_json::from_str(&scene.ok(line, "").await).unwrap();
        let secret = match expected["kind"].as_str() {
            Some("List") => &mut expected["items"][0],
            _ => &mut expected,
        };
        assert_eq!(secret["data"]["password"], "aHVudGVyMg==");
        secret["data"] = json!({ "user": MASK, "password": MASK });
        assert_eq!(hub, expected, "{line}");
    }
    let told = scene.ok("describe secret s", "").await;
    assert!(told.contains("password:  27 bytes"), "{told}");
}

/// The mask, as base64.
const MASK: &str = "c29ydGllLmRldi9zZWNyZXQtbWFza2VkOnYx";
