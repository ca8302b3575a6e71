//! What hub and agent cost, as processes of their own: memory, the first sync, latency, rotations.
//!
//! `cargo bench --bench path` prints a table; `-- rest` or another part's name runs that part
//! alone. Bars are for an idle machine.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark stops at the first surprise and prints its figures"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::Method;
use serde_json::json;
use tokio::time::Instant;

use support::double::{Double, Settings};
use support::eventually::idle;
use support::facade::Facade;
use support::hand_over;
use support::kube::Api;
use support::latency;
use support::process::{memory, processor};
use support::rolling;
use support::sortie::Sortie;
use support::stand::{self, Plan, Stand};
use support::testbed::Testbed;

/// Time before memory at rest is read.
const REST: Duration = Duration::from_mins(1);

/// Pods of the first sync.
const PODS: usize = 10_000;

/// Annotations that make a pod of the real API server 10 KB large, and requests for it that are
/// under way at once.
const FILLERS: usize = 70;
const AT_ONCE: usize = 32;

/// Writes of the latency measurement, and the pause between two.
const WRITES: usize = 3_000;
const EVERY: Duration = Duration::from_millis(20);

/// Instances that replace each other; the last of each manner is its 99th percentile.
const REPLACEMENTS: usize = 50;

const ROTATIONS: usize = 1_000;
const EVENTS: u64 = 1_000;

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|part| part != "--bench")
        .collect();
    let runs = |part: &str| wanted.is_empty() || wanted.iter().any(|name| name == part);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        println!("{:<52}{:>14}{:>14}", "", "measured", "bar");
        if runs("rest") || runs("latency") {
            rest_and_latency(runs("latency")).await;
        }
        if runs("sync") {
            sync().await;
        }
        if runs("real-sync") {
            real_sync().await;
        }
        if runs("rolling") {
            let report = rolling::roll(REPLACEMENTS, 500).await;
            let at = |gaps: &[Duration]| gaps.get(gaps.len() * 99 / 100).copied();
            println!("{report:?}");
            println!(
                "longest gap around a hand-over, p99: drained {:?}, killed {:?}",
                at(&report.drained),
                at(&report.killed)
            );
        }
        if runs("rotations") {
            let report = hand_over::rotate(ROTATIONS, EVENTS).await;
            println!("{report:?}");
        }
    });
}

fn row(what: &str, measured: f64, unit: &str, bar: Option<f64>) {
    let bar = bar.map_or_else(String::new, |bar| format!("{bar} {unit}"));
    println!("{what:<52}{:>14}{bar:>14}", format!("{measured:.2} {unit}"));
}

/// One cluster with little in it, after a minute; then a change every 20 ms.
async fn rest_and_latency(latency_too: bool) {
    let testbed = Testbed::start(&["-nodes", "0", "-controllers=false", "-gogc", "200"]).await;
    let cluster = testbed.cluster();
    let stand =
        Stand::start_with(&["--allow-dump"], Plan::one("lab", &cluster.kubeconfig, "")).await;
    idle(REST).await;
    row(
        "agent at rest, 12 kinds, RSS",
        memory(stand.agent.pid(), "VmRSS"),
        "MiB",
        Some(25.0),
    );
    row(
        "hub at rest, 1 account, RSS",
        memory(stand.hub.pid(), "VmRSS"),
        "MiB",
        None,
    );
    if !latency_too {
        return;
    }
    let kubeconfig = stand.kubeconfig("lab", "watcher").await;
    latency(&cluster.api(), &Facade::of(&kubeconfig)).await;
    let rss = |pid| memory(pid, "VmRSS");
    row("agent after that, RSS", rss(stand.agent.pid()), "MiB", None);
    row("hub after that, RSS", rss(stand.hub.pid()), "MiB", None);
}

/// From the answer to a write until its event at the facade.
async fn latency(api: &Api, facade: &Facade) {
    let start = Instant::now();
    let latencies = latency::of(api, facade, WRITES, EVERY).await;
    let rate = f64::from(u32::try_from(WRITES).expect("few")) / start.elapsed().as_secs_f64();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    println!(
        "{} writes at {rate:.1}/s, {} of their events seen",
        WRITES,
        latencies.len()
    );
    let what = |which| format!("write answered to event at the facade, {which}");
    row(&what("p50"), at(50), "ms", None);
    row(&what("p99"), at(99), "ms", Some(20.0));
    row(&what("largest"), at(100), "ms", None);
}

/// 10,000 pods against none: memory, and the time to have them all.
async fn sync() {
    let (empty, _) = synced(0).await;
    let (full, double) = synced(PODS).await;
    let added = |which: fn(&Cost) -> f64| which(&full) - which(&empty);
    println!(
        "agent {:.1} → {:.1} MiB, hub {:.1} → {:.1} MiB",
        empty.agent, full.agent, empty.hub, full.hub
    );
    row(
        "agent, added by 10,000 pods of 10 KB, RSS",
        added(|cost| cost.agent),
        "MiB",
        Some(8.0),
    );
    row(
        "agent, peak over steady",
        full.peak - full.agent,
        "MiB",
        Some(32.0),
    );
    row(
        "hub, added by 10,000 pods of 10 KB, RSS",
        added(|cost| cost.hub),
        "MiB",
        None,
    );
    let bare = bare_list(&double.api(), "limit=500").await;
    row("bare list of the same, pages of 500", bare, "s", None);
    row(
        "first sync, agent's start of it to ACTIVE",
        full.seconds,
        "s",
        None,
    );
    row(
        "first sync, ratio to the bare list",
        full.seconds / bare,
        "x",
        Some(1.5),
    );
}

/// The same pods at a real API server: the first sync against a bare list of them.
async fn real_sync() {
    let testbed = Testbed::start(&["-nodes", "0", "-controllers=false", "-gogc", "200"]).await;
    let cluster = testbed.cluster();
    create_pods(&cluster.api()).await;
    let before = bare_reads(&cluster.api()).await;
    let hub = stand::hub_with(&["--allow-dump"], "24h").await;
    let plan = Plan::one("lab", &cluster.kubeconfig, "");
    let start = Instant::now();
    let agent = stand::agent_with(&["--allow-dump"], &hub, "lab", &plan, "").await;
    active(&hub, PODS).await;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "processor time of the agent {:.2} s, of the hub {:.2} s",
        processor(agent.pid()),
        processor(hub.pid()),
    );
    let after = bare_reads(&cluster.api()).await;
    println!(
        "bare reads before {before:.2?} s and after {after:.2?} s; agent {:.1} MiB, at most {:.1} MiB; hub {:.1} MiB",
        memory(agent.pid(), "VmRSS"),
        memory(agent.pid(), "VmHWM"),
        memory(hub.pid(), "VmRSS"),
    );
    row(
        "real API server: agent's start to ACTIVE",
        seconds,
        "s",
        None,
    );
    let [list, stream] = [0, 1].map(|at| f64::midpoint(before[at], after[at]));
    row(
        "real API server: ratio to the faster bare list",
        seconds / list,
        "x",
        Some(1.5),
    );
    row(
        "real API server: ratio to a bare streaming list",
        seconds / stream,
        "x",
        None,
    );
}

/// Seconds of the faster list, whole from the server's cache or in pages, and of a streaming list.
async fn bare_reads(api: &Api) -> [f64; 2] {
    let whole = bare_list(api, "").await;
    let pages = bare_list(api, "limit=500").await;
    [whole.min(pages), bare_stream(api).await]
}

/// Creates pods of 10 KB that no node runs.
async fn create_pods(api: &Api) {
    let name = "full";
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    api.create("/api/v1/namespaces", &namespace).await;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    api.create("/api/v1/namespaces/full/serviceaccounts", &account)
        .await;
    let pods = futures_util::stream::iter(0..PODS);
    pods.for_each_concurrent(AT_ONCE, async |number| {
        let annotations: BTreeMap<String, String> = (0..FILLERS)
            .map(|filler| {
                let value = format!("value {filler} of pod {number}, ").repeat(4);
                (format!("example.com/filler-{filler}"), value)
            })
            .collect();
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("pod-{number}"), "annotations": annotations},
            "spec": {"nodeName": format!("node-{}", number % 20), "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": "example.com/shop:1"}]}});
        api.create("/api/v1/namespaces/full/pods", &pod).await;
    })
    .await;
}

struct Cost {
    agent: f64,
    peak: f64,
    hub: f64,
    seconds: f64,
}

/// Memory of hub and agent at rest with so many pods, and the time of the sync.
async fn synced(pods: usize) -> (Cost, Double) {
    let double = Double::start(Settings {
        objects: vec![("pods", pods)],
        ..Settings::default()
    });
    let hub = stand::hub_with(&["--allow-dump"], "24h").await;
    let plan = Plan::one("lab", &double.write_kubeconfig(), "");
    let agent = stand::agent_with(&["--allow-dump"], &hub, "lab", &plan, "").await;
    let asked = async || double.count("list", "pods") + double.count("watch", "pods") > 0;
    support::eventually::eventually_async("pods are asked for", async || {
        asked().await.then_some(())
    })
    .await;
    let start = Instant::now();
    active(&hub, pods).await;
    let seconds = start.elapsed().as_secs_f64();
    let peak = memory(agent.pid(), "VmHWM");
    println!(
        "{pods} pods: processor time of the agent {:.2} s, of the hub {:.2} s",
        processor(agent.pid()),
        processor(hub.pid()),
    );
    idle(REST / 3).await;
    let cost = Cost {
        agent: memory(agent.pid(), "VmRSS"),
        peak,
        hub: memory(hub.pid(), "VmRSS"),
        seconds,
    };
    (cost, double)
}

/// Waits until the account is ACTIVE with so many pods.
async fn active(hub: &Sortie, pods: usize) {
    let socket = hub.folder().join("state").join("admin.sock");
    let request = json!({"command": "get", "what": "accounts"});
    support::eventually::eventually_async("the account is ACTIVE", async || {
        let answer = hand_over::command(&socket, &request).await;
        let row = &answer["rows"][0];
        let all = row["objects"].as_u64() >= Some(pods as u64);
        (row["state"] == "ACTIVE" && all).then_some(())
    })
    .await;
}

/// Seconds to read all pods of a server, without looking at them: in pages, or, without a
/// `limit`, whole from the server's cache.
async fn bare_list(api: &Api, limit: &str) -> f64 {
    let start = Instant::now();
    let mut path = match limit {
        "" => "/api/v1/pods?resourceVersion=0".to_owned(),
        limit => format!("/api/v1/pods?{limit}"),
    };
    loop {
        let answer = api.ask(Method::GET, &path, None).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.status);
        let key = b"\"continue\":\"";
        let Some(at) = memchr::memmem::find(&answer.body, key) else {
            return start.elapsed().as_secs_f64();
        };
        let rest = &answer.body[at + key.len()..];
        let end = memchr::memchr(b'"', rest).expect("it ends");
        let token = String::from_utf8_lossy(&rest[..end]).into_owned();
        if token.is_empty() {
            return start.elapsed().as_secs_f64();
        }
        path = format!("/api/v1/pods?{limit}&continue={token}");
    }
}

/// Seconds to read the same as a streaming list, without looking at it.
async fn bare_stream(api: &Api) -> f64 {
    let start = Instant::now();
    let path = "/api/v1/pods?watch=1&sendInitialEvents=true&allowWatchBookmarks=true\
                &resourceVersionMatch=NotOlderThan&timeoutSeconds=60";
    let mut watch = api.watch(path).await;
    loop {
        let line = watch.next_line().await.expect("the watch goes on");
        if memchr::memmem::find(&line, b"k8s.io/initial-events-end").is_some() {
            return start.elapsed().as_secs_f64();
        }
    }
}
