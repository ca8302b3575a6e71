//! Real Kubernetes control planes: `tests/testbed`, built once per machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::cache;
use super::kube::Api;
use super::server::Server;

/// What the audit log holds: who did what to which object, once per request.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";

/// One or more control planes in one process.
#[derive(Debug)]
pub(crate) struct Testbed {
    server: Server,
    clusters: Vec<Cluster>,
    program: String,
    folder: PathBuf,
    arguments: Vec<String>,
    starts: u32,
}

/// One control plane, as the testbed announces it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Cluster {
    /// `https://127.0.0.1:PORT`.
    pub(crate) url: String,
    /// Path of a kubeconfig with a client certificate of `system:masters`.
    pub(crate) kubeconfig: PathBuf,
    /// A bearer token of a user in `system:masters`.
    pub(crate) token: String,
    /// Path of the certificate authority.
    pub(crate) ca: String,
}

impl Cluster {
    /// A kubeconfig of this cluster for this `user`, as one stands in a kubeconfig.
    pub(crate) fn kubeconfig_as(&self, user: &Value) -> String {
        let ca = fs::read(&self.ca).expect("the authority is readable");
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {
                "server": self.url,
                "certificate-authority-data": STANDARD.encode(ca),
            }}],
            "users": [{"name": "u", "user": user}],
        })
        .to_string()
    }

    /// A client with all rights.
    pub(crate) fn api(&self) -> Api {
        Api::new(&self.url, &self.ca, &self.token)
    }
}

impl Testbed {
    /// The one of this test binary: one cluster with one node. Give each test its own namespace.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Testbed> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::start(&[])).await
    }

    /// Starts one of its own; `arguments` are the testbed's (`-clusters 3`, `-nodes 0`), after
    /// `--` those of kube-apiserver.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let (program, folder) = (program(), state_folder());
        Self::start_in(
            program,
            folder,
            arguments.iter().map(ToString::to_string).collect(),
        )
        .await
    }

    /// As [`Testbed::start`], with an audit log. `arguments` must not contain `--`.
    pub(crate) async fn start_audited(arguments: &[&str]) -> Self {
        Self::start_audited_with(arguments, &[]).await
    }

    /// As [`Testbed::start_audited`]; `flags` are kube-apiserver's.
    pub(crate) async fn start_audited_with(arguments: &[&str], flags: &[&str]) -> Self {
        let (program, folder) = (program(), state_folder());
        let policy = folder.join("audit.yaml");
        fs::write(&policy, AUDIT_POLICY).expect("the audit policy is written");
        let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        all.push("--".to_owned());
        all.push(format!("--audit-policy-file={}", policy.display()));
        all.push(format!(
            "--audit-log-path={}",
            folder.join("audit.log").display()
        ));
        all.extend(flags.iter().map(ToString::to_string));
        Self::start_in(program, folder, all).await
    }

    async fn start_in(program: String, folder: PathBuf, arguments: Vec<String>) -> Self {
        let (server, clusters) = launch(&program, &folder, &arguments, 0, 0).await;
        Self {
            program,
            server,
            clusters,
            folder,
            arguments,
            starts: 1,
        }
    }

    /// The first cluster.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.clusters[0]
    }

    /// All clusters, in order.
    pub(crate) fn clusters(&self) -> &[Cluster] {
        &self.clusters
    }

    /// The process that holds them all.
    pub(crate) const fn server(&self) -> &Server {
        &self.server
    }

    /// Kills the servers at once; their state stays for [`Testbed::start_again`].
    pub(crate) async fn kill(&mut self) {
        self.server.keep_folder();
        self.server.kill().await;
    }

    /// Starts killed servers again, with the same ports, authorities, keys and objects.
    pub(crate) async fn start_again(&mut self) {
        let port = self.clusters[0]
            .url
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        let port = port.expect("the URL has a port");
        let (server, clusters) = launch(
            &self.program,
            &self.folder,
            &self.arguments,
            port,
            self.starts,
        )
        .await;
        self.starts += 1;
        self.server = server;
        self.clusters = clusters;
    }

    /// The audit log so far, one entry per request.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.folder.join("audit.log")).unwrap_or_default();
        let complete = log
            .rsplit_once('\n')
            .map_or("", |(complete, _rest)| complete);
        complete
            .lines()
            .map(|line| serde_json::from_str(line).expect("an audit entry is JSON"))
            .collect()
    }

    /// Lists, streaming ones too, that Sortie has asked for so far.
    pub(crate) fn lists(&self) -> Vec<String> {
        let lists = self.audit().into_iter().filter_map(|entry| {
            let agent = entry["userAgent"].as_str().unwrap_or_default();
            let uri = entry["requestURI"].as_str().unwrap_or_default();
            // A watch is told when it begins and again when it ends.
            let streaming =
                entry["stage"] == "ResponseStarted" && uri.contains("sendInitialEvents=true");
            let list = entry["stage"] == "ResponseComplete" && entry["verb"] == "list";
            (agent.starts_with("sortie") && (list || streaming)).then(|| uri.to_owned())
        });
        lists.collect()
    }
}

/// The testbed's program, built when its sources have changed.
fn program() -> String {
    cache::require_go();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/build.sh");
    let path = cache::prepare(
        "building a kube-apiserver from Go modules",
        &mut Command::new(script),
        "Go 1.26 or newer and, the first time, its module proxy are needed",
    );
    path.trim().to_owned()
}

/// A folder that the supervisor removes; made last, so that nothing before it leaves one behind.
fn state_folder() -> PathBuf {
    TempDir::with_prefix("sortie-testbed-")
        .expect("a folder")
        .keep()
}

async fn launch(
    program: &str,
    folder: &Path,
    arguments: &[String],
    port: u16,
    start: u32,
) -> (Server, Vec<Cluster>) {
    let mut command = Command::new(program);
    command.arg("-dir").arg(folder.join("state"));
    command.arg("-port").arg(port.to_string()).args(arguments);
    let wanted = wanted_clusters(arguments);
    let stem = folder.join(format!("testbed-{start}"));
    let server = Server::start(&command, &stem, Some(folder));
    let clusters = server
        .wait_for("the testbed is ready", |server| {
            let out = server.stdout();
            let complete = out
                .rsplit_once('\n')
                .map_or("", |(complete, _rest)| complete);
            let lines: Vec<&str> = complete.lines().collect();
            (lines.len() == wanted).then(|| lines.into_iter().map(announced).collect())
        })
        .await;
    (server, clusters)
}

fn announced(line: &str) -> Cluster {
    serde_json::from_str(line).expect("the testbed announces a cluster")
}

/// How many clusters `arguments` ask for.
fn wanted_clusters(arguments: &[String]) -> usize {
    arguments
        .windows(2)
        .find(|pair| pair[0] == "-clusters")
        .map_or(1, |pair| pair[1].parse().expect("a number of clusters"))
}
