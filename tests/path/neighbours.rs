//! Clusters that hang, lie or talk nonsense, and what their neighbours in the same agent notice.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::double::{Change, Double, Fault, Settings};
use crate::support::eventually::{eventually_async, within};
use crate::support::facade::Facade;
use crate::support::hand_over::command;
use crate::support::process::memory;
use crate::support::sortie::Sortie;
use crate::support::stand::{self, Plan, account_yaml};

/// How soon the account of a sound cluster serves, whatever its neighbours do. Ten seconds are the
/// bar of a release build; a debug build on a machine that compiles gets more.
const SOUND: Duration = Duration::from_secs(30);

/// The longest line that is sent, in bytes.
const LONG: usize = 100_000_000;

/// Memory of an agent that has met all of that, in MiB: a few lines of 8 MiB at once, not of 100.
const MEMORY: f64 = 96.0;

/// Records of what could not be read, at most: some per attempt, and attempts back off.
const RECORDS: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_that_hang_lie_or_talk_nonsense_leave_their_neighbour_alone() {
    let cluster = || {
        Double::start(Settings {
            objects: vec![("pods", 10), ("services", 10)],
            changing: true,
            ..Settings::default()
        })
    };
    let (good, hung, stalled, foreign, mad) =
        (cluster(), cluster(), cluster(), cluster(), cluster());
    hung.fault("/", Fault::Hang);
    stalled.fault("/api/v1/pods", Fault::Hang);
    mad.fault("/api/v1/pods", Fault::GarbageLines);
    mad.fault("/api/v1/services", Fault::Huge(LONG));
    mad.fault("/apis/apiextensions.k8s.io/v1/", Fault::Garbage);
    let accounts = [
        ("good", good.write_kubeconfig()),
        ("hung", hung.write_kubeconfig()),
        ("stalled", stalled.write_kubeconfig()),
        ("untrusted", foreign.write_untrusting_kubeconfig(&good)),
        ("mad", mad.write_kubeconfig()),
    ];
    let plan = Plan {
        accounts: accounts
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect(),
        accounts_yaml: accounts
            .iter()
            .map(|(name, kubeconfig)| account_yaml(name, kubeconfig, ""))
            .collect(),
        engines_yaml: String::new(),
        agent_ttl: "24h",
    };
    let hub = stand::hub("24h").await;
    let agent = stand::agent_with(&["--allow-dump"], &hub, "lab", &plan, "").await;
    let socket = hub.folder().join("state").join("admin.sock");
    let states = async || command(&socket, &json!({"command": "get", "what": "accounts"})).await;
    within(SOUND, "the sound account is ACTIVE", async || {
        (of(&states().await, "good", "state") == "ACTIVE").then_some(())
    })
    .await;

    eventually_async("the untrusted one says why", async || {
        let rows = states().await;
        let told = (
            of(&rows, "untrusted", "state"),
            of(&rows, "untrusted", "reason"),
        );
        (told == ("FAILED".to_owned(), "ApiUntrusted".to_owned())).then_some(())
    })
    .await;
    let facade = Facade::of(&stand::kubeconfig(&hub, "good", "visitor").await);
    sees_changes(&good, &facade).await;
    let rows = states().await;
    for (account, _) in &accounts[1..] {
        assert_ne!(of(&rows, account, "state"), "ACTIVE", "{account}");
    }
    let records = records(&agent);
    assert!((1..RECORDS).contains(&records), "{records} records");
    let memory = memory(agent.pid(), "VmHWM");
    println!("agent at most {memory:.1} MiB, {records} records");
    assert!(memory <= MEMORY, "{memory} MiB");
}

/// Changes every object, and waits until the facade shows each change.
async fn sees_changes(double: &Double, facade: &Facade) {
    for number in 0..10 {
        let version = double.change("pods", number, Change::Modified).to_string();
        eventually_async("a change of the sound cluster is seen", async || {
            let pods = facade.get("/api/v1/pods").await;
            let items = pods["items"].as_array().expect("a list");
            let seen = |pod: &Value| pod["metadata"]["resourceVersion"] == version;
            items.iter().any(seen).then_some(())
        })
        .await;
    }
}

/// How many records of unreadable objects an agent has written.
fn records(agent: &Sortie) -> usize {
    let message = "object could not be filtered; its identity is sent instead";
    let log = agent.log();
    let records = log
        .entries()
        .filter(|entry| entry.message() == Some(message));
    records.count()
}

/// A column of an account's row.
fn of(answer: &Value, account: &str, column: &str) -> String {
    let rows = answer["rows"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["name"] == account);
    let value = row.and_then(|row| row[column].as_str());
    value.unwrap_or_default().to_owned()
}
