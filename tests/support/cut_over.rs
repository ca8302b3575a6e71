//! An agent whose kubeconfig lies in a real engine and changes there.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use super::eventually::{eventually_async, idle, within};
use super::kube::{Api, Watch};
use super::openbao::Bao;
use super::pki::Authority;
use super::planted::{self, Planted};
use super::scan::Needles;
use super::stand::{Plan, Stand};
use super::testbed::Testbed;

/// Pause between two objects while a kubeconfig is in use.
const BETWEEN: Duration = Duration::from_millis(200);

/// Time after which nothing of a credential may be left that another one has replaced.
const GONE: Duration = Duration::from_secs(5);

/// The service account whose tokens are used.
const ACCOUNT: &str = "watcher";

/// What changes in a kubeconfig.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sort {
    Certificate,
    Token,
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
pub(crate) struct CutOver {
    pub(crate) testbed: Testbed,
    pub(crate) api: Api,
    namespace: String,
    pub(crate) bao: Bao,
    pub(crate) stand: Stand,
    _folder: TempDir,
}

impl CutOver {
    /// With a first kubeconfig, which is given too, and `more` keys of its engine.
    pub(crate) async fn start(sort: Sort, more: &str) -> (Self, Planted) {
        let testbed = Testbed::start_audited(&[]).await;
        let cluster = testbed.cluster();
        let api = cluster.api();
        let namespace = api.namespace("cut-over").await;
        planted::service_account(&api, &namespace, ACCOUNT).await;
        let bao = Bao::start(&Authority::root("bao")).await;
        bao.enable_kv2("kv").await;
        let first = fresh(&testbed, &namespace, sort).await;
        bao.put("kv", "shop", &json!({"kubeconfig": first.kubeconfig}))
            .await;
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        fs::write(&token, bao.root_token()).unwrap();
        let plan = Plan {
            accounts: vec!["shop".to_owned()],
            accounts_yaml: "  - name: shop\n    \
                 credential: { secret: \"sec+vault://bao/kv/shop#kubeconfig\" }\n    \
                 operations: [{ verbs: [get, list, watch, create], kinds: [ConfigMap, Service], namespaces: [\"*\"] }]\n"
                .to_owned(),
            engines_yaml: format!(
                "  bao: {{ engine: vault, address: \"{}\", ca-file: {}, refresh: 1s, auth: {{ \
                 method: token, token-file: {} }}{more} }}\n",
                bao.url(),
                bao.ca_file().display(),
                token.display()
            ),
            agent_ttl: "24h",
        };
        let stand = Stand::start_with(&["--allow-dump"], plan).await;
        stand.wait("shop", "ACTIVE").await;
        let cut_over = Self {
            testbed,
            api,
            namespace,
            bao,
            stand,
            _folder: folder,
        };
        (cut_over, first)
    }

    /// Where the objects are that change, of a kind that the hub does not hold.
    pub(crate) fn objects(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    /// The same of a kind that it holds.
    pub(crate) fn services(&self) -> String {
        format!("/api/v1/namespaces/{}/services", self.namespace)
    }

    /// Another kubeconfig; it works.
    pub(crate) async fn next(&self, sort: Sort) -> Planted {
        fresh(&self.testbed, &self.namespace, sort).await
    }

    /// Puts a kubeconfig into the engine; gives how the tag of its version begins.
    pub(crate) async fn put(&self, kubeconfig: &str) -> String {
        let fields = json!({"kubeconfig": kubeconfig});
        format!("{}@", self.bao.put("kv", "shop", &fields).await)
    }

    /// A new kubeconfig, and objects that change until it is in use, and for `time` in all; gives
    /// how long it took to be so. What the one `before` held is looked for then.
    pub(crate) async fn rotate(
        &self,
        next: &Planted,
        before: &Planted,
        time: Duration,
        written: &mut Vec<String>,
    ) {
        let began = Instant::now();
        let used = in_use(&self.stand).await;
        let version = self.put(&next.kubeconfig).await;
        eventually_async("the new kubeconfig is in use", async || {
            self.write(written).await;
            let now = in_use(&self.stand).await;
            (now.0.starts_with(&version) && now != used).then_some(())
        })
        .await;
        self.assert_gone(before).await;
        while began.elapsed() < time {
            self.write(written).await;
            idle(BETWEEN).await;
        }
    }

    async fn write(&self, written: &mut Vec<String>) {
        let name = format!("r-{}", written.len());
        self.api.create(&self.objects(), &config_map(&name)).await;
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"clusterIP": "None"},
        });
        self.api.create(&self.services(), &service).await;
        written.push(name);
    }

    /// What is planted is in the agent's memory no more, soon.
    pub(crate) async fn assert_gone(&self, planted: &Planted) {
        let values: Vec<&[u8]> = planted.values.iter().map(|(_, value)| &value[..]).collect();
        let needles = Needles::new(&values);
        let pid = self.stand.agent.pid();
        within(GONE, "nothing of the one before is left", async || {
            (needles.scan(pid).total() == 0).then_some(())
        })
        .await;
    }
}

/// A kubeconfig that no other is alike to.
async fn fresh(testbed: &Testbed, namespace: &str, sort: Sort) -> Planted {
    match sort {
        Sort::Certificate => planted::certificate(testbed.cluster()),
        Sort::Token => planted::token_of(testbed.cluster(), namespace, ACCOUNT).await,
    }
}

pub(crate) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

/// The names that a watch tells as added, as many as these.
pub(crate) async fn added(watch: &mut Watch, count: usize) -> Vec<String> {
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
