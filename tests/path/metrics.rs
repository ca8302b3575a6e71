//! Every figure of a running hub and a running agent is in `docs/metrics.md`, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::eventually::eventually_async;
use crate::support::kubectl::Kubectl;
use crate::support::sortie::{Sortie, http_get};
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::Testbed;

/// What a gauge may end in: a unit, what it counts, or what it says yes or no to.
const GAUGES: [&str; 11] = [
    "agents",
    "bytes",
    "clients",
    "connected",
    "info",
    "kinds",
    "objects",
    "seconds",
    "state",
    "streams",
    "watches",
];

/// A figure: its type and its labels.
#[derive(Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

/// What is exported, and the value of each sample as it was written.
struct Scrape {
    families: BTreeMap<String, Family>,
    samples: BTreeMap<String, f64>,
}

async fn scrape(of: &Sortie) -> Scrape {
    let answer = http_get(of.address("metrics").await, "/metrics")
        .await
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut scrape = Scrape {
        families: BTreeMap::new(),
        samples: BTreeMap::new(),
    };
    let mut helped = String::new();
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("a help text");
            assert!(text.ends_with('.'), "{line}");
            name.clone_into(&mut helped);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped, "a type without its help");
            let family = Family {
                kind: kind.to_owned(),
                ..Family::default()
            };
            let twice = scrape.families.insert(name.to_owned(), family);
            assert!(twice.is_none(), "{name} is told twice");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            scrape
                .samples
                .insert(series.to_owned(), value.parse().unwrap());
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            assert!(name.starts_with(&helped), "{line} below {helped}");
            let family = scrape.families.get_mut(&helped).unwrap();
            let labels = labels.trim_end_matches('}').split("\",");
            let names = labels
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, _)| name);
            let names = names.filter(|name| *name != "le").map(str::to_owned);
            family.labels.extend(names);
        }
    }
    scrape
}

/// Scrapes until `series` is told.
async fn scrape_with(of: &Sortie, series: &str) -> Scrape {
    eventually_async(series, async || {
        let scrape = scrape(of).await;
        scrape.samples.contains_key(series).then_some(scrape)
    })
    .await
}

/// The table below `heading`.
fn documented(heading: &str) -> BTreeMap<String, Family> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3]
            .split(',')
            .map(|label| label.trim().trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned);
        let family = Family {
            kind: cells[2].to_owned(),
            labels: labels.collect(),
        };
        (cells[1].trim_matches('`').to_owned(), family)
    })
    .collect()
}

fn assert_well_named(name: &str, family: &Family) {
    let mut words = name.split('_');
    assert_eq!(words.next(), Some("sortie"), "{name}");
    let rooms = ["agent", "facade", "hub", "ops", "scrub", "stream"];
    assert!(
        words.next().is_some_and(|room| rooms.contains(&room)),
        "{name}"
    );
    let last = words.next_back().expect("a noun or a unit");
    match family.kind.as_str() {
        "counter" => assert_eq!(last, "total", "{name}"),
        "histogram" => assert_eq!(last, "seconds", "{name}"),
        _ => assert!(GAUGES.contains(&last), "{name}"),
    }
}

#[track_caller]
fn assert_as_documented(heading: &str, scrape: &Scrape) {
    let documented = documented(heading);
    let told: Vec<_> = scrape.families.keys().collect();
    assert_eq!(told, documented.keys().collect::<Vec<_>>());
    for (name, family) in &scrape.families {
        assert_well_named(name, family);
        let known = &documented[name];
        assert_eq!(family.kind, known.kind, "{name}");
        // A counter with labels has no sample before something happened.
        assert!(family.labels.is_subset(&known.labels), "{name}: {family:?}");
    }
}

#[tokio::test]
async fn every_figure_is_documented_and_every_documented_figure_is_told() {
    let testbed = Testbed::shared().await;
    let cluster = testbed.cluster();
    let namespace = cluster.api().namespace("metrics").await;
    let stand = Stand::start(Plan::one("lab", &cluster.kubeconfig, "")).await;
    let kubeconfig = stand.kubeconfig("lab", "visitor").await;
    let kubectl = Kubectl::pinned(33, &kubeconfig);
    let create = [
        "create",
        "deployment",
        "web",
        "--image=example.com/web:1",
        "-n",
        &namespace,
    ];
    kubectl.ok(&create).await;

    // An operation counts when its stream has ended, a checkpoint when it is written.
    let operation = "sortie_ops_operations_total{verb=\"create\",outcome=\"answered\"}";
    assert_agent(&scrape_with(&stand.agent, operation).await);
    let checkpoint = "sortie_hub_store_writes_total{what=\"checkpoint\",outcome=\"ok\"}";
    assert_hub(&scrape_with(&stand.hub, checkpoint).await);
}

/// What an agent tells after one write.
#[track_caller]
fn assert_agent(agent: &Scrape) {
    assert_as_documented("Agent", agent);
    for (series, value) in [
        ("sortie_agent_hub_connected", 1.0),
        (
            "sortie_agent_account_state{account=\"lab\",state=\"ACTIVE\"}",
            1.0,
        ),
        (
            "sortie_agent_account_state{account=\"lab\",state=\"FAILED\"}",
            0.0,
        ),
        (
            "sortie_stream_streams{account=\"lab\",state=\"live\"}",
            12.0,
        ),
        (
            "sortie_stream_streams{account=\"lab\",state=\"interrupted\"}",
            0.0,
        ),
        (
            "sortie_ops_operations_total{verb=\"create\",outcome=\"answered\"}",
            1.0,
        ),
    ] {
        assert_eq!(agent.samples.get(series), Some(&value), "{series}");
    }
    assert!(agent.samples["sortie_stream_batches_sent_total{account=\"lab\"}"] >= 1.0);
}

/// What its hub tells then.
#[track_caller]
fn assert_hub(hub: &Scrape) {
    assert_as_documented("Hub", hub);
    for (series, value) in [
        ("sortie_hub_agents{state=\"ACTIVE\"}", 1.0),
        (
            "sortie_hub_account_state{account=\"lab\",state=\"ACTIVE\"}",
            1.0,
        ),
        ("sortie_hub_account_staleness_seconds{account=\"lab\"}", 0.0),
        (
            "sortie_facade_requests_total{verb=\"create\",served=\"live\",class=\"2xx\"}",
            1.0,
        ),
        (
            "sortie_hub_handshakes_total{door=\"data\",outcome=\"admitted\"}",
            1.0,
        ),
    ] {
        assert_eq!(hub.samples.get(series), Some(&value), "{series}");
    }
    for grows in [
        "sortie_hub_view_objects{account=\"lab\"}",
        "sortie_hub_batches_received_bytes_total{account=\"lab\"}",
        "sortie_hub_snapshots_applied_total{account=\"lab\"}",
        "sortie_hub_operation_seconds_count",
        "sortie_hub_store_writes_total{what=\"checkpoint\",outcome=\"ok\"}",
        "sortie_hub_store_bytes",
    ] {
        assert!(
            hub.samples.get(grows).is_some_and(|value| *value > 0.0),
            "{grows}"
        );
    }
    let end = |certificate| {
        let name = "sortie_hub_certificate_not_after_seconds";
        hub.samples[&format!("{name}{{certificate=\"{certificate}\"}}")]
    };
    assert!(end("root") > end("intermediate") && end("intermediate") > end("hub"));
}
