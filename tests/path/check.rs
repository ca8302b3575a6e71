//! `--check` on real parts: what is well, what is not and what to do about it; and nothing changed.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::issuer::Issuer;
use crate::support::kube::Api;
use crate::support::kubectl::Ran;
use crate::support::openbao::Bao;
use crate::support::pki::Authority;
use crate::support::sortie::{Sortie, run};
use crate::support::stand::{self, account_yaml, hub_yaml};
use crate::support::testbed::{Cluster, Testbed};

/// A folder for an agent that does not run, with its join string.
struct Bench {
    hub: Sortie,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn start(accounts: &[&str]) -> Self {
        let hub = stand::hub("24h").await;
        let folder = tempfile::tempdir().unwrap();
        let join = folder.path().join("join").display().to_string();
        let mut arguments = vec!["token", "create", "lab", "--out", &join];
        for account in accounts {
            arguments.extend(["--account", account]);
        }
        stand::ok(hub.command(&arguments).await);
        Self { hub, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn check(&self, more: &str, accounts: &str) -> Ran {
        let file = self.path("agent.yaml");
        let state = self.path("state");
        let yaml = format!(
            "name: lab\n\
             listen: {{ health: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\" }}\n\
             state-dir: {}\n\
             identity:\n  join: {{ method: token, join-file: {} }}\n\
             {more}accounts:\n{accounts}",
            state.display(),
            self.path("join").display()
        );
        fs::write(&file, yaml).unwrap();
        let ran = run(
            &["agent", "--check", "--config", file.to_str().unwrap()],
            "",
        )
        .await;
        assert!(!state.exists(), "a check has made the state folder");
        ran
    }

    async fn is_spent(&self) -> bool {
        let tokens = stand::ok(self.hub.command(&["get", "tokens", "-o", "json"]).await);
        let tokens: serde_json::Value = serde_json::from_str(&tokens.stdout).unwrap();
        tokens["items"][0]["spent"] == true
    }
}

/// The line about `what`.
#[track_caller]
fn line<'a>(ran: &'a Ran, what: &str) -> &'a str {
    let about = |line: &&str| line.get(5..).is_some_and(|rest| rest.starts_with(what));
    let found = ran.stdout.lines().find(about);
    found.unwrap_or_else(|| panic!("no line about {what}: {ran:?}"))
}

#[track_caller]
fn assert_fails(ran: &Ran, what: &str, why: &str) {
    let line = line(ran, what);
    assert!(
        line.starts_with("FAIL ") && line.contains(why),
        "{line}\nnot: {why}"
    );
    let (_, remedy) = line.rsplit_once("; ").expect("a remedy");
    assert!(!remedy.is_empty());
    assert_eq!(ran.code, Some(1), "{ran:?}");
}

#[tokio::test]
async fn all_is_well_and_nothing_is_changed() {
    let testbed = Testbed::shared().await;
    let cluster = testbed.cluster();
    let bench = Bench::start(&["shop"]).await;
    let ran = bench
        .check("", &account_yaml("shop", &cluster.kubeconfig, ""))
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stdout.lines().all(|line| line.starts_with("ok   ")),
        "{ran:?}"
    );
    let account = line(&ran, "account shop");
    assert!(
        account.contains(&format!("API server {} answers, v1.", cluster.url)),
        "{account}"
    );
    assert!(
        account.ends_with("12 of 12 cached kinds can be listed"),
        "{account}"
    );
    for what in [
        "configuration",
        "identity.join",
        "hub.enrol",
        "hub.data",
        "clock",
        "listen.health",
    ] {
        line(&ran, what);
    }
    assert!(!bench.is_spent().await);
    let agents = bench.hub.command(&["get", "agents"]).await;
    assert_eq!(agents.stderr, "no agents\n");
}

#[tokio::test]
async fn a_hub_that_is_elsewhere_or_another_is_told() {
    let testbed = Testbed::shared().await;
    let accounts = account_yaml("shop", &testbed.cluster().kubeconfig, "");
    let bench = Bench::start(&["shop"]).await;
    let data = bench.hub.address("data").await;
    let health = bench.hub.address("health").await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();

    let hub = format!("hub: {{ enrol: \"{nobody}\" }}\n");
    let ran = bench.check(&hub, &accounts).await;
    assert_fails(&ran, "hub.enrol", "could not connect");
    assert!(
        line(&ran, "account shop").starts_with("ok   "),
        "one failure hides no other line"
    );

    // Something listens there, and it is not the hub.
    let hub = format!("hub: {{ data: \"{health}\" }}\n");
    let ran = bench.check(&hub, &accounts).await;
    assert_fails(&ran, "hub.data", "TLS handshake");
    assert!(line(&ran, "hub.enrol").starts_with("ok   "));

    // The data listener is the hub's, and does not enrol.
    let hub = format!("hub: {{ enrol: \"{data}\" }}\n");
    let ran = bench.check(&hub, &accounts).await;
    assert_fails(&ran, "hub.enrol", "refused the certificate");

    // A join string of another hub: same address, other root.
    let other = Bench::start(&["shop"]).await;
    fs::copy(other.path("join"), bench.path("join")).unwrap();
    let enrol = bench.hub.address("enrol").await;
    let hub = format!("hub: {{ enrol: \"{enrol}\", data: \"{data}\" }}\n");
    let ran = bench.check(&hub, &accounts).await;
    assert_fails(&ran, "hub.enrol", "refused the certificate");
}

/// The kubeconfig with another cluster's authority in it.
fn with_other_authority(kubeconfig: &Path, folder: &Path) -> PathBuf {
    let text = fs::read_to_string(kubeconfig).unwrap();
    let ca = folder.join("other-ca.pem");
    fs::write(&ca, Authority::root("another").pem()).unwrap();
    let lines = text.lines().map(|line| {
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        if line.trim_start().starts_with("certificate-authority") {
            format!("{indent}certificate-authority: {}", ca.display())
        } else {
            line.to_owned()
        }
    });
    let path = folder.join("other.kubeconfig");
    fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    path
}

#[tokio::test]
async fn a_credential_that_does_not_work_is_told_with_its_reason() {
    let testbed = Testbed::shared().await;
    let cluster = testbed.cluster();
    let bench = Bench::start(&["a", "b", "c"]).await;
    let folder = bench.folder.path();
    let bao = Bao::start(&Authority::root("engines")).await;
    bao.enable_kv2("kv").await;
    bao.put(
        "kv",
        "shop",
        &json!({ "kubeconfig": "users: [{ user: { exec: {} } }]" }),
    )
    .await;
    let token = bench.path("bao-token");
    fs::write(&token, bao.root_token()).unwrap();
    let engines = format!(
        "engines:\n  bao: {{ engine: vault, address: \"{}\", ca-file: {}, \
         auth: {{ method: token, token-file: {token} }} }}\n  \
         spare: {{ engine: vault, address: \"https://127.0.0.1:1\", ca-file: {}, \
         auth: {{ method: token, token-file: {token} }} }}\n",
        bao.url(),
        bao.ca_file().display(),
        bao.ca_file().display(),
        token = token.display()
    );
    let secret = |name: &str, reference: &str| {
        format!(
            "  - name: {name}\n    credential: {{ secret: \"sec+vault://bao/kv/{reference}\" }}\n"
        )
    };
    let untrusted = with_other_authority(&cluster.kubeconfig, folder);
    let accounts = [
        account_yaml("untrusted", &untrusted, ""),
        account_yaml("nowhere", &bench.path("not-there.yaml"), ""),
        secret("missing", "nobody#kubeconfig"),
        secret("field", "shop#other"),
        account_yaml("good", &cluster.kubeconfig, ""),
    ]
    .concat();
    let ran = bench.check(&engines, &accounts).await;
    assert_fails(&ran, "account untrusted", "ApiUntrusted");
    assert_fails(&ran, "account nowhere", "KubeconfigInvalid");
    assert_fails(&ran, "account missing", "SecretNotFound");
    assert_fails(&ran, "account field", "SecretField");
    assert!(line(&ran, "account good").starts_with("ok   "));
    assert!(line(&ran, "engine bao").starts_with("ok   "));
    assert_fails(&ran, "engine spare", "EngineUnavailable");
    bao.seal().await;
    let ran = bench.check(&engines, &accounts).await;
    assert_fails(&ran, "account missing", "EngineSealed");
    assert_fails(&ran, "engine bao", "EngineSealed");
    assert!(!ran.stdout.contains(bao.root_token()) && !ran.stderr.contains(bao.root_token()));
    assert!(!bench.is_spent().await);
}

#[tokio::test]
async fn a_hub_that_could_start_is_told_apart_from_one_that_could_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.yaml");
    let check = ["hub", "--check", "--config", file.to_str().unwrap()];
    fs::write(&file, hub_yaml(folder.path(), "24h")).unwrap();
    let fresh = run(&check, "").await;
    assert_eq!(fresh.code, Some(0), "{fresh:?}");
    assert!(line(&fresh, "state-dir").ends_with("is made at the first start"));
    assert!(!folder.path().join("state").exists());

    let mut hub = stand::hub("24h").await;
    let running = hub.config_file();
    let running = ["hub", "--check", "--config", running.to_str().unwrap()];
    let ran = run(&running, "").await;
    assert_fails(&ran, "store", "another hub uses `");
    assert_eq!(hub.stop().await, 0);
    let before = fs::read(hub.folder().join("state").join("sortie.redb")).unwrap();
    let ran = run(&running, "").await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(line(&ran, "store").ends_with("has format 1"));
    for certificate in ["root", "intermediate", "hub"] {
        line(&ran, &format!("{certificate} certificate"));
    }
    let after = fs::read(hub.folder().join("state").join("sortie.redb")).unwrap();
    assert!(before == after, "a check has changed the store");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let yaml = hub_yaml(folder.path(), "24h");
    let yaml = yaml.replacen("data: \"127.0.0.1:0\"", &format!("data: \"{address}\""), 1);
    fs::write(&file, yaml).unwrap();
    let ran = run(&check, "").await;
    assert_fails(&ran, "listen.data", "cannot listen");
    assert!(line(&ran, "listen.enrol").starts_with("ok   "));
}

/// A kubeconfig for a service account that may ask what every agent asks, and list `resources`.
async fn restricted(api: &Api, cluster: &Cluster, folder: &Path, resources: &[&str]) -> PathBuf {
    let namespace = api.namespace("check").await;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": { "name": namespace },
        "rules": [
            { "apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"] },
            { "apiGroups": ["", "apps"], "resources": resources, "verbs": ["list", "watch"] },
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": namespace },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace },
        "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": namespace }],
    });
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    api.create(&format!("{rbac}/clusterroles"), &role).await;
    api.create(&format!("{rbac}/clusterrolebindings"), &binding)
        .await;
    let token = api.token(&namespace, "default", &json!({})).await;
    let kubeconfig = format!(
        "current-context: c\ncontexts: [{{ name: c, context: {{ cluster: c, user: u }} }}]\n\
         clusters: [{{ name: c, cluster: {{ server: '{}', certificate-authority: {} }} }}]\n\
         users: [{{ name: u, user: {{ token: {token} }} }}]\n",
        cluster.url, cluster.ca
    );
    let path = folder.join(format!("{namespace}.kubeconfig"));
    fs::write(&path, kubeconfig).unwrap();
    path
}

#[tokio::test]
async fn kinds_that_a_credential_may_not_list_are_named() {
    let cluster = Testbed::shared().await.cluster();
    let bench = Bench::start(&["some"]).await;
    let api = cluster.api();
    let some = [
        "pods",
        "services",
        "deployments",
        "replicasets",
        "statefulsets",
        "daemonsets",
    ];
    let some = restricted(&api, cluster, bench.folder.path(), &some).await;
    let none = restricted(&api, cluster, bench.folder.path(), &["events"]).await;
    let accounts = [
        account_yaml("some", &some, ""),
        account_yaml("none", &none, ""),
    ]
    .concat();
    let ran = bench.check("", &accounts).await;
    let told = line(&ran, "account some");
    assert!(
        told.starts_with("ok   ") && told.contains("6 of 12 cached kinds can be listed, not "),
        "{told}"
    );
    assert!(
        told.contains("Job.batch") && !told.contains("Pod"),
        "{told}"
    );
    assert_fails(&ran, "account none", "0 of 12 cached kinds");
}

#[tokio::test]
async fn the_refresh_token_of_an_issuer_is_not_used() {
    let authority = Authority::root("issuer");
    let issuer = Issuer::start(&authority).await;
    let testbed = issuer.testbed(&authority).await;
    let cluster = testbed.cluster();
    let bench = Bench::start(&["shop"]).await;
    let checked = async |id_token: Option<&str>| {
        let path = bench.path("oidc.yaml");
        let user = issuer.user(&authority, id_token);
        fs::write(&path, cluster.kubeconfig_as(&user)).unwrap();
        let ran = bench.check("", &account_yaml("shop", &path, "")).await;
        assert!(!format!("{ran:?}").contains("planted"), "{ran:?}");
        ran
    };
    let hour = issuer.token(3600);
    let ran = checked(Some(&hour)).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(line(&ran, "account shop").ends_with("12 of 12 cached kinds can be listed"));

    let discovery = "/.well-known/openid-configuration";
    let before = issuer
        .asked()
        .iter()
        .filter(|path| *path == discovery)
        .count();
    let ended = issuer.token(1);
    for id_token in [None, Some(&*ended)] {
        let ran = checked(id_token).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let told = format!(
            "ok   account shop: API server {} can be reached, issuer {} answers and names its token \
             endpoint; not tried: a login, because the refresh token may be good only once",
            cluster.url, issuer.url
        );
        assert_eq!(line(&ran, "account shop"), told);
    }
    let asked = issuer.asked();
    let after = asked.iter().filter(|path| *path == discovery).count();
    assert_eq!(after, before + 2);
    assert!(!asked.iter().any(|path| path == "/token"), "{asked:?}");

    let other = Authority::root("another");
    let untrusted = issuer.user(&other, None);
    let path = bench.path("untrusted.yaml");
    fs::write(&path, cluster.kubeconfig_as(&untrusted)).unwrap();
    let ran = bench.check("", &account_yaml("shop", &path, "")).await;
    assert_fails(
        &ran,
        "account shop",
        "the issuer's certificate is not trusted",
    );
}
