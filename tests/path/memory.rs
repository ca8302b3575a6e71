//! Where Secret values are looked for, and not found: memory, logs, the store, answers.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use sortie::entropy;
use tempfile::TempDir;

use crate::support::eventually::eventually_async;
use crate::support::facade::Facade;
use crate::support::kube::Api;
use crate::support::kubectl::{self, Kubectl};
use crate::support::scan::{Found, Needles};
use crate::support::server::Server;
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::Testbed;

/// Secrets that are planted.
const SECRETS: usize = 500;

/// Values that each of them has, one after the other: three changes while it is watched.
const ROUNDS: usize = 4;

/// Requests to the API server at once.
const AT_ONCE: usize = 8;

/// Memory may be read, and everything is logged that ever could be.
const OPTIONS: [&str; 3] = ["--allow-dump", "--log-level", "trace"];

/// Secrets are cached, beside what most accounts cache.
const KINDS: &str = "    kinds: { cached: [Secret, Namespace, Deployment.apps, Pod] }\n";

#[tokio::test]
async fn no_value_of_a_watched_secret_is_left_in_agent_or_hub() {
    let testbed = Testbed::shared().await;
    let cluster = testbed.cluster();
    let api = cluster.api();
    let namespace = api.namespace("memory").await;
    let values = Values::draw(SECRETS, ROUNDS);
    values.plant(&api, &namespace, 0).await;

    let stand = Stand::start_with(&OPTIONS, Plan::one("lab", &cluster.kubeconfig, KINDS)).await;
    let kubeconfig = stand.kubeconfig("lab", "visitor").await;
    let facade = Facade::of(&kubeconfig);
    let through = Watcher::start(&kubeconfig, &namespace);
    let direct = Watcher::start(&cluster.kubeconfig, &namespace);
    for watcher in [&through, &direct] {
        watcher.told(SECRETS).await;
    }
    for round in 1..ROUNDS {
        values.plant(&api, &namespace, round).await;
    }
    let path = format!("/api/v1/namespaces/{namespace}/secrets");
    let wanted = versions(&api.get(&path).await);
    eventually_async("the facade has every change", async || {
        (versions(&facade.get(&path).await) == wanted).then_some(())
    })
    .await;
    for watcher in [&through, &direct] {
        watcher.told(SECRETS * ROUNDS).await;
    }
    quiescence().await;

    let needles = values.needles();
    let control = needles.scan(direct.server.pid());
    println!(
        "kubectl get secrets -w: {} of {} values",
        control.values.len(),
        values.count()
    );
    assert!(
        control.values.len() > SECRETS,
        "the scanner finds what is there: {control:?}"
    );
    assert_clean("the agent's memory", &needles.scan(stand.agent.pid()));
    assert_clean("the hub's memory", &needles.scan(stand.hub.pid()));

    let answer = facade.read(&path).await;
    assert!(answer.len() > SECRETS * 200, "{} bytes", answer.len());
    assert_clean("a list at the facade", &needles.look(&answer));
    assert_clean(
        "a watch at the facade",
        &needles.look(through.server.stdout().as_bytes()),
    );
    assert_clean(
        "the agent's memory after answers",
        &needles.scan(stand.agent.pid()),
    );
    assert_nothing_kept(&needles, &stand);
}

#[tokio::test]
async fn no_value_of_a_written_secret_is_left_a_second_after_the_answer() {
    let testbed = Testbed::shared().await;
    let cluster = testbed.cluster();
    let api = cluster.api();
    let namespace = api.namespace("written").await;
    let stand = Stand::start_with(&OPTIONS, Plan::one("lab", &cluster.kubeconfig, KINDS)).await;
    let kubectl = Kubectl::pinned(33, &stand.kubeconfig("lab", "writer").await);
    let values = Values::draw(1, 6);
    let mut written = Vec::new();
    let applied = ["apply", "-f", "-"];
    let server_side = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let replaced = ["replace", "-f", "-"];
    let commands: [(&str, &[&str]); 4] = [
        ("created by apply", &applied),
        ("changed by apply", &applied),
        ("replaced", &replaced),
        ("applied by the server", &server_side),
    ];
    for (round, (what, arguments)) in commands.into_iter().enumerate() {
        let secret = values.bare(&namespace, 0, round).to_string();
        let ran = kubectl.run_with_input(arguments, &secret).await;
        assert_eq!(ran.code, Some(0), "{what}: {ran:?}");
        written.push(values.of(0, round).0.to_owned());
        quiescence().await;
        let path = format!("/api/v1/namespaces/{namespace}/secrets/planted-0000");
        let stored = api.get(&path).await["data"]["value"].clone();
        assert_eq!(stored, json!(STANDARD.encode(written[round])), "{what}");
        let needles = Needles::new(&written);
        let (hub, agent) = (
            needles.scan(stand.hub.pid()),
            needles.scan(stand.agent.pid()),
        );
        println!(
            "{what}: hub {} {:?}, agent {} {:?}",
            hub.total(),
            hub.places,
            agent.total(),
            agent.places
        );
        assert_clean(&format!("the hub's memory, {what}"), &hub);
        assert_clean(&format!("the agent's memory, {what}"), &agent);
    }
    assert_nothing_kept(&Needles::new(&written), &stand);
}

/// Nothing in the logs at their most talkative, and nothing in the hub's folder. What lies between
/// agent and hub cannot be read from outside: what the hub holds and answers stands for it.
fn assert_nothing_kept(needles: &Needles, stand: &Stand) {
    for (process, what) in [(&stand.agent, "agent"), (&stand.hub, "hub")] {
        for file in files(process.folder()) {
            let bytes = fs::read(&file).expect("it is readable");
            assert_clean(
                &format!("{what}: {}", file.display()),
                &needles.look(&bytes),
            );
        }
    }
}

/// The files below a folder.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
    {
        let kind = entry.file_type().expect("its type");
        if kind.is_dir() {
            all.extend(files(&entry.path()));
        } else if kind.is_file() {
            all.push(entry.path());
        }
    }
    all
}

fn assert_clean(what: &str, found: &Found) {
    println!("{what}: {} bytes, {} found", found.scanned, found.total());
    assert_eq!(found.total(), 0, "{what}: {found:?}");
}

/// One second after the last event, everything still open.
async fn quiescence() {
    const QUIET: Duration = Duration::from_secs(1);
    let over = tokio::time::timeout(QUIET, std::future::pending::<()>()).await;
    assert!(over.is_err(), "nothing ends what never does");
}

fn versions(list: &Value) -> BTreeMap<String, String> {
    let items = list["items"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    items
        .map(|item| &item["metadata"])
        .map(|meta| (text(&meta["name"]), text(&meta["resourceVersion"])))
        .collect()
}

/// `kubectl get secrets -w`, for as long as it is held.
struct Watcher {
    server: Server,
    _folder: TempDir,
}

impl Watcher {
    fn start(kubeconfig: &std::path::Path, namespace: &str) -> Self {
        let folder = TempDir::with_prefix("sortie-watcher-").expect("a folder");
        let mut command = Command::new(kubectl::program(33));
        command.args([
            "get",
            "secrets",
            "-w",
            "-o",
            "json",
            "-n",
            namespace,
            "--kubeconfig",
        ]);
        command.arg(kubeconfig).env("HOME", folder.path());
        let server = Server::start(&command, &folder.path().join("kubectl"), None);
        Self {
            server,
            _folder: folder,
        }
    }

    /// Waits until it has told of so many objects.
    async fn told(&self, objects: usize) {
        let what = format!("kubectl tells of {objects} objects");
        self.server
            .wait_for(&what, |server| {
                (server
                    .stdout()
                    .matches("\n    \"kind\": \"Secret\"")
                    .count()
                    >= objects)
                    .then_some(())
            })
            .await;
    }
}

/// Random values: for each Secret and round one in `data` and one in the last-applied annotation.
struct Values(Vec<Vec<([u8; 32], [u8; 32])>>);

impl Values {
    fn draw(secrets: usize, rounds: usize) -> Self {
        let entropy = entropy::system();
        let pair = |_| (entropy::bytes(&*entropy), entropy::bytes(&*entropy));
        let secret = |_| (0..rounds).map(pair).collect();
        Self((0..secrets).map(secret).collect())
    }

    fn of(&self, secret: usize, round: usize) -> &([u8; 32], [u8; 32]) {
        &self.0[secret][round]
    }

    fn count(&self) -> usize {
        self.0.iter().map(|rounds| 2 * rounds.len()).sum()
    }

    fn needles(&self) -> Needles {
        let pairs = self.0.iter().flatten();
        let all: Vec<[u8; 32]> = pairs
            .flat_map(|(data, applied)| [*data, *applied])
            .collect();
        Needles::new(&all)
    }

    /// A Secret as its owner writes it.
    fn bare(&self, namespace: &str, secret: usize, round: usize) -> Value {
        let (data, _) = self.of(secret, round);
        json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": format!("planted-{secret:04}"), "namespace": namespace},
            "data": {"value": STANDARD.encode(data)}})
    }

    /// The same as `kubectl apply` would have left it.
    fn object(&self, namespace: &str, secret: usize, round: usize) -> Value {
        let (_, applied) = self.of(secret, round);
        let mut object = self.bare(namespace, secret, round);
        let mut last = object.clone();
        last["data"]["value"] = json!(STANDARD.encode(applied));
        object["metadata"]["annotations"] =
            json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
        object
    }

    /// Gives every Secret its values of a round.
    async fn plant(&self, api: &Api, namespace: &str, round: usize) {
        let path = format!("/api/v1/namespaces/{namespace}/secrets");
        let path = &path;
        let planting = (0..self.0.len()).map(|secret| async move {
            let object = self.object(namespace, secret, round);
            if round == 0 {
                api.create(path, &object).await;
            } else {
                api.patch(&format!("{path}/planted-{secret:04}"), &object)
                    .await;
            }
        });
        stream::iter(planting)
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<()>>()
            .await;
    }
}
