//! One agent with many accounts: memory, processor time at rest, lists at once.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::row;
use crate::support::double::{Double, Settings};
use crate::support::eventually::idle;
use crate::support::eventually::within;
use crate::support::hand_over;
use crate::support::process::{memory, processor};
use crate::support::sortie::Sortie;
use crate::support::stand::{self, Plan, account_yaml};

/// Accounts of the agent, each with a cluster of its own.
const ACCOUNTS: usize = 100;

/// Objects of each cluster, over the kinds that are cached by default: 1,000.
const OBJECTS: [(&str, usize); 11] = [
    ("namespaces", 10),
    ("pods", 400),
    ("replicasets", 300),
    ("deployments", 100),
    ("services", 100),
    ("statefulsets", 20),
    ("daemonsets", 10),
    ("jobs", 20),
    ("cronjobs", 10),
    ("ingresses", 20),
    ("networkpolicies", 10),
];

/// Time before memory at rest is read, and over which processor time at rest is.
const REST: Duration = Duration::from_mins(1);

/// How long the first sync of everything may take.
const SYNC: Duration = Duration::from_mins(10);

pub(crate) async fn run() {
    let doubles = Double::fleet(
        ACCOUNTS,
        &Settings {
            objects: OBJECTS.to_vec(),
            namespaces: 10,
            // As kube-apiserver: a watch hears of nothing once a minute.
            bookmark_every: Duration::from_mins(1),
            ..Settings::default()
        },
    );
    let hub = stand::hub_with(&["--allow-dump"], "24h").await;
    let kubeconfigs: Vec<PathBuf> = doubles.iter().map(Double::write_kubeconfig).collect();
    let plan = named(&kubeconfigs);
    let start = Instant::now();
    let agent = stand::agent_with(&["--allow-dump"], &hub, "lab", &plan, "").await;
    let objects: usize = OBJECTS.iter().map(|(_, count)| count).sum();
    active(&hub, ACCOUNTS, objects).await;
    let seconds = start.elapsed().as_secs_f64();
    let (spent, peak) = (processor(agent.pid()), memory(agent.pid(), "VmHWM"));
    idle(REST).await;
    let rested = processor(agent.pid());
    idle(REST).await;
    println!(
        "{ACCOUNTS} accounts × 12 kinds, {} objects of 10 KB; first sync took {spent:.2} s of the \
         agent's processor time, {:.2} s of the hub's",
        ACCOUNTS * objects,
        processor(hub.pid()),
    );
    let rest = processor(agent.pid()) - rested;
    row("agent's start to all ACTIVE", seconds, "s", None);
    let steady = memory(agent.pid(), "VmRSS");
    row("agent, steady, RSS", steady, "MiB", Some(64.0));
    row("agent, peak, RSS", peak, "MiB", Some(128.0));
    row("agent, processor time at rest, a minute", rest, "s", None);
    let lists = doubles[0].most_lists_at_once();
    let lists = f64::from(u32::try_from(lists).expect("few"));
    row("lists under way at once", lists, "", None);
    row("hub, RSS", memory(hub.pid(), "VmRSS"), "MiB", None);
}

/// An account per kubeconfig.
pub(crate) fn named(kubeconfigs: &[PathBuf]) -> Plan {
    let accounts: Vec<String> = (0..kubeconfigs.len())
        .map(|number| format!("account-{number:03}"))
        .collect();
    let accounts_yaml = kubeconfigs
        .iter()
        .zip(&accounts)
        .map(|(kubeconfig, name)| account_yaml(name, kubeconfig, ""))
        .collect();
    Plan {
        accounts,
        accounts_yaml,
        engines_yaml: String::new(),
        agent_ttl: "24h",
    }
}

/// Waits until so many accounts are ACTIVE, each with so many objects at least.
pub(crate) async fn active(hub: &Sortie, accounts: usize, objects: usize) {
    let socket = hub.folder().join("state").join("admin.sock");
    let request = json!({"command": "get", "what": "accounts"});
    within(SYNC, "all accounts are ACTIVE", async || {
        let answer = hand_over::command(&socket, &request).await;
        let rows = answer["rows"].as_array().expect("rows");
        let whole = rows.iter().filter(|row| {
            row["state"] == "ACTIVE" && row["objects"].as_u64() >= Some(objects as u64)
        });
        (whole.count() == accounts).then_some(())
    })
    .await;
}
