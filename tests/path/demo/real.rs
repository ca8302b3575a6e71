//! On a real API server that holds more than a demonstration does.

use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use super::{Staged, kubeconfig, once};
use crate::support::kube::Api;
use crate::support::testbed::Testbed;

const PODS: usize = 2_000;
const DEPLOYMENTS: usize = 100;

/// Requests for the cluster that are under way at once.
const AT_ONCE: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_cluster_secrets_are_read_only_where_they_were_planted() {
    let testbed = Testbed::start_audited(&["-nodes", "0", "-controllers=false"]).await;
    let cluster = testbed.cluster();
    fill(&cluster.api()).await;
    let file = &cluster.kubeconfig;

    let before = testbed.audit().len();
    let report = Staged::on(kubeconfig(file.clone(), file.clone()))
        .report(|| {})
        .await;
    assert!(report.ok, "{:?}", report.failed);
    assert_eq!(report.accounts[0].objects["Pod"], PODS as u64);
    assert_eq!(report.accounts[0].objects["Deployment"], DEPLOYMENTS as u64);
    let asked = testbed.audit().split_off(before);
    println!("{} requests without --plant", asked.len());
    assert!(
        asked
            .iter()
            .any(|entry| entry["objectRef"]["resource"] == "pods"),
        "the log is complete"
    );
    assert_eq!(secrets(&asked), Vec::<&Value>::new());

    let before = testbed.audit().len();
    let (ran, report) = once(&["--kubeconfig", &file.display().to_string(), "--plant"]).await;
    println!("{report}");
    assert_eq!(ran.code, Some(0), "{ran:?}\n{report}");
    assert_eq!(report["canaries"]["control_found"], true);
    let said = |lead: &str| {
        let line = ran.stdout.lines().find(|line| line.starts_with(lead));
        let line = line.unwrap_or_else(|| panic!("no {lead} in {}", ran.stdout));
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    };
    assert!(
        ran.stdout.contains("planted  200 Secrets in namespace "),
        "{}",
        ran.stdout
    );
    let namespace = said("planted ");
    assert_eq!(said("removed "), namespace);
    let asked = testbed.audit().split_off(before);
    let touched = secrets(&asked);
    for entry in &touched {
        assert_eq!(entry["objectRef"]["namespace"], *namespace, "{entry}");
    }
    let created = touched
        .iter()
        .filter(|entry| entry["verb"] == "create")
        .count();
    assert_eq!(created, 200);
    assert!(
        touched.iter().any(|entry| entry["verb"] == "watch"),
        "the agent has watched them"
    );
    // Without controllers nobody finishes what has been asked for.
    let left = cluster
        .api()
        .get(&format!("/api/v1/namespaces/{namespace}"))
        .await;
    assert!(left["metadata"]["deletionTimestamp"].is_string(), "{left}");
}

/// What somebody other than the API server itself has asked of Secrets.
fn secrets(asked: &[Value]) -> Vec<&Value> {
    let of_secrets = asked
        .iter()
        .filter(|entry| entry["objectRef"]["resource"] == "secrets");
    of_secrets
        .filter(|entry| entry["user"]["username"] != "system:apiserver")
        .collect()
}

/// Makes pods that are bound to nodes which do not exist, and deployments that nobody deploys.
async fn fill(api: &Api) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "full"}});
    api.create("/api/v1/namespaces", &namespace).await;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    api.create("/api/v1/namespaces/full/serviceaccounts", &account)
        .await;
    let pods = (0..PODS).map(|number| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{number}")},
            "spec": {"nodeName": format!("node-{}", number % 20), "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": "example.com/shop:1"}]}});
        ("/api/v1/namespaces/full/pods", pod)
    });
    let deployments = (0..DEPLOYMENTS).map(|number| {
        let labels = json!({"app": format!("shop-{number}")});
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": format!("shop-{number}")},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "example.com/shop:1"}]}}}});
        ("/apis/apps/v1/namespaces/full/deployments", deployment)
    });
    let made = stream::iter(pods.chain(deployments));
    made.for_each_concurrent(AT_ONCE, async |(path, object)| {
        api.create(path, &object).await;
    })
    .await;
}
