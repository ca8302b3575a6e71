//! A kubeconfig that changes in its engine while fifty watches run: nothing is listed again, nothing
//! is lost, and a new one that does not work changes nothing.
use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::eventually::eventually_async;
use crate::support::fake::Client;
use crate::support::kube::{Api, Watch};
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

/// An agent whose kubeconfig lies in an engine, and what it is about.
struct CutOver {
    testbed: Testbed,
    api: Api,
    namespace: String,
    kubeconfig: String,
    bao: Bao,
    stand: Stand,
    _folder: TempDir,
}

impl CutOver {
    async fn start() -> Self {
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
                 credential: { secret: \"sec+vault://bao/kv/shop#kubeconfig\" }\n    \
                 operations: [{ verbs: [get, list, watch, create], kinds: [ConfigMap], namespaces: [\"*\"] }]\n"
                .to_owned(),
            engines_yaml: format!(
                "  bao: {{ engine: vault, address: \"{}\", ca-file: {}, refresh: 1s, auth: {{ \
                 method: token, token-file: {} }} }}\n",
                bao.url(),
                bao.ca_file().display(),
                token.display()
            ),
            agent_ttl: "24h",
        })
        .await;
        stand.wait("shop", "ACTIVE").await;
        Self {
            testbed,
            api,
            namespace,
            kubeconfig,
            bao,
            stand,
            _folder: folder,
        }
    }

    /// Where the objects are that change.
    fn objects(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    /// A kubeconfig with another token; it works.
    async fn next(&self) -> String {
        with_token(&self.api, &self.kubeconfig, &self.namespace).await
    }

    /// Puts a kubeconfig into the engine; gives how the tag of its version begins.
    async fn put(&self, kubeconfig: &str) -> String {
        let fields = json!({"kubeconfig": kubeconfig});
        format!("{}@", self.bao.put("kv", "shop", &fields).await)
    }

    /// A new token, and objects that change until it is in use; gives their names.
    async fn rotate(&self, written: &mut Vec<String>) {
        let before = in_use(&self.stand).await;
        let version = self.put(&self.next().await).await;
        eventually_async("the new token is in use", async || {
            let name = format!("r-{}", written.len());
            let object = config_map(&name);
            self.api.create(&self.objects(), &object).await;
            written.push(name);
            let now = in_use(&self.stand).await;
            (now.0.starts_with(&version) && now != before).then_some(())
        })
        .await;
    }
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

/// The names that a watch tells as added, as many as these.
async fn added(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let event = watch.next().await.expect("the watch goes on");
        let name = event["object"]["metadata"]["name"].as_str();
        if let Some(name) = name.filter(|name| name.starts_with("r-")) {
            assert_eq!(event["type"], "ADDED", "{event}");
            seen.push(name.to_owned());
        }
    }
    seen
}

#[tokio::test]
async fn a_token_that_changes_under_fifty_watches_costs_no_list_and_no_event() {
    let cut_over = CutOver::start().await;
    let client = Client::read(&cut_over.stand.kubeconfig("shop", "watcher").await);
    let path = format!("{}{}?watch=1", client.path, cut_over.objects());
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        watches.push(Api::of(client.https()).watch(&path).await);
    }
    let lists = cut_over.testbed.lists();
    let mut written = Vec::new();
    for _ in 0..ROTATIONS {
        cut_over.rotate(&mut written).await;
    }
    for watch in &mut watches {
        let seen = added(watch, written.len()).await;
        assert_eq!(seen, written, "each once, in order");
    }
    assert_eq!(cut_over.testbed.lists(), lists);
}

#[tokio::test]
async fn a_new_kubeconfig_that_does_not_work_is_told_and_the_one_before_stays() {
    let cut_over = CutOver::start().await;
    let client = Client::read(&cut_over.stand.kubeconfig("shop", "writer").await);
    let lists = cut_over.testbed.lists();
    let broken = cut_over.next().await.replace("token: ", "token: not-");
    let version = cut_over.put(&broken).await;
    let row = eventually_async("the new token is refused", async || {
        let row = cut_over.stand.account("shop").await;
        assert_eq!(row["state"], "ACTIVE", "{row}");
        (row["reason"] == "CredentialRejected").then_some(row)
    })
    .await;
    let message = row["message"].as_str().unwrap_or_default();
    assert!(message.contains("the one before stays in use"), "{row}");
    let told = row["credential"]["version"].as_str().unwrap_or_default();
    assert!(told.starts_with(&version), "{row}");
    let facade = Api::of(client.https());
    let path = format!("{}{}", client.path, cut_over.objects());
    for number in 0..20 {
        facade
            .create(&path, &config_map(&format!("w-{number}")))
            .await;
    }
    assert_eq!(cut_over.testbed.lists(), lists);
    cut_over.put(&cut_over.next().await).await;
    eventually_async("the account is well again", async || {
        let row = cut_over.stand.account("shop").await;
        (row["state"] == "ACTIVE" && row["reason"] == "").then_some(())
    })
    .await;
}
