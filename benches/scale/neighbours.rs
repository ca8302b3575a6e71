//! One agent with 100 accounts, three of them on a real API server and three of the others broken,
//! against the same without the broken ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::nice;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::accounts::{active, named};
use crate::row;
use crate::support::double::{Double, Fault, Settings};
use crate::support::eventually::eventually_async;
use crate::support::facade::Facade;
use crate::support::kube::Api;
use crate::support::latency;
use crate::support::process::{memory, processor};
use crate::support::server::Server;
use crate::support::stand;
use crate::support::testbed::{Cluster, Testbed};

/// First argument of a process that runs the clusters which may be broken.
pub(crate) const CHILD: &str = "neighbours-of";

/// Accounts on the real API server, on sound doubles, and on those that may be broken.
const REAL: usize = 3;
const SOUND: usize = 94;
const NEIGHBOURS: usize = 3;

/// Bytes of the line that one of the broken clusters sends again and again.
const LONG: usize = 100_000_000;

/// Writes of the latency measurement, and the pause between two.
const WRITES: usize = 1_500;
const EVERY: Duration = Duration::from_millis(20);

pub(crate) async fn run() {
    let testbed = Testbed::start(&["-nodes", "0", "-controllers=false", "-gogc", "200"]).await;
    let cluster = testbed.cluster();
    let sound = measure(cluster, false).await;
    let beside = measure(cluster, true).await;
    let tens = |seconds| row("all sound accounts ACTIVE after", seconds, "s", Some(10.0));
    tens(sound.active);
    tens(beside.active);
    for (what, which) in [("p50", 0), ("p99", 1)] {
        let (alone, with) = (sound.latency[which], beside.latency[which]);
        println!(
            "write answered to event, {what}: {alone:.2} ms, with three broken ones {with:.2} ms"
        );
        row("ratio of that", with / alone, "x", Some(1.2));
    }
    println!(
        "processor time of the agent meanwhile: {:.2} s, with three broken ones {:.2} s",
        sound.spent, beside.spent
    );
    row(
        "agent beside broken clusters, peak",
        beside.peak,
        "MiB",
        None,
    );
}

struct Seen {
    active: f64,
    latency: [f64; 2],
    /// Processor time of the agent while it was measured, in seconds.
    spent: f64,
    peak: f64,
}

async fn measure(cluster: &Cluster, broken: bool) -> Seen {
    let doubles = Double::fleet(SOUND, &settings());
    let mut kubeconfigs = vec![cluster.kubeconfig.clone(); REAL];
    kubeconfigs.extend(doubles.iter().map(Double::write_kubeconfig));
    let folder = TempDir::with_prefix("sortie-neighbours-").expect("a folder");
    let (_neighbours, theirs) = start_neighbours(folder.path(), broken).await;
    kubeconfigs.extend(theirs);
    let sound = REAL + SOUND + if broken { 0 } else { NEIGHBOURS };
    let hub = stand::hub_with(&["--allow-dump"], "24h").await;
    let plan = named(&kubeconfigs);
    let start = Instant::now();
    let agent = stand::agent_with(&["--allow-dump"], &hub, "lab", &plan, "").await;
    active(&hub, sound, 0).await;
    let seconds = start.elapsed().as_secs_f64();
    let api: Api = cluster.api();
    let facade = Facade::of(&stand::kubeconfig(&hub, &plan.accounts[0], "visitor").await);
    let before = processor(agent.pid());
    let latencies = latency::of(&api, &facade, WRITES, EVERY).await;
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    Seen {
        active: seconds,
        latency: [at(50), at(99)],
        spent: processor(agent.pid()) - before,
        peak: memory(agent.pid(), "VmHWM"),
    }
}

fn settings() -> Settings {
    Settings {
        objects: vec![("pods", 20)],
        bookmark_every: Duration::from_mins(1),
        ..Settings::default()
    }
}

/// A process that runs the clusters which may be broken, and their kubeconfigs.
async fn start_neighbours(folder: &Path, broken: bool) -> (Server, Vec<PathBuf>) {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.arg(CHILD).arg(folder).arg(broken.to_string());
    let server = Server::start(&command, &folder.join("neighbours"), None);
    let written = folder.join(KUBECONFIGS);
    let paths = eventually_async("the neighbours run", async || {
        fs::read_to_string(&written).ok()
    })
    .await;
    (server, serde_json::from_str(&paths).expect("paths"))
}

/// Where the other process says where the kubeconfigs are.
const KUBECONFIGS: &str = "kubeconfigs";

/// Runs the clusters that may be broken, until it is killed.
pub(crate) fn child(arguments: &[&str]) {
    let [folder, broken] = arguments else {
        return println!("usage: {CHILD} FOLDER true|false");
    };
    // They stand for other machines: what they do to send nonsense takes nothing from this one.
    nice(19).expect("it may be nicer");
    sortie::identity::tls::install_provider();
    let doubles = Double::fleet(NEIGHBOURS, &settings());
    let mut kubeconfigs: Vec<PathBuf> = doubles.iter().map(Double::write_kubeconfig).collect();
    if *broken == "true" {
        let [hung, untrusted, mad] = [0, 1, 2];
        doubles[hung].fault("/", Fault::Hang);
        kubeconfigs[untrusted] = doubles[untrusted].write_untrusting_kubeconfig(&doubles[hung]);
        doubles[mad].fault("/api/v1/pods", Fault::GarbageLines);
        doubles[mad].fault("/api/v1/services", Fault::Huge(LONG));
    }
    let paths = serde_json::to_string(&kubeconfigs).expect("paths are text");
    let folder = Path::new(folder);
    fs::write(folder.join("unfinished"), paths).expect("written");
    fs::rename(folder.join("unfinished"), folder.join(KUBECONFIGS)).expect("written");
    loop {
        std::thread::park();
    }
}
