//! One agent with 100 accounts, three of them on a real API server and three of the others broken,
//! against the same without the broken ones.

use std::time::Duration;

use tokio::time::Instant;

use crate::accounts::{active, named};
use crate::row;
use crate::support::double::{Double, Fault, Settings};
use crate::support::facade::Facade;
use crate::support::kube::Api;
use crate::support::latency;
use crate::support::process::memory;
use crate::support::stand;
use crate::support::testbed::{Cluster, Testbed};

/// Accounts on the real API server, and on doubles.
const REAL: usize = 3;
const DOUBLES: usize = 97;

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
    peak: f64,
}

async fn measure(cluster: &Cluster, broken: bool) -> Seen {
    let doubles = Double::fleet(
        DOUBLES,
        &Settings {
            objects: vec![("pods", 20)],
            bookmark_every: Duration::from_mins(1),
            ..Settings::default()
        },
    );
    let [hung, untrusted, mad] = [0, 1, 2];
    let mut kubeconfigs = vec![cluster.kubeconfig.clone(); REAL];
    kubeconfigs.extend(doubles.iter().map(Double::write_kubeconfig));
    let mut sound = REAL + DOUBLES;
    if broken {
        sound -= 3;
        doubles[hung].fault("/", Fault::Hang);
        kubeconfigs[REAL + untrusted] =
            doubles[untrusted].write_untrusting_kubeconfig(&doubles[hung]);
        doubles[mad].fault("/api/v1/pods", Fault::GarbageLines);
        doubles[mad].fault("/api/v1/services", Fault::Huge(LONG));
    }
    let hub = stand::hub_with(&["--allow-dump"], "24h").await;
    let plan = named(&kubeconfigs);
    let start = Instant::now();
    let agent = stand::agent_with(&["--allow-dump"], &hub, "lab", &plan, "").await;
    active(&hub, sound, 0).await;
    let seconds = start.elapsed().as_secs_f64();
    let api: Api = cluster.api();
    let facade = Facade::of(&stand::kubeconfig(&hub, &plan.accounts[0], "visitor").await);
    let latencies = latency::of(&api, &facade, WRITES, EVERY).await;
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    Seen {
        active: seconds,
        latency: [at(50), at(99)],
        peak: memory(agent.pid(), "VmHWM"),
    }
}
