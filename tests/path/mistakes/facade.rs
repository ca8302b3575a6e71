//! What `kubectl` is told by the facade.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::json;
use sortie::clock::{Clock as _, SystemClock};

use super::page::{Page, compare};
use crate::support::eventually::eventually;
use crate::support::kubectl::Kubectl;
use crate::support::sortie::Sortie;
use crate::support::stand::{self, Plan, account_yaml, agent, hub_yaml};
use crate::support::testbed::{Cluster, Testbed};

/// Secrets and everything else that is asked for below.
const KINDS: &str = "    kinds:
      cached: [Pod, Namespace]
      live: [Secret, ConfigMap]
";

/// A Secret whose value is the mask, as a person writes it who edits what was shown.
const MASKED: &str = "\
apiVersion: v1
kind: Secret
metadata: { name: db }
stringData: { password: \"sortie.dev/secret-masked:v1\" }
";

/// One hub, one agent with two accounts, and the kubeconfig of a client that may use one of them.
struct Scene {
    hub: Sortie,
    agent: Sortie,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Scene {
    async fn start(cluster: &Cluster) -> Self {
        let api = cluster.api();
        let namespace = api.namespace("mistakes").await;
        let container = json!({"name": "web", "image": "example.com/web:1"});
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web"},
            "spec": {"containers": [container]},
        });
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        api.create(&pods, &pod).await;
        let hub = Sortie::hub(|folder| {
            let yaml = hub_yaml(folder, "24h");
            format!("{yaml}max-stale: 1s\n")
        });
        hub.ready().await;
        let reads = format!(
            "  - name: reads\n    credential: {{ kubeconfig-file: {} }}\n{KINDS}",
            cluster.kubeconfig.display()
        );
        let plan = Plan {
            accounts: vec!["lab".to_owned(), "reads".to_owned()],
            accounts_yaml: account_yaml("lab", &cluster.kubeconfig, KINDS) + &reads,
            engines_yaml: String::new(),
            agent_ttl: "24h",
        };
        let agent = agent(&hub, "lab", &plan).await;
        for account in ["lab", "reads"] {
            stand::wait(&hub, &agent, account, "ACTIVE").await;
        }
        let kubeconfig = stand::kubeconfig(&hub, "lab", "visitor").await;
        Self {
            hub,
            agent,
            kubeconfig,
            namespace,
        }
    }

    /// What `kubectl LINE` shows with this kubeconfig.
    async fn shown(&self, name: &'static str, kubeconfig: &Path, line: &str, input: &str) -> Page {
        let kubectl = Kubectl::pinned(33, kubeconfig);
        let words: Vec<&str> = ["-n", &self.namespace]
            .into_iter()
            .chain(line.split(' '))
            .collect();
        let ran = kubectl.run_with_input(&words, input).await;
        Page::new(name)
            .hide(&self.namespace, "NAMESPACE")
            .hide(CUT, alert(name))
            .kubectl(line, ran)
    }

    /// The kubeconfig with another text in place of a part of it.
    fn altered(&self, name: &str, change: impl FnOnce(&str) -> String) -> PathBuf {
        let path = self.hub.folder().join(format!("{name}.kubeconfig"));
        let text = fs::read_to_string(&self.kubeconfig).unwrap();
        fs::write(&path, change(&text)).unwrap();
        path
    }
}

/// What Go says of a refused connection when it sees its end before the alert.
const CUT: &str = "http2: client conn could not be established";

/// What it says when it sees the alert.
fn alert(name: &str) -> &'static str {
    match name {
        "certificate-expired" => "remote error: tls: expired certificate",
        _ => "remote error: tls: certificate required",
    }
}

/// A kubeconfig without the lines that hold the client's certificate and key.
fn without_certificate(text: &str) -> String {
    let lines = text.split_inclusive('\n');
    lines.filter(|line| !line.contains("client-")).collect()
}

/// The id that an account's address ends in.
fn id(text: &str) -> String {
    let (_, after) = text.split_once("/accounts/").unwrap();
    let digits = after.chars().take_while(char::is_ascii_hexdigit);
    digits.collect()
}

/// A kubeconfig whose certificate ends in 10 seconds, the shortest life there is.
async fn short_lived(scene: &Scene) -> PathBuf {
    let path = scene.hub.folder().join("short.kubeconfig");
    let out = path.display().to_string();
    let make = [
        "kubeconfig",
        "lab",
        "--client",
        "visitor",
        "--ttl",
        "10s",
        "--out",
        &out,
    ];
    stand::ok(scene.hub.command(&make).await);
    path
}

/// Waits until the wall clock is past a moment that a mistake depends on.
async fn past(moment: SystemTime) {
    let what = "the time has come";
    eventually(what, || (SystemClock.now() > moment).then_some(())).await;
}

#[tokio::test]
async fn what_kubectl_is_told_by_the_facade() {
    let mut scene = Scene::start(Testbed::shared().await.cluster()).await;
    let scene_now = &scene;
    let own = scene.kubeconfig.clone();
    let short = short_lived(&scene).await;
    let over = SystemClock.now() + Duration::from_secs(11);
    let unknown = scene.altered("unknown", |text| {
        text.replace(&id(text), "0123456789abcdef")
    });
    let bare = scene.altered("bare", without_certificate);
    let reads = stand::kubeconfig(&scene.hub, "reads", "reader").await;
    let foreign = fs::read_to_string(&reads).unwrap();
    let other = scene.altered("other", |text| text.replace(&id(text), &id(&foreign)));
    let raw = "get --raw /accounts/0123456789abcdef/version";
    let other_raw = format!("get --raw /accounts/{}/api/v1/namespaces", id(&foreign));
    let secret = "create -f - --validate=false";
    let show = async |name, kubeconfig: &Path, line: &str, input: &str| {
        scene_now.shown(name, kubeconfig, line, input).await
    };
    let mut pages = vec![
        show("without-certificate", &bare, "get pods --token=abc", "").await,
        show("account-unknown", &unknown, "get pods", "").await,
        show("account-unknown-raw", &own, raw, "").await,
        show("account-not-allowed", &other, "get pods", "").await,
        show("account-not-allowed-raw", &own, &other_raw, "").await,
        show("exec", &own, "exec web -- true", "").await,
        show("impersonation", &own, "get pods --as=admin", "").await,
        show("write-not-allowed", &reads, "delete pod web", "").await,
        show("kind-not-offered", &own, "get deployments", "").await,
        show("masked-value", &own, secret, MASKED).await,
    ];
    scene.agent.kill().await;
    let orphaned = [
        "get",
        "accounts",
        "lab",
        "--wait",
        "ORPHANED",
        "--timeout",
        "60s",
    ];
    stand::ok(scene.hub.command(&orphaned).await);
    pages.push(scene.shown("account-away", &own, "get pods", "").await);
    pages.push(
        scene
            .shown("write-while-away", &own, "delete pod web", "")
            .await,
    );
    past(over).await;
    pages.push(
        scene
            .shown("certificate-expired", &short, "get pods", "")
            .await,
    );
    compare("facade", &pages);
}
