//! A slow link between agent and hub, full in one direction, and what still has to get through.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::support::double::{Double, Settings};
use crate::support::eventually::within;
use crate::support::fake::Client;
use crate::support::https::Https;
use crate::support::load;
use crate::support::relay::{Link, Relay};
use crate::support::sortie::Sortie;
use crate::support::stand::{self, Plan, account_yaml};

/// 10 Mbit/s, in bytes.
const LINK: u64 = 1_250_000;

/// Log streams that nobody reads.
const LOGS: usize = 64;

/// Log streams that are opened at once: a hub takes eight handshakes of one address.
const AT_ONCE: usize = 6;

/// Small writes whose answers are timed.
const PATCHES: usize = 100;

/// Pods of 10 KB in the snapshot.
const PODS: usize = 10_000;

/// What all but one of the writes may take: half a second was seen in a debug build, and a second
/// beside three other tests. Behind the snapshot it would be twenty.
const SLOWEST: Duration = Duration::from_secs(2);

/// How long the snapshot may take on the full link.
const SNAPSHOT: Duration = Duration::from_mins(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_logs_and_a_snapshot_do_not_hold_up_a_small_write_on_a_slow_link() {
    let _turn = load::turn().await;
    let cluster = |kind, count| {
        Double::start(Settings {
            objects: vec![(kind, count), ("services", 4)],
            ..Settings::default()
        })
    };
    let (double, late) = (cluster("pods", LOGS), cluster("pods", PODS));
    late.freeze(true);
    let everything = |name, double: &Double| account_yaml(name, &double.write_kubeconfig(), "");
    let plan = Plan {
        accounts: vec!["logs".to_owned(), "snapshot".to_owned()],
        accounts_yaml: everything("logs", &double) + &everything("snapshot", &late),
        engines_yaml: String::new(),
        agent_ttl: "24h",
    };
    let hub = stand::hub(plan.agent_ttl).await;
    let link = Link {
        delay: Duration::from_millis(10),
        up: Some(LINK),
        down: Some(LINK),
        buffers: Some(64 * 1024),
    };
    let relay = Relay::shaped(hub.address("data").await, link);
    let way = format!("hub: {{ data: \"{}\" }}\n", relay.address());
    let agent = stand::agent_with(&[], &hub, "lab", &plan, &way).await;
    wait(&hub, &agent, "logs").await;
    let facade = Facade::of(&stand::kubeconfig(&hub, "logs", "visitor").await);

    let unread = open_logs(&facade).await;
    let before = relay.passed().0;
    late.freeze(false);
    let started = Instant::now();
    let mut times = patch(&facade).await;
    let (patched, during) = (started.elapsed(), relay.passed().0 - before);
    let account = Facade::of(&stand::kubeconfig(&hub, "snapshot", "visitor").await);
    within(SNAPSHOT, "the snapshot has arrived", async || {
        (account.pods().await? == PODS).then_some(())
    })
    .await;
    let snapshot = started.elapsed();
    times.sort_unstable();
    let (p50, p99) = (times[PATCHES / 2], times[PATCHES * 99 / 100]);
    println!(
        "patch p50 {p50:?} p99 {p99:?}; {PATCHES} in {patched:?} while {during} bytes passed; \
         {PODS} pods after {snapshot:?}"
    );
    assert_eq!(relay.accepted(), 1, "the agent has had one connection");
    let log = agent.log();
    for lost in ["not connected to the hub", "the hub disconnects"] {
        assert!(log.find(lost).is_none(), "{lost}: {log:?}");
    }
    assert!(p99 <= SLOWEST, "p99 {p99:?}");
    drop(unread);
}

/// Opens log streams that never end, and reads nothing of them.
async fn open_logs(facade: &Facade) -> Vec<http::Response<hyper::body::Incoming>> {
    let opened = (0..LOGS).map(|number| async move {
        let namespace = number % 4;
        let path =
            format!("/api/v1/namespaces/ns-{namespace}/pods/pods-{number:06}/log?follow=true");
        let answer = facade.open(Method::GET, &path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer
    });
    stream::iter(opened)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

/// Writes one label again and again; how long each answer took.
async fn patch(facade: &Facade) -> Vec<Duration> {
    let path = facade.path("/api/v1/namespaces/ns-1/services/services-000001");
    let mut times = Vec::new();
    for _ in 0..PATCHES {
        let body = Bytes::from_static(b"{\"metadata\":{\"labels\":{\"a\":\"b\"}}}");
        let asked = Instant::now();
        let answer = facade
            .client
            .send(Method::PATCH, &path, "application/merge-patch+json", body)
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, StatusCode::OK, "{text}");
        times.push(asked.elapsed());
    }
    times
}

async fn wait(hub: &Sortie, agent: &Sortie, account: &str) {
    let waited = hub
        .command(&[
            "get",
            "accounts",
            account,
            "--wait",
            "ACTIVE",
            "--timeout",
            "50s",
        ])
        .await;
    assert_eq!(waited.code, Some(0), "{waited:?}\nagent: {:?}", agent.log());
}

/// An account at the hub, asked with a client's certificate.
struct Facade {
    client: Https,
    prefix: String,
}

impl Facade {
    fn of(kubeconfig: &Path) -> Self {
        let client = Client::read(kubeconfig);
        Self {
            client: client.https(),
            prefix: client.path,
        }
    }

    async fn open(&self, method: Method, path: &str) -> http::Response<hyper::body::Incoming> {
        let path = self.path(path);
        let opened = self
            .client
            .open(method, &path, "application/json", Bytes::new());
        opened.await.unwrap()
    }

    /// How many pods the account has, once it answers.
    async fn pods(&self) -> Option<usize> {
        let path = self.path("/api/v1/pods");
        let answer = self
            .client
            .send(Method::GET, &path, "application/json", Bytes::new())
            .await
            .unwrap();
        let items = answer.status.is_success().then(|| answer.json())?;
        Some(items["items"].as_array()?.len())
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}
