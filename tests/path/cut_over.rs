//! A kubeconfig that changes in its engine while fifty watches run: nothing is listed again, nothing
//! is lost, and a new one that does not work changes nothing.
#![expect(
    clippy::indexing_slicing,
    reason = "a field that is not there is JSON null"
)]

use std::fs;

use http::Method;
use serde_json::{Value, json};

use crate::support::eventually::eventually_async;
use crate::support::fake::Client;
use crate::support::kube::Api;
use crate::support::openbao::Bao;
use crate::support::pki::Authority;
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::Testbed;

/// Kubeconfigs that follow one another.
const ROTATIONS: usize = 6;

/// Watches through the hub that are never opened again.
const WATCHES: usize = 50;

/// A kubeconfig with a fresh token of a service account that may do everything.
async fn with_token(api: &Api, kubeconfig: &str, namespace: &str) -> String {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/watcher/token");
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600},
    });
    let answer = api.create(&path, &request).await;
    let token = answer["status"]["token"].as_str().expect("a token");
    let (head, _) = kubeconfig.split_once("users:").expect("users at the end");
    format!("{head}users:\n- name: admin\n  user:\n    token: {token}\n")
}

async fn allow_everything(api: &Api, namespace: &str) {
    let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "watcher"},
    });
    api.create(&accounts, &account).await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("watcher-{namespace}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                    "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "watcher", "namespace": namespace}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    api.create(bindings, &binding).await;
}

/// When the credential in use was taken up, and the version of it, as `get accounts` tells.
async fn in_use(stand: &Stand) -> (String, String) {
    let row = stand.account("shop").await;
    let told = |key: &str| {
        row["credential"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (told("version"), told("changed"))
}

#[tokio::test]
async fn a_token_that_changes_under_fifty_watches_costs_no_list_and_no_event() {
    let testbed = Testbed::start_audited(&[]).await;
    let cluster = testbed.cluster();
    let api = cluster.api();
    let namespace = api.namespace("cut-over").await;
    allow_everything(&api, &namespace).await;
    let kubeconfig = fs::read_to_string(&cluster.kubeconfig).unwrap();
    let bao = Bao::start(&Authority::root("bao")).await;
    bao.enable_kv2("kv").await;
    let first = with_token(&api, &kubeconfig, &namespace).await;
    bao.put("kv", "shop", &json!({"kubeconfig": first})).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, bao.root_token()).unwrap();
    let stand = Stand::start(Plan {
        accounts: vec!["shop".to_owned()],
        accounts_yaml: "  - name: shop\n    \
             credential: { secret: \"sec+vault://bao/kv/shop#kubeconfig\" }\n"
            .to_owned(),
        engines_yaml: format!(
            "  bao: {{ engine: vault, address: \"{}\", ca-file: {}, refresh: 1s, auth: {{ method: \
             token, token-file: {} }} }}\n",
            bao.url(),
            bao.ca_file().display(),
            token.display()
        ),
        agent_ttl: "24h",
    })
    .await;
    stand.wait("shop", "ACTIVE").await;
    let client = Client::read(&stand.kubeconfig("shop", "watcher").await);
    let path = format!(
        "{}/api/v1/namespaces/{namespace}/configmaps?watch=1",
        client.path
    );
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        watches.push(Api::of(client.https()).watch(&path).await);
    }
    let lists = testbed.lists().len();
    let configmaps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let mut written = Vec::new();
    for rotation in 0..ROTATIONS {
        let before = in_use(&stand).await;
        let next = with_token(&api, &kubeconfig, &namespace).await;
        let version = bao.put("kv", "shop", &json!({"kubeconfig": next})).await;
        // Objects change while it does.
        eventually_async("the new token is in use", async || {
            let name = format!("r{rotation}-{}", written.len());
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            });
            api.create(&configmaps, &object).await;
            written.push(name);
            let now = in_use(&stand).await;
            (now.0 == version.to_string() && now != before).then_some(())
        })
        .await;
    }
    for watch in &mut watches {
        let mut seen = Vec::new();
        while seen.len() < written.len() {
            let event = watch.next().await.expect("the watch goes on");
            let name = event["object"]["metadata"]["name"]
                .as_str()
                .unwrap_or_default();
            if name.starts_with('r') {
                assert_eq!(event["type"], "ADDED", "{event}");
                seen.push(name.to_owned());
            }
        }
        assert_eq!(seen, written, "each once, in order");
    }
    assert_eq!(testbed.lists().len(), lists, "{:?}", testbed.lists());

    // The next one does not work at the API server.
    let broken = with_token(&api, &kubeconfig, &namespace).await;
    let (head, tail) = broken.split_once("token: ").unwrap();
    let broken = format!("{head}token: not-{}", tail.trim_start());
    let version = bao.put("kv", "shop", &json!({"kubeconfig": broken})).await;
    let row = eventually_async("the new token is refused", async || {
        let row = stand.account("shop").await;
        assert_eq!(row["state"], "ACTIVE", "{row}");
        (row["reason"] == "CredentialRejected").then_some(row)
    })
    .await;
    let message = row["message"].as_str().unwrap_or_default();
    assert!(message.contains("the one before stays in use"), "{row}");
    assert_eq!(
        row["credential"]["version"],
        Value::from(version.to_string())
    );
    // Operations and watches go on with the old one.
    let facade = Api::of(client.https());
    for number in 0..20 {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("w-{number}")},
        });
        let path = format!("{}{configmaps}", client.path);
        let answer = facade.ask(Method::POST, &path, Some(&object)).await;
        assert!(answer.status.is_success(), "{}", answer.status);
    }
    assert_eq!(testbed.lists().len(), lists);
    // A good one ends it.
    let good = with_token(&api, &kubeconfig, &namespace).await;
    bao.put("kv", "shop", &json!({"kubeconfig": good})).await;
    eventually_async("the account is well again", async || {
        let row = stand.account("shop").await;
        (row["state"] == "ACTIVE" && row["reason"] == "").then_some(())
    })
    .await;
}
