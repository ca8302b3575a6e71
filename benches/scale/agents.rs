//! Many agents at one hub: what an idle one costs, and how they come back after the hub's death.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use sortie::agent;
use sortie::config::source::{self, Environment};
use sortie::tasks::Tasks;
use sortie::{clock, config, entropy, policy};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::row;
use crate::support::double::{Double, Settings};
use crate::support::eventually::idle;
use crate::support::eventually::within;
use crate::support::hand_over;
use crate::support::process::{memory, processor};
use crate::support::server::Server;
use crate::support::sortie::{Sortie, http_get};
use crate::support::stand;

/// First argument of a process that runs agents.
pub(crate) const CHILD: &str = "agents-of";

/// Agents of the measurement.
pub(crate) const AGENTS: usize = 1_000;

/// Agents of one process.
const PER_PROCESS: usize = 250;

/// What each account reads: two kinds, so that the agents fit on the machine that runs the hub.
const KINDS: &str = "kinds: { cached: [Namespace, Pod], live: [] }";

/// Time before memory at rest is read.
const REST: Duration = Duration::from_mins(1);

/// How long all of them may take to come.
const COMING: Duration = Duration::from_mins(10);

pub(crate) async fn run(count: usize) {
    let double = Double::start(Settings {
        objects: vec![("pods", 1)],
        namespaces: 1,
        bytes: 2_000,
        bookmark_every: Duration::from_mins(1),
        ..Settings::default()
    });
    let mut hub = fixed_hub().await;
    idle(REST / 6).await;
    let empty = memory(hub.pid(), "VmRSS");
    let folder = TempDir::with_prefix("sortie-agents-").expect("a folder");
    configure(&hub, &double, folder.path(), count).await;
    let start = Instant::now();
    let agents = start_agents(folder.path(), count);
    back(&hub, count).await;
    let came = start.elapsed().as_secs_f64();
    row("agents enrolled, connected and fed, after", came, "s", None);
    idle(REST).await;
    let spent = processor(hub.pid());
    idle(REST).await;
    let rest = processor(hub.pid()) - spent;
    let full = memory(hub.pid(), "VmRSS");
    let number = f64::from(u32::try_from(count).expect("few"));
    println!(
        "{count} agents in {} processes; hub {empty:.1} → {full:.1} MiB, at most {:.1} MiB",
        agents.len(),
        memory(hub.pid(), "VmHWM"),
    );
    let each = (full - empty) * 1024.0 / number;
    row("hub, per idle agent, RSS", each, "KiB", Some(64.0));
    row("hub, processor time at rest, a minute", rest, "s", None);

    let lists = lists(&double);
    hub.kill().await;
    hub.start_again();
    let start = Instant::now();
    back(&hub, count).await;
    let took = start.elapsed().as_secs_f64();
    let again = f64::from(u32::try_from(lists_since(&double, lists)).expect("few"));
    println!(
        "after kill -9 of the hub: processor time {:.2} s; {}",
        processor(hub.pid()),
        handshakes(&hub).await,
    );
    row("all back after the hub's start", took, "s", Some(5.0));
    row("lists of clusters after that", again, "", Some(0.0));
    drop(agents);
}

/// A hub whose ports stay the same over its restarts.
async fn fixed_hub() -> Sortie {
    let free = || {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        socket.local_addr().expect("it is bound")
    };
    let (data, enrol) = (free(), free());
    let hub = Sortie::start("hub", &["--allow-dump"], |folder| {
        let yaml = stand::hub_yaml(folder, "24h");
        yaml.replacen("data: \"127.0.0.1:0\"", &format!("data: \"{data}\""), 1)
            .replacen("enrol: \"127.0.0.1:0\"", &format!("enrol: \"{enrol}\""), 1)
    });
    hub.ready().await;
    hub
}

/// Writes a configuration per agent, each with a join token of its own.
async fn configure(hub: &Sortie, double: &Double, folder: &Path, count: usize) {
    let socket = hub.folder().join("state").join("admin.sock");
    let kubeconfig = double.write_kubeconfig();
    for number in 0..count {
        let name = format!("agent-{number:04}");
        let request = json!({"command": "create-token", "agent": name, "accounts": [name],
            "ttl_seconds": 900});
        let answer = hand_over::command(&socket, &request).await;
        let join = folder.join(format!("{name}.join"));
        let text = answer["join"].as_str().expect("a join string");
        fs::write(&join, text).expect("written");
        fs::set_permissions(&join, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("for its owner alone");
        let yaml = format!(
            "name: {name}\n\
             listen: {{ health: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\" }}\n\
             identity:\n  join: {{ method: token, join-file: {} }}\n\
             accounts:\n  - name: {name}\n    credential: {{ kubeconfig-file: {} }}\n    {KINDS}\n",
            join.display(),
            kubeconfig.display(),
        );
        fs::write(file(folder, number), yaml).expect("written");
    }
}

fn file(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number:04}.yaml"))
}

/// Processes of this program that run the agents.
fn start_agents(folder: &Path, count: usize) -> Vec<Server> {
    let program = std::env::current_exe().expect("this program has a path");
    (0..count)
        .step_by(PER_PROCESS)
        .map(|first| {
            let mut command = Command::new(&program);
            let last = count.min(first + PER_PROCESS);
            command.arg(CHILD).arg(folder);
            command.args([first.to_string(), last.to_string()]);
            Server::start(&command, &folder.join(format!("agents-{first:04}")), None)
        })
        .collect()
}

/// Runs the agents `FIRST..LAST` that are configured in a folder, until it is killed.
pub(crate) fn child(arguments: &[&str]) {
    let [folder, first, last] = arguments else {
        return println!("usage: {CHILD} FOLDER FIRST LAST");
    };
    let number = |text: &str| text.parse::<usize>().expect("a number");
    sortie::identity::tls::install_provider();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let rules = policy::load().expect("the shipped rules");
        let mut agents = Vec::new();
        for number in number(first)..number(last) {
            let path = file(Path::new(folder), number);
            let text = source::load(&path).expect("it was written");
            let settings = config::agent::read(&path, &text, &Environment::of(|_name| None));
            let settings = settings.expect("a configuration");
            let (clock, entropy) = (clock::system(), entropy::system());
            let running = agent::start(settings, &rules, clock, entropy, Tasks::new()).await;
            agents.push(running.expect("it starts"));
        }
        std::future::pending::<()>().await;
    });
}

/// Waits until so many agents have a session and so many accounts are fed.
async fn back(hub: &Sortie, count: usize) {
    let metrics = hub.address("metrics").await;
    within(COMING, "all agents are here", async || {
        let text = http_get(metrics, "/metrics").await?;
        let connected =
            |line: &&str| line.starts_with("sortie_hub_account_connected{") && line.ends_with(" 1");
        let fed = text.lines().filter(connected).count();
        let here = format!("sortie_hub_agents{{state=\"ACTIVE\"}} {count}\n");
        (fed == count && text.contains(&here)).then_some(())
    })
    .await;
}

/// Lists, and watches that ask for everything, of the cluster so far.
fn lists(double: &Double) -> u64 {
    double.count_all("list") + double.count_all("streaming-list")
}

fn lists_since(double: &Double, before: u64) -> u64 {
    lists(double) - before
}

/// How the handshakes of agents went, and how many the hub's audit log admits in a second at most.
async fn handshakes(hub: &Sortie) -> String {
    let mut seconds = std::collections::BTreeMap::<String, usize>::new();
    let log = hub.log();
    for entry in log.entries() {
        let connects = entry.text("action") == Some("connect");
        if let (true, Some(time)) = (connects, entry.text("timestamp")) {
            *seconds.entry(time.chars().take(19).collect()).or_default() += 1;
        }
    }
    let most = seconds.values().max().copied().unwrap_or(0);
    let metrics = http_get(hub.address("metrics").await, "/metrics").await;
    let metrics = metrics.unwrap_or_default();
    let told = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("sortie_hub_handshakes_total{door=\"data\",outcome="));
    let told: Vec<&str> = told.collect();
    format!("handshakes {told:?}, {most} admitted in the busiest second")
}
