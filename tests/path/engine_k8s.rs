//! Accounts whose kubeconfig lies in a Secret of a real API server.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sortie::credential::kubernetes::{Access, Kubernetes, Settings};
use sortie::credential::{Engine as _, FetchErrorKind, Key, Locator, Places, Reference};
use sortie::entropy;
use tokio::time::{Instant, timeout};

use crate::support::cache::progress;
use crate::support::eventually::{bounded, eventually, eventually_async, idle};
use crate::support::fake::Client;
use crate::support::kube::Api;
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::{Cluster, Testbed};

/// Changes of which the delay is measured.
const CHANGES: usize = 20;

/// Time within which a change of a watched Secret is seen.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// A kubeconfig with everything in it.
pub(crate) fn kubeconfig(cluster: &Cluster, token: &str) -> String {
    cluster.kubeconfig_as(&json!({"token": token}))
}

/// A `ServiceAccount` with these rights in its namespace, and a token of it.
async fn account(api: &Api, namespace: &str, name: &str, rules: &Value) -> String {
    let at = |group: &str, resource: &str| format!("{group}/namespaces/{namespace}/{resource}");
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let metadata = json!({"name": name});
    let accounts = at("/api/v1", "serviceaccounts");
    api.create(
        &accounts,
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
    )
    .await;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": metadata, "rules": rules,
    });
    api.create(&at(rbac, "roles"), &role).await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
    });
    api.create(&at(rbac, "rolebindings"), &binding).await;
    api.token(namespace, name, &json!({})).await
}

/// The rights on the Secret `shop` alone.
fn on_shop(verbs: &[&str]) -> Value {
    json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["shop"], "verbs": verbs}])
}

async fn create_secret(api: &Api, namespace: &str, name: &str, fields: &[(&str, &str)]) {
    let path = format!("/api/v1/namespaces/{namespace}/secrets");
    let data: Value = fields
        .iter()
        .map(|(key, text)| ((*key).to_owned(), json!(STANDARD.encode(text))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data,
    });
    api.create(&path, &secret).await;
}

async fn set_field(api: &Api, namespace: &str, name: &str, field: &str, text: Option<&str>) {
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let encoded = text.map(|text| STANDARD.encode(text));
    api.patch(&path, &json!({"data": {field: encoded}})).await;
}

/// As the configuration would make it, from a kubeconfig beside it.
fn engine(folder: &Path, kubeconfig: &str) -> (Kubernetes, PathBuf) {
    let path = folder.join("engine.kubeconfig");
    fs::write(&path, kubeconfig).expect("written");
    let access = Access::Kubeconfig {
        path: path.clone(),
        context: None,
    };
    let settings = Settings {
        access,
        namespace: None,
    };
    (Kubernetes::new(settings, entropy::system()), path)
}

fn shop(namespace: &str) -> Reference {
    Reference {
        profile: None,
        locator: Locator::KubernetesSecret {
            namespace: Some(namespace.to_owned()),
            name: "shop".to_owned(),
        },
        key: Key::Named("config".to_owned()),
        base64: false,
    }
}

#[tokio::test]
async fn twenty_changes_of_a_secret_are_each_seen_within_a_second() {
    let places = Places::default();
    let cluster = Testbed::shared().await.cluster();
    let api = cluster.api();
    let namespace = api.namespace("watched").await;
    create_secret(&api, &namespace, "shop", &[("config", "value-0")]).await;
    let token = account(&api, &namespace, "reader", &on_shop(&["get", "watch"])).await;
    let folder = tempfile::tempdir().unwrap();
    let (engine, _) = engine(folder.path(), &kubeconfig(cluster, &token));
    let reference = shop(&namespace);
    let mut delays = Vec::new();
    for number in 1..=CHANGES {
        let before = engine.fetch(&reference).await.unwrap();
        let version = before.version.unwrap();
        let mut changed = engine.changed(&reference, &version, &places).unwrap();
        // The watch is open and tells nothing.
        let early = timeout(Duration::from_millis(300), &mut changed).await;
        assert!(early.is_err(), "nothing has changed");
        let value = format!("value-{number}");
        let began = Instant::now();
        let changing = async {
            set_field(&api, &namespace, "shop", "config", Some(&value)).await;
        };
        let ((), seen) = tokio::join!(changing, async {
            bounded("the change is seen", changed).await;
            began.elapsed()
        });
        delays.push(seen);
        let fetched = engine.fetch(&reference).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test compares it")]
        let bytes = fetched.document.expose_secret();
        assert_eq!(bytes, value.as_bytes());
    }
    delays.sort();
    let (median, worst) = (delays[CHANGES / 2], delays[CHANGES - 1]);
    progress(&format!(
        "{CHANGES} changes of a Secret seen: median {median:?}, worst {worst:?}"
    ));
    assert!(worst <= SEEN_WITHIN, "{delays:?}");

    let version = engine.fetch(&reference).await.unwrap().version.unwrap();
    let changed = engine.changed(&reference, &version, &places).unwrap();
    let path = format!("/api/v1/namespaces/{namespace}/secrets/shop");
    let (_, ()) = tokio::join!(api.delete(&path), bounded("the deletion is seen", changed));
    let failure = engine.fetch(&reference).await.unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::NotFound);
}

#[tokio::test]
async fn what_a_real_server_refuses_is_told_apart() {
    let places = Places::default();
    let cluster = Testbed::shared().await.cluster();
    let api = cluster.api();
    let namespace = api.namespace("refused").await;
    create_secret(&api, &namespace, "shop", &[("config", "value")]).await;
    create_secret(&api, &namespace, "other", &[("config", "value")]).await;
    let token = account(&api, &namespace, "reader", &on_shop(&["get"])).await;
    let folder = tempfile::tempdir().unwrap();
    let (engine, path) = engine(folder.path(), &kubeconfig(cluster, &token));
    let reference = shop(&namespace);
    let version = engine.fetch(&reference).await.unwrap().version.unwrap();
    let is_current = engine.is_current(&reference, &version).await.unwrap();
    assert_eq!(is_current, Some(true));
    // Without the right to watch nothing ends, and it is not asked for again.
    let changed = engine.changed(&reference, &version, &places).unwrap();
    assert!(timeout(Duration::from_secs(2), changed).await.is_err());
    assert!(engine.changed(&reference, &version, &places).is_none());

    let kind = async |name: &str, key: &str| {
        let mut reference = shop(&namespace);
        reference.locator = Locator::KubernetesSecret {
            namespace: Some(namespace.clone()),
            name: name.to_owned(),
        };
        reference.key = Key::Named(key.to_owned());
        engine.fetch(&reference).await.unwrap_err().kind
    };
    assert_eq!(kind("other", "config").await, FetchErrorKind::Denied);
    let field = "missing".to_owned();
    assert_eq!(
        kind("shop", "missing").await,
        FetchErrorKind::Invalid { field }
    );
    assert_eq!(engine.probe().await, Ok(()));
    // The kubeconfig of the connection is read anew for each errand.
    fs::write(&path, kubeconfig(cluster, "not-a-token")).unwrap();
    assert_eq!(
        kind("shop", "config").await,
        FetchErrorKind::Unauthenticated
    );
    fs::write(&path, kubeconfig(cluster, &cluster.token)).unwrap();
    assert_eq!(kind("gone", "config").await, FetchErrorKind::NotFound);
}

fn stand_plan(accounts: &[&str], yaml: String, folder: &Path) -> Plan {
    Plan {
        accounts: accounts.iter().map(|name| (*name).to_owned()).collect(),
        accounts_yaml: yaml,
        engines_yaml: format!(
            "  ops: {{ engine: k8s, kubeconfig-file: {}, refresh: 1s, default: true }}\n",
            folder.join("engine.kubeconfig").display()
        ),
        agent_ttl: "24h",
    }
}

/// A stand whose account `shop` has its kubeconfig in the Secret `shop`, which the engine reads as a
/// `ServiceAccount` of its own, from a kubeconfig in `folder`; and that one's token.
async fn stand_of_shop(cluster: &Cluster, namespace: &str, folder: &Path) -> (Stand, String) {
    let api = cluster.api();
    let reader = account(&api, namespace, "reader", &on_shop(&["get", "watch"])).await;
    let path = folder.join("engine.kubeconfig");
    fs::write(&path, kubeconfig(cluster, &reader)).expect("written");
    let yaml = format!(
        "  - name: shop\n    credential: {{ secret: \"encryptedFile:k8s!n:Shop!k:config!ns:{namespace}\" }}\n"
    );
    let stand = Stand::start(stand_plan(&["shop"], yaml, folder)).await;
    (stand, reader)
}

/// A new Service comes through the hub.
pub(crate) async fn streams(stand: &Stand, api: &Api, namespace: &str, account: &str) {
    let client = Client::read(
        &stand
            .kubeconfig(account, &format!("reader-{account}"))
            .await,
    );
    let path = format!(
        "{}/api/v1/namespaces/{namespace}/services?watch=1",
        client.path
    );
    let mut watch = Api::of(client.https()).watch(&path).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("new-{account}")},
        "spec": {"ports": [{"port": 80}]},
    });
    api.create(
        &format!("/api/v1/namespaces/{namespace}/services"),
        &service,
    )
    .await;
    let name = service["metadata"]["name"].clone();
    let mut seen = false;
    while !seen {
        let event = watch.next().await.expect("the watch goes on");
        seen = event["object"]["metadata"]["name"] == name;
    }
}

#[tokio::test]
async fn an_account_streams_from_a_secret_and_uses_the_new_one_after_a_change() {
    let testbed = Testbed::start_audited(&[]).await;
    let cluster = testbed.cluster();
    let api = cluster.api();
    let namespace = api.namespace("rotating").await;
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    for name in ["first", "second"] {
        account(&api, &namespace, name, &all).await;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                        "name": "cluster-admin"},
        });
        let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        api.create(bindings, &binding).await;
    }
    let first = api.token(&namespace, "first", &json!({})).await;
    let second = api.token(&namespace, "second", &json!({})).await;
    let text = kubeconfig(cluster, &first);
    create_secret(&api, &namespace, "shop", &[("config", &text)]).await;
    let folder = tempfile::tempdir().unwrap();
    let (stand, reader) = stand_of_shop(cluster, &namespace, folder.path()).await;
    streams(&stand, &api, &namespace, "shop").await;

    let text = kubeconfig(cluster, &second);
    set_field(&api, &namespace, "shop", "config", Some(&text)).await;
    let user = format!("system:serviceaccount:{namespace}:second");
    eventually("the API server is asked by the new account", || {
        let by_agent = |entry: &Value| {
            entry["userAgent"]
                .as_str()?
                .starts_with("sortie")
                .then_some(())
        };
        testbed
            .audit()
            .into_iter()
            .find(|entry| entry["user"]["username"] == *user && by_agent(entry).is_some())
    })
    .await;
    stand.wait("shop", "ACTIVE").await;
    let planted = [first.as_str(), second.as_str(), reader.as_str()];
    stand.agent.log().assert_without(&planted);
    stand.hub.log().assert_without(&planted);
}

/// For how long it is counted how often a Secret that is gone is asked for.
const COUNTED: Duration = Duration::from_secs(3);

/// How often it may be asked for in that time: with a refresh of one second it is looked at three times
/// in it, each time with a handful of requests. Without a pause it was asked for 567 times.
const ASKED: usize = 40;

#[tokio::test]
async fn a_secret_that_is_gone_or_of_no_use_is_left_alone_until_it_changes() {
    let testbed = Testbed::start_audited(&[]).await;
    let cluster = testbed.cluster();
    let api = cluster.api();
    let namespace = api.namespace("gone").await;
    let good = fs::read_to_string(&cluster.kubeconfig).unwrap();
    create_secret(&api, &namespace, "shop", &[("config", &good)]).await;
    let folder = tempfile::tempdir().unwrap();
    let (stand, _reader) = stand_of_shop(cluster, &namespace, folder.path()).await;

    let secret = format!("/api/v1/namespaces/{namespace}/secrets/shop");
    let by_reader = format!("system:serviceaccount:{namespace}:reader");
    let asked = || {
        let entries = testbed.audit().into_iter();
        entries
            .filter(|entry| entry["user"]["username"] == *by_reader)
            .count()
    };
    let shows = async |reason: &str| {
        let what = format!("the account is ACTIVE ({reason})");
        eventually_async(&what, async || {
            let row = stand.account("shop").await;
            (row["state"] == "ACTIVE" && row["reason"] == reason).then_some(())
        })
        .await;
    };
    set_field(&api, &namespace, "shop", "config", Some("no kubeconfig")).await;
    shows("KubeconfigInvalid").await;
    let before = asked();
    idle(COUNTED).await;
    assert!(asked() - before <= ASKED, "of no use: {}", asked() - before);
    set_field(&api, &namespace, "shop", "config", Some(&good)).await;
    shows("").await;
    api.delete(&secret).await;
    shows("SecretNotFound").await;
    let before = asked();
    idle(COUNTED).await;
    assert!(asked() - before <= ASKED, "gone: {}", asked() - before);
    create_secret(&api, &namespace, "shop", &[("config", &good)]).await;
    shows("").await;
}

#[tokio::test]
async fn each_field_of_a_secret_is_an_account_and_they_come_and_go_with_it() {
    let cluster = Testbed::shared().await.cluster();
    let api = cluster.api();
    let namespace = api.namespace("fields").await;
    let text = kubeconfig(cluster, &cluster.token);
    let fields = [("eu", text.as_str()), ("us", &text), ("_odd", &text)];
    create_secret(&api, &namespace, "shop", &fields).await;
    let folder = tempfile::tempdir().unwrap();
    let reader = account(&api, &namespace, "reader", &on_shop(&["get", "watch"])).await;
    let path = folder.path().join("engine.kubeconfig");
    fs::write(&path, kubeconfig(cluster, &reader)).unwrap();
    let yaml = format!(
        "  - name: \"*\"\n    credential: {{ secret: \"sec+k8s://ops/{namespace}/shop#*\" }}\n"
    );
    let plan = stand_plan(&["eu", "us", "asia"], yaml, folder.path());
    let stand = Stand::joining(plan).await;
    stand.wait("eu", "ACTIVE").await;
    stand.wait("us", "ACTIVE").await;
    streams(&stand, &api, &namespace, "eu").await;
    let left_out = stand
        .agent
        .logged("a field of the secret is left out")
        .await;
    assert_eq!(left_out.text("field"), Some("_odd"));

    set_field(&api, &namespace, "shop", "asia", Some(&text)).await;
    stand.wait("asia", "ACTIVE").await;
    set_field(&api, &namespace, "shop", "eu", None).await;
    stand.wait("eu", "STALE").await;
    for name in ["us", "asia"] {
        let row = stand.account(name).await;
        assert_eq!(row["state"], "ACTIVE", "{row}");
    }
    let log = stand.agent.log();
    let followed: Vec<_> = log
        .entries()
        .filter(|entry| entry.message() == Some("accounts follow the fields of a secret"))
        .map(|entry| {
            ["added", "changed", "removed"]
                .map(|field| entry.text(field).unwrap_or_default().to_owned())
        })
        .collect();
    let told = [["eu,us", "", ""], ["asia", "", ""], ["", "", "eu"]];
    assert_eq!(followed, told.map(|row| row.map(str::to_owned)));

    // The whole Secret is gone: every account goes by its own field, the set stays.
    let path = format!("/api/v1/namespaces/{namespace}/secrets/shop");
    api.delete(&path).await;
    eventually_async("the engine says that the Secret is gone", async || {
        let row = stand.account("us").await;
        (row["reason"] == "SecretNotFound").then_some(())
    })
    .await;
    assert!(stand.account("asia").await["state"].is_string());
}
