//! Accounts whose kubeconfig lies in a real `OpenBao`: what goes wrong with the engine, what the
//! account says about it, and what goes on all the same.
#![expect(
    clippy::indexing_slicing,
    reason = "a field that is not there is JSON null"
)]

use std::fs;
use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::support::eventually::eventually_async;
use crate::support::fake::Client;
use crate::support::kube::{Api, Watch};
use crate::support::openbao::Bao;
use crate::support::pki::Authority;
use crate::support::stand::{Plan, Stand, account_yaml};
use crate::support::testbed::Testbed;

pub(crate) const READ_ALL: &str = r#"path "kv/*" { capabilities = ["read"] }"#;
const NOTHING: &str = r#"path "kv/*" { capabilities = ["deny"] }"#;

/// One entry of `accounts:` whose kubeconfig is in the engine.
pub(crate) fn secret_yaml(account: &str, reference: &str) -> String {
    format!(
        "  - name: {account}\n    \
         credential: {{ secret: \"sec+vault://bao/{reference}\" }}\n"
    )
}

pub(crate) fn engine_yaml(bao: &Bao, auth: &str) -> String {
    format!(
        "  bao: {{ engine: vault, address: \"{}\", ca-file: {}, refresh: 1s, auth: {{ {auth} }} }}\n",
        bao.url(),
        bao.ca_file().display()
    )
}

fn plan(accounts: &[(&str, &str)], steady: &Path, engine: String) -> Plan {
    let names = accounts.iter().map(|(name, _)| (*name).to_owned());
    let entries = accounts
        .iter()
        .map(|(name, reference)| secret_yaml(name, reference));
    Plan {
        accounts: names.chain(["steady".to_owned()]).collect(),
        accounts_yaml: entries
            .chain([account_yaml("steady", steady, "")])
            .collect(),
        engines_yaml: engine,
        agent_ttl: "24h",
    }
}

fn shows(row: &Value, state: &str, reason: &str) -> bool {
    row["state"] == state && row["reason"] == reason
}

/// Waits until an account shows this; gives the row.
pub(crate) async fn shown(stand: &Stand, account: &str, state: &str, reason: &str) -> Value {
    eventually_async(&format!("{account} is {state} ({reason})"), async || {
        let row = stand.account(account).await;
        shows(&row, state, reason).then_some(row)
    })
    .await
}

/// As [`shown`], for an account that is ACTIVE at every look.
async fn stays_active(stand: &Stand, account: &str, reason: &str) -> Value {
    eventually_async(
        &format!("{account} has the reason `{reason}`"),
        async || {
            let row = stand.account(account).await;
            assert_eq!(row["state"], "ACTIVE", "{row}");
            (row["reason"] == reason).then_some(row)
        },
    )
    .await
}

/// The account beside, and a watch through the hub that is never opened again.
struct Beside<'a> {
    stand: &'a Stand,
    api: Api,
    namespace: String,
    watch: Watch,
    written: u32,
}

impl<'a> Beside<'a> {
    async fn watch(stand: &'a Stand, api: Api, namespace: String) -> Self {
        stand.wait("steady", "ACTIVE").await;
        let client = Client::read(&stand.kubeconfig("steady", "watcher").await);
        let path = format!(
            "{}/api/v1/namespaces/{namespace}/services?watch=1",
            client.path
        );
        let watch = Api::of(client.https()).watch(&path).await;
        Self {
            stand,
            api,
            namespace,
            watch,
            written: 0,
        }
    }

    /// A new Service comes through the old watch, and the account has nothing to complain about.
    async fn goes_on(&mut self) {
        self.written += 1;
        let name = format!("beside-{}", self.written);
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"ports": [{"port": 80}]},
        });
        let path = format!("/api/v1/namespaces/{}/services", self.namespace);
        self.api.create(&path, &service).await;
        let mut seen = false;
        while !seen {
            let event = self.watch.next().await;
            assert!(event.is_some(), "the watch of the account beside has ended");
            seen = event.is_some_and(|event| event["object"]["metadata"]["name"] == *name);
        }
        let row = self.stand.account("steady").await;
        assert!(shows(&row, "ACTIVE", ""), "{row}");
    }
}

#[tokio::test]
async fn an_engine_that_fails_at_start_fails_its_accounts_with_the_reason_until_it_works() {
    let cluster = Testbed::shared().await.cluster();
    let namespace = cluster.api().namespace("engines").await;
    let kubeconfig = fs::read_to_string(&cluster.kubeconfig).unwrap();
    let bao = Bao::start(&Authority::root("bao")).await;
    bao.enable_kv2("kv").await;
    bao.put("kv", "shop", &json!({"kubeconfig": kubeconfig}))
        .await;
    bao.policy("reader", READ_ALL).await;
    let revoked = bao.create_token(&["reader"], "1h").await;
    bao.revoke(&revoked).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, &revoked.secret).unwrap();
    bao.seal().await;

    let accounts = [
        ("shop", "kv/shop#kubeconfig"),
        ("lost", "kv/lost#kubeconfig"),
        ("misread", "kv/shop#kubconfig"),
    ];
    let auth = format!("method: token, token-file: {}", token.display());
    let plan = plan(&accounts, &cluster.kubeconfig, engine_yaml(&bao, &auth));
    let stand = Stand::joining(plan).await;
    let mut beside = Beside::watch(&stand, cluster.api(), namespace).await;
    for (account, _) in accounts {
        let row = shown(&stand, account, "FAILED", "EngineSealed").await;
        assert!(row["next-retry"].is_string(), "{row}");
    }
    beside.goes_on().await;

    bao.unseal().await;
    for (account, _) in accounts {
        shown(&stand, account, "FAILED", "EngineUnauthenticated").await;
    }
    beside.goes_on().await;

    let good = bao.create_token(&["reader"], "1h").await;
    fs::write(&token, &good.secret).unwrap();
    shown(&stand, "shop", "ACTIVE", "").await;
    shown(&stand, "lost", "FAILED", "SecretNotFound").await;
    let row = shown(&stand, "misread", "FAILED", "SecretField").await;
    assert!(
        row["message"].as_str().unwrap().contains("`kubconfig`"),
        "{row}"
    );
    beside.goes_on().await;

    bao.put("kv", "lost", &json!({"kubeconfig": kubeconfig}))
        .await;
    let both = json!({"kubeconfig": kubeconfig, "kubconfig": kubeconfig});
    bao.put("kv", "shop", &both).await;
    shown(&stand, "lost", "ACTIVE", "").await;
    shown(&stand, "misread", "ACTIVE", "").await;
    beside.goes_on().await;
    let planted = [revoked.secret.as_str(), good.secret.as_str()];
    stand.agent.log().assert_without(&planted);
    stand.hub.log().assert_without(&planted);
}

#[tokio::test]
async fn an_engine_that_fails_later_leaves_its_account_active_on_the_credential_held() {
    let cluster = Testbed::shared().await.cluster();
    let namespace = cluster.api().namespace("engines").await;
    let kubeconfig = fs::read_to_string(&cluster.kubeconfig).unwrap();
    let secret = json!({"kubeconfig": kubeconfig});
    let bao = Bao::start(&Authority::root("bao")).await;
    bao.enable_kv2("kv").await;
    bao.put("kv", "shop", &secret).await;
    bao.policy("reader", READ_ALL).await;
    let first = bao.create_token(&["reader"], "1h").await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, &first.secret).unwrap();
    let auth = format!("method: token, token-file: {}", token.display());
    let accounts = [("shop", "kv/shop#kubeconfig")];
    let plan = plan(&accounts, &cluster.kubeconfig, engine_yaml(&bao, &auth));
    let stand = Stand::start(plan).await;
    let mut beside = Beside::watch(&stand, cluster.api(), namespace).await;

    bao.seal().await;
    stays_active(&stand, "shop", "EngineSealed").await;
    beside.goes_on().await;
    bao.unseal().await;
    stays_active(&stand, "shop", "").await;

    bao.revoke(&first).await;
    stays_active(&stand, "shop", "EngineUnauthenticated").await;
    beside.goes_on().await;
    let second = bao.create_token(&["reader"], "1h").await;
    fs::write(&token, &second.secret).unwrap();
    stays_active(&stand, "shop", "").await;

    bao.policy("reader", NOTHING).await;
    stays_active(&stand, "shop", "SecretDenied").await;
    beside.goes_on().await;
    bao.policy("reader", READ_ALL).await;
    stays_active(&stand, "shop", "").await;

    let gone = bao
        .ask(Method::DELETE, "kv/metadata/shop", &Value::Null)
        .await;
    assert!(gone.status.is_success(), "{gone:?}");
    stays_active(&stand, "shop", "SecretNotFound").await;
    beside.goes_on().await;
    bao.put("kv", "shop", &json!({"other": "field"})).await;
    stays_active(&stand, "shop", "SecretField").await;
    beside.goes_on().await;
    bao.put("kv", "shop", &json!({"kubeconfig": "planted: ["}))
        .await;
    stays_active(&stand, "shop", "KubeconfigInvalid").await;
    bao.put("kv", "shop", &secret).await;
    stays_active(&stand, "shop", "").await;
    beside.goes_on().await;
}

#[tokio::test]
async fn an_agent_logs_in_to_its_engine_with_the_token_of_a_service_account() {
    let cluster = Testbed::shared().await.cluster();
    let api = cluster.api();
    let namespace = api.namespace("engines").await;
    let kubeconfig = fs::read_to_string(&cluster.kubeconfig).unwrap();
    let bao = Bao::start(&Authority::root("bao")).await;
    bao.enable_kv2("kv").await;
    bao.put("kv", "shop", &json!({"kubeconfig": kubeconfig}))
        .await;
    bao.policy("reader", READ_ALL).await;
    let ca = fs::read_to_string(&cluster.ca).unwrap();
    bao.enable_kubernetes(&cluster.url, &ca, &cluster.token)
        .await;
    // The role is for another account at first.
    let role = async |account: &str| {
        let account = (namespace.as_str(), account);
        bao.kubernetes_role("agent", account, "vault", &["reader"])
            .await;
    };
    role("somebody").await;
    let spec = json!({"audiences": ["vault"]});
    let jwt = api.token(&namespace, "default", &spec).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, &jwt).unwrap();

    let auth = format!(
        "method: kubernetes, role: agent, token-file: {}",
        token.display()
    );
    let accounts = [("shop", "kv/shop#kubeconfig")];
    let plan = plan(&accounts, &cluster.kubeconfig, engine_yaml(&bao, &auth));
    let stand = Stand::joining(plan).await;
    let mut beside = Beside::watch(&stand, cluster.api(), namespace.clone()).await;
    shown(&stand, "shop", "FAILED", "EngineUnauthenticated").await;
    beside.goes_on().await;
    role("default").await;
    shown(&stand, "shop", "ACTIVE", "").await;

    // Its session is revoked: it logs in again, and nobody notices.
    bao.write("sys/leases/revoke-prefix/auth/kubernetes", &json!({}))
        .await;
    let version = bao.put("kv", "shop", &json!({"other": "field"})).await;
    assert_eq!(version, 2);
    stays_active(&stand, "shop", "SecretField").await;
    bao.put("kv", "shop", &json!({"kubeconfig": kubeconfig}))
        .await;
    stays_active(&stand, "shop", "").await;

    // Revoked, and the account may no longer log in.
    role("somebody").await;
    bao.write("sys/leases/revoke-prefix/auth/kubernetes", &json!({}))
        .await;
    stays_active(&stand, "shop", "EngineUnauthenticated").await;
    beside.goes_on().await;
    bao.seal().await;
    stays_active(&stand, "shop", "EngineSealed").await;
    bao.unseal().await;
    role("default").await;
    stays_active(&stand, "shop", "").await;
    beside.goes_on().await;
    stand.agent.log().assert_without(&[&jwt]);
}
