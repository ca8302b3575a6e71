//! An agent whose way to the hub carries a fraction of what its cluster tells.

use std::time::Duration;

use tokio::time::Instant;

use super::double::{Double, Settings};
use super::eventually::idle;
use super::eventually::within;
use super::facade::Facade;
use super::hand_over::versions;
use super::process::{forget_peak, memory};
use super::relay::{Link, Relay};
use super::sortie::{Sortie, http_get};
use super::stand::{self, Plan};

const PODS: &str = "/api/v1/pods";

/// Pods that change in turn, each once a second: fewer than the agent's queue holds, so that they
/// are overtaken there.
const OBJECTS: usize = 500;

/// Changes a second.
const RATE: u64 = 500;

/// Bytes a second from agent to hub: with less, what is queued on the way already takes longer
/// than a peer may be silent.
const SLOW: u64 = 24 * 1024;

/// The same for what is no bottleneck.
const FAST: u64 = 100 * 1024 * 1024;

/// Time before memory at rest is read.
const REST: Duration = Duration::from_secs(3);

/// How long catching up may take before that counts as a failure.
const LIMIT: Duration = Duration::from_mins(5);

/// What was seen.
#[derive(Debug)]
pub(crate) struct Report {
    /// The agent's memory before, and the most meanwhile, in MiB.
    pub(crate) steady: f64,
    pub(crate) peak: f64,
    /// Changes that the cluster made.
    pub(crate) sent: u64,
    /// Those that were overtaken while unsent.
    pub(crate) coalesced: u64,
    /// Bytes that went from the agent to the hub.
    pub(crate) bytes: u64,
    /// From the end of the changes and of the slowness until the hub had everything.
    pub(crate) caught_up: Duration,
    /// Objects that the facade shows in another version than the cluster, or not at all.
    pub(crate) lost: usize,
    /// Lists of the cluster after the first, of any kind.
    pub(crate) lists: u64,
    /// Connections of the agent to the hub.
    pub(crate) connections: u64,
}

/// Lets a cluster change for so long while the way to the hub is slow.
pub(crate) async fn run(time: Duration) -> Report {
    let double = Double::start(Settings {
        objects: vec![("pods", OBJECTS)],
        changing: true,
        ..Settings::default()
    });
    let hub = stand::hub("24h").await;
    let way = |rate| Link {
        delay: Duration::from_millis(1),
        up: Some(rate),
        down: Some(FAST),
        buffers: Some(16 * 1024),
    };
    let relay = Relay::shaped(hub.address("data").await, way(FAST));
    let plan = Plan::one("lab", &double.write_kubeconfig(), "");
    let data = format!("hub: {{ data: \"{}\" }}\n", relay.address());
    let agent = stand::agent_with(&["--allow-dump"], &hub, "lab", &plan, &data).await;
    stand::wait(&hub, &agent, "lab", "ACTIVE").await;
    let facade = Facade::of(&stand::kubeconfig(&hub, "lab", "visitor").await);
    idle(REST).await;
    let lists = || double.count_all("list") + double.count_all("streaming-list");
    let (before, passed) = (lists(), relay.passed().0);
    let steady = memory(agent.pid(), "VmRSS");
    forget_peak(agent.pid());

    relay.link(way(SLOW));
    double.drive("pods", RATE);
    idle(time).await;
    double.drive("pods", 0);
    let bytes = relay.passed().0 - passed;
    relay.link(way(FAST));
    let start = Instant::now();
    let lost = caught_up(&double, &facade).await;
    let caught_up = start.elapsed();
    Report {
        steady,
        peak: memory(agent.pid(), "VmHWM"),
        sent: double.emitted(),
        coalesced: coalesced(&agent).await,
        bytes,
        caught_up,
        lost,
        lists: lists() - before,
        connections: relay.accepted(),
    }
}

/// Waits until the facade shows what the cluster has; how much differs then.
async fn caught_up(double: &Double, facade: &Facade) -> usize {
    let differ = async || {
        let served = versions(&facade.get(PODS).await).0;
        // One tick of the drive may still have been under way when it was stopped.
        let wanted = double.versions("pods");
        let missing = wanted
            .iter()
            .filter(|(uid, version)| served.get(*uid) != Some(version));
        missing.count() + served.len().abs_diff(wanted.len())
    };
    within(LIMIT, "the facade shows what the cluster has", async || {
        (differ().await == 0).then_some(())
    })
    .await;
    differ().await
}

/// The agent's own count.
async fn coalesced(agent: &Sortie) -> u64 {
    let metrics = agent.address("metrics").await;
    let text = http_get(metrics, "/metrics").await.expect("it answers");
    let line = text.lines().find_map(|line| {
        line.strip_prefix("sortie_stream_events_coalesced_total{account=\"lab\"} ")
    });
    line.expect("it is counted").parse().expect("a number")
}
