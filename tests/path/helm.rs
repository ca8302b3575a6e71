//! Helm through the hub: a chart comes, changes, goes back and goes, as it does directly.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::kube::{Api, definition};
use crate::support::kubectl::Kubectl;
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::Testbed;

/// The kubectl beside which a helm was released: 3.17 and 4.2.
const RELEASES: [u32; 2] = [30, 36];

/// Every kind, and Secrets masked.
const KINDS: &str = "    kinds: { live: [\"*\", Secret] }\n";

/// A chart with a definition and an object of it, a hook, a Deployment and a Secret.
fn chart(group: &str) -> TempDir {
    let folder = TempDir::with_prefix("sortie-chart-").unwrap();
    let files = [
        (
            "Chart.yaml",
            "apiVersion: v2\nname: web\nversion: 0.1.0\n".to_owned(),
        ),
        (
            "values.yaml",
            "replicas: 1\npassword: hunter-1\n".to_owned(),
        ),
        ("crds/gadgets.yaml", definition(group, "gadget").to_string()),
        (
            "templates/gadget.yaml",
            format!(
                "apiVersion: {group}/v1\nkind: Gadget\nmetadata: {{ name: {{{{ .Release.Name }}}} }}\n"
            ),
        ),
        ("templates/hook.yaml", HOOK.to_owned()),
        ("templates/deployment.yaml", DEPLOYMENT.to_owned()),
        ("templates/secret.yaml", SECRET.to_owned()),
    ];
    for (name, text) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    folder
}

const HOOK: &str = "apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-hook
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    helm.sh/hook-delete-policy: before-hook-creation
data: { revision: {{ .Release.Revision | quote }} }
";

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: { name: {{ .Release.Name }} }
spec:
  replicas: {{ .Values.replicas }}
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [ { name: main, image: \"example.com/web:1\" } ] }
";

const SECRET: &str = "apiVersion: v1
kind: Secret
metadata: { name: {{ .Release.Name }} }
stringData: { password: {{ .Values.password }} }
";

/// A release in a namespace of its own.
struct Release<'a> {
    helm: &'a Kubectl,
    chart: &'a Path,
    api: &'a Api,
    namespace: String,
}

impl Release<'_> {
    /// Runs `helm COMMAND … --namespace NAMESPACE`.
    async fn ok(&self, line: &str) -> String {
        let chart = self.chart.display().to_string();
        let words = line.split(' ').map(|word| match word {
            "CHART" => chart.as_str(),
            word => word,
        });
        let place = ["--namespace", &self.namespace];
        self.helm.ok(&words.chain(place).collect::<Vec<_>>()).await
    }

    /// How many replicas, and which password, the cluster has.
    async fn is(&self) -> (u64, String) {
        let below = |root: &str, kind: &str| {
            let namespace = &self.namespace;
            format!("{root}/namespaces/{namespace}/{kind}/web")
        };
        let deployment = self.api.get(&below("/apis/apps/v1", "deployments")).await;
        let secret = self.api.get(&below("/api/v1", "secrets")).await;
        let password = secret["data"]["password"].as_str().unwrap();
        let password = String::from_utf8(STANDARD.decode(password).unwrap()).unwrap();
        (deployment["spec"]["replicas"].as_u64().unwrap(), password)
    }

    /// What became of each revision.
    async fn history(&self) -> Vec<String> {
        let told: Value = serde_json::from_str(&self.ok("history web -o json").await).unwrap();
        let revisions = told.as_array().unwrap().iter();
        let status = revisions.map(|revision| revision["status"].as_str().unwrap().to_owned());
        status.collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chart_comes_changes_goes_back_and_goes() {
    let testbed = Testbed::start(&["-nodes", "0", "-controllers=false"]).await;
    let api = testbed.cluster().api();
    let stand = Stand::start(Plan::one("lab", &testbed.cluster().kubeconfig, KINDS)).await;
    let kubeconfig = stand.kubeconfig("lab", "visitor").await;
    for minor in RELEASES {
        let group = format!("beside-{minor}.example.org");
        let chart = chart(&group);
        let release = Release {
            helm: &Kubectl::helm(minor, &kubeconfig, "configmap"),
            chart: chart.path(),
            api: &api,
            namespace: format!("charts-{minor}"),
        };
        release.ok("install web CHART --create-namespace").await;
        assert_eq!(release.is().await, (1, "hunter-1".to_owned()));
        let path = format!("/apis/{group}/v1/gadgets");
        assert_eq!(api.items(&path).await.len(), 1, "helm beside {minor}");

        // A value that stays as it was is not overwritten by its mask.
        release.ok("upgrade web CHART --set replicas=2").await;
        assert_eq!(release.is().await, (2, "hunter-1".to_owned()));
        release
            .ok("upgrade web CHART --set password=hunter-2")
            .await;
        assert_eq!(release.is().await, (1, "hunter-2".to_owned()));
        release.ok("rollback web 2").await;
        assert_eq!(release.is().await, (2, "hunter-1".to_owned()));
        let expected = ["superseded", "superseded", "superseded", "deployed"];
        assert_eq!(release.history().await, expected);
        assert!(release.ok("list").await.contains("deployed"));
        assert!(release.ok("get manifest web").await.contains("Gadget"));

        release.ok("uninstall web").await;
        assert!(api.items(&path).await.is_empty(), "helm beside {minor}");
        let left = format!("/api/v1/namespaces/{}/secrets", release.namespace);
        assert!(api.items(&left).await.is_empty(), "helm beside {minor}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_in_secrets_are_refused_with_the_way_that_works() {
    let testbed = Testbed::shared().await;
    let api = testbed.cluster().api();
    let stand = Stand::start(Plan::one("lab", &testbed.cluster().kubeconfig, KINDS)).await;
    let kubeconfig = stand.kubeconfig("lab", "visitor").await;
    let chart = TempDir::with_prefix("sortie-chart-").unwrap();
    let about = "apiVersion: v2\nname: web\nversion: 0.1.0\n";
    fs::write(chart.path().join("Chart.yaml"), about).unwrap();
    for minor in RELEASES {
        let namespace = api.namespace("charts").await;
        let helm = Kubectl::helm(minor, &kubeconfig, "secret");
        let folder = chart.path().display().to_string();
        let ran = helm
            .run(&["install", "web", &folder, "--namespace", &namespace])
            .await;
        assert_eq!(ran.code, Some(1), "helm beside {minor}");
        assert!(
            ran.stderr.contains("HELM_DRIVER=configmap"),
            "{}",
            ran.stderr
        );
        let left = format!("/api/v1/namespaces/{namespace}/secrets");
        assert!(api.items(&left).await.is_empty(), "helm beside {minor}");
    }
}
