//! Accounts that cannot be served, as `sortie get accounts` tells it, and a hub whose disk fills.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::page::{Page, compare};
use crate::support::double::{Double, Settings, TOKEN};
use crate::support::eventually::{eventually, eventually_async};
use crate::support::matrix::fill_disk;
use crate::support::openbao::Bao;
use crate::support::pki::Authority;
use crate::support::sortie::Sortie;
use crate::support::stand::{Plan, agent_with, hub_yaml, ok};
use crate::support::testbed::Testbed;

const TEXT: [&str; 2] = ["--log-format", "text"];

/// What the accounts of this file are made from.
struct Parts {
    folder: TempDir,
    double: Double,
    frozen: Double,
    bao: Bao,
}

impl Parts {
    async fn start() -> Self {
        let folder = TempDir::with_prefix("sortie-mistake-").unwrap();
        let (double, frozen) = (
            Double::start(Settings::default()),
            Double::start(Settings::default()),
        );
        frozen.freeze(true);
        let cluster = Testbed::shared().await.cluster();
        let bao = Bao::start(&Authority::root("bao")).await;
        bao.enable_kv2("kv").await;
        let secret = json!({"kubeconfig": double.kubeconfig(&double.url())});
        bao.put("kv", "shop", &secret).await;
        let ca = fs::read_to_string(&cluster.ca).unwrap();
        bao.enable_kubernetes(&cluster.url, &ca, &cluster.token)
            .await;
        fs::write(folder.path().join("vault-token"), bao.root_token()).unwrap();
        fs::write(folder.path().join("pod-token"), &cluster.token).unwrap();
        Self {
            folder,
            double,
            frozen,
            bao,
        }
    }

    /// Writes a kubeconfig; gives its path.
    fn kubeconfig(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{name}.yaml"));
        fs::write(&path, text).unwrap();
        path
    }

    /// Accounts whose kubeconfig is a file.
    fn of_files(&self, nowhere: &str) -> Vec<(&'static str, String)> {
        let good = self.double.kubeconfig(&self.double.url());
        let other_ca = Double::start(Settings::default());
        let texts = [
            ("api-wrong-ca", other_ca.kubeconfig(&self.double.url())),
            ("api-401", good.replace(TOKEN, "another-token")),
            ("api-unreachable", self.double.kubeconfig(nowhere)),
            ("api-hung", self.frozen.kubeconfig(&self.frozen.url())),
            (
                "kubeconfig-exec",
                good.replace(
                    &format!("token: {TOKEN}"),
                    "exec: { apiVersion: client.authentication.k8s.io/v1, \
                     command: /usr/local/bin/aws, args: [eks, get-token] }",
                ),
            ),
            (
                "kubeconfig-insecure",
                good.replace(
                    "certificate-authority-data:",
                    "insecure-skip-tls-verify: true #",
                ),
            ),
            (
                "kubeconfig-not-yaml",
                "apiVersion: v1\nclusters: [\n".to_owned(),
            ),
        ];
        let file = |(name, text): (&'static str, String)| {
            let path = self.kubeconfig(name, &text);
            (name, format!("kubeconfig-file: {}", path.display()))
        };
        let mut accounts: Vec<_> = texts.into_iter().map(file).collect();
        let missing = self.folder.path().join("missing.yaml");
        let lab = self.kubeconfig("lab", &good);
        accounts.push((
            "kubeconfig-missing",
            format!("kubeconfig-file: {}", missing.display()),
        ));
        accounts.push((
            "context-missing",
            format!("kubeconfig-file: {}, context: prod", lab.display()),
        ));
        accounts
    }

    /// Accounts whose kubeconfig is in an engine.
    fn of_engines() -> Vec<(&'static str, String)> {
        [
            ("vault-role-missing", "pod/kv/shop#kubeconfig"),
            ("vault-unreachable", "gone/kv/shop#kubeconfig"),
            ("vault-wrong-ca", "strange/kv/shop#kubeconfig"),
            ("secret-missing", "bao/kv/lost#kubeconfig"),
            ("secret-field-missing", "bao/kv/shop#kubconfig"),
            ("secret-mount-missing", "bao/secret/shop#kubeconfig"),
        ]
        .map(|(name, reference)| (name, format!("secret: \"sec+vault://{reference}\"")))
        .to_vec()
    }

    fn engines_yaml(&self, nowhere: &str) -> String {
        let folder = self.folder.path();
        let token = format!(
            "method: token, token-file: {}",
            folder.join("vault-token").display()
        );
        let pod = format!(
            "method: kubernetes, role: sortie, token-file: {}",
            folder.join("pod-token").display()
        );
        let engine = |name: &str, url: &str, ca: &Path, auth: &str| {
            format!(
                "  {name}: {{ engine: vault, address: \"{url}\", ca-file: {}, auth: {{ {auth} }} }}\n",
                ca.display()
            )
        };
        let ca = self.bao.ca_file();
        [
            engine("bao", &self.bao.url(), ca, &token),
            engine("pod", &self.bao.url(), ca, &pod),
            engine("gone", nowhere, ca, &token),
            engine("strange", &self.bao.url(), &self.double.ca_file(), &token),
        ]
        .concat()
    }
}

/// The reason that a mistake is told with.
fn reason(name: &str) -> &'static str {
    match name {
        "api-401" => "ApiUnauthorized",
        "api-hung" | "api-unreachable" => "ApiUnreachable",
        "api-wrong-ca" => "ApiUntrusted",
        "kubeconfig-exec" => "ExecUnsupported",
        "secret-field-missing" => "SecretField",
        "secret-missing" | "secret-mount-missing" => "SecretNotFound",
        "vault-role-missing" => "EngineUnauthenticated",
        "vault-unreachable" | "vault-wrong-ca" => "EngineUnavailable",
        _ => "KubeconfigInvalid",
    }
}

fn account_yaml((name, credential): &(&'static str, String)) -> String {
    format!("  - {{ name: {name}, credential: {{ {credential} }} }}\n")
}

/// A hub that logs as people read it.
async fn hub() -> Sortie {
    let hub = Sortie::start("hub", &TEXT, |folder| hub_yaml(folder, "24h"));
    eventually("the hub listens", || {
        hub.stderr().contains(" listening ").then_some(())
    })
    .await;
    hub
}

async fn wait(hub: &Sortie, account: &str, state: &str) {
    let line = [
        "get",
        "accounts",
        account,
        "--wait",
        state,
        "--timeout",
        "60s",
    ];
    ok(hub.command(&line).await);
}

/// What is seen of an account once it has this state and reason.
async fn row(
    hub: &Sortie,
    parts: &Parts,
    name: &'static str,
    (state, reason): (&str, &str),
) -> Page {
    wait(hub, name, state).await;
    let json = ["get", "accounts", name, "-o", "json"];
    eventually_async(&format!("{name} has the reason `{reason}`"), async || {
        let told = hub.command(&json).await.stdout;
        let rows: Value = serde_json::from_str(&told).ok()?;
        (rows["items"][0]["reason"] == reason).then_some(())
    })
    .await;
    let ran = ok(hub.command(&["get", "accounts", name]).await);
    let page = Page::new(name).within(parts.folder.path());
    page.table(&format!("sortie get accounts {name}"), &ran)
}

async fn taken(hub: &Sortie, parts: &Parts) -> Page {
    let lab = parts.folder.path().join("lab.yaml");
    let plan = Plan {
        accounts: Vec::new(),
        accounts_yaml: account_yaml(&("steady", format!("kubeconfig-file: {}", lab.display()))),
        engines_yaml: String::new(),
        agent_ttl: "24h",
    };
    let rival = agent_with(&TEXT, hub, "rival", &plan, "").await;
    let telling = "AccountTaken";
    let log = eventually("the rival is told", || {
        let log = rival.stderr();
        let whole = log.rsplit_once('\n')?.0.to_owned();
        whole.contains(telling).then_some(whole)
    })
    .await;
    let page = Page::new("taken").within(rival.folder());
    page.runs("sortie agent --config agent.yaml", &log, telling)
}

/// A disk that fills while the hub runs, and has room again.
async fn full_disk(hub: &Sortie, parts: &Parts) -> Page {
    parts.double.drive("pods", 20);
    fill_disk(hub, true);
    let failed = "cannot write the store";
    eventually("the hub tells it", || {
        hub.stderr().contains(failed).then_some(())
    })
    .await;
    let refused = hub
        .command(&["client", "create", "me", "--account", "steady"])
        .await;
    fill_disk(hub, false);
    let healed = "the store can be written again";
    eventually("the hub stores again", || {
        hub.stderr().contains(&format!("{healed}\n")).then_some(())
    })
    .await;
    parts.double.drive("pods", 0);
    let log = hub.stderr();
    let log = log
        .split_inclusive('\n')
        .filter(|line| !line.contains(" sortie::audit:"));
    let log: String = log.collect();
    assert_eq!(log.matches(failed).count(), 1, "{log}");
    Page::new("disk-fills")
        .within(hub.folder())
        .ran("sortie client create me --account steady", &refused)
        .runs("sortie hub --config hub.yaml", &log, healed)
}

#[tokio::test]
async fn why_an_account_cannot_be_served() {
    let (parts, hub) = tokio::join!(Parts::start(), hub());
    let held = TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nowhere = format!("https://{}", held.local_addr().unwrap());
    let mut failing = parts.of_files(&nowhere);
    failing.extend(Parts::of_engines());
    let good = parts.double.write_kubeconfig();
    let good = format!("kubeconfig-file: {}", good.display());
    let served = [("steady", good.clone()), ("pending", good)];
    let named = failing.iter().map(|(name, _)| (*name).to_owned());
    let plan = Plan {
        accounts: named.chain(["steady".to_owned()]).collect(),
        accounts_yaml: failing.iter().chain(&served).map(account_yaml).collect(),
        engines_yaml: parts.engines_yaml(&nowhere),
        agent_ttl: "24h",
    };
    let _agent = agent_with(&TEXT, &hub, "lab", &plan, "").await;
    wait(&hub, "steady", "ACTIVE").await;
    let rows = failing
        .iter()
        .map(|(name, _)| row(&hub, &parts, name, ("FAILED", reason(name))));
    let mut pages = join_all(rows).await;
    pages.push(row(&hub, &parts, "pending", ("PENDING", "")).await);
    pages.push(taken(&hub, &parts).await);
    pages.push(full_disk(&hub, &parts).await);
    compare("account", &pages);
}
