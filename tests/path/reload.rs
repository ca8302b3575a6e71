//! An agent whose configuration changes while it runs.
#![expect(clippy::expect_used, reason = "helpers of tests fail their test")]

use std::fs;

use crate::support::capture::Entry;
use crate::support::double::{Double, Settings};
use crate::support::eventually::eventually;
use crate::support::sortie::Sortie;
use crate::support::stand::{Plan, Stand, account_yaml};

fn cluster() -> Double {
    Double::start(Settings {
        objects: vec![("services", 3)],
        ..Settings::default()
    })
}

/// Writes the agent's file anew with these accounts, which begin behind `head`.
fn write(agent: &Sortie, head: &str, accounts: &[&str]) {
    let text = format!("{head}accounts:\n{}", accounts.concat());
    fs::write(agent.config_file(), text).expect("writable");
}

/// The entries of the agent's log with this message.
fn entries(agent: &Sortie, message: &str) -> Vec<Entry> {
    let log = agent.log();
    let entries = log.entries();
    entries
        .filter(|entry| entry.message() == Some(message))
        .collect()
}

const FOLLOWED: &str = "accounts follow the configuration";
const REFUSED: &str = "the changed configuration is not valid; everything stays as it was";

/// Waits for the next change that the agent follows; checks what it says of it.
async fn followed(agent: &Sortie, before: usize, wanted: [&str; 3]) {
    let entry = eventually("the agent follows its file", || {
        entries(agent, FOLLOWED).into_iter().nth(before)
    })
    .await;
    let told = ["added", "changed", "removed"]
        .map(|field| entry.text(field).unwrap_or_default().to_owned());
    assert_eq!(told, wanted, "{entry:?}");
}

#[tokio::test]
async fn accounts_come_change_and_go_with_the_file_and_an_invalid_file_changes_nothing() {
    let (first, second) = (cluster(), cluster());
    let shop = account_yaml("shop", &first.write_kubeconfig(), "");
    let lab = account_yaml("lab", &second.write_kubeconfig(), "");
    let plan = Plan {
        accounts: vec!["shop".to_owned(), "lab".to_owned()],
        accounts_yaml: shop.clone(),
        engines_yaml: String::new(),
        agent_ttl: "24h",
    };
    let stand = Stand::joining(plan).await;
    stand.wait("shop", "ACTIVE").await;
    let text = fs::read_to_string(stand.agent.config_file()).expect("readable");
    let head = text
        .split_once("accounts:")
        .expect("it has accounts")
        .0
        .to_owned();
    let asked = || first.count_all("list") + first.count_all("watch");
    let (before, lists) = (asked(), first.count_all("list"));
    // Whoever takes the spent token away does right.
    fs::remove_file(stand.hub.folder().join("lab.join")).expect("it was there");

    write(&stand.agent, &head, &[&shop, &lab]);
    followed(&stand.agent, 0, ["lab", "", ""]).await;
    stand.wait("lab", "ACTIVE").await;
    assert_eq!(asked(), before, "the other account goes on as it was");

    write(&stand.agent, &head, &[&shop, &lab, "    namspaces: [x]\n"]);
    let refused = eventually("the agent refuses its file", || {
        entries(&stand.agent, REFUSED).pop()
    })
    .await;
    let why = refused.text("error").unwrap_or_default().to_owned();
    assert!(
        why.contains("namspaces") && why.contains("namespaces"),
        "{why}"
    );
    assert_eq!(stand.account("lab").await["state"], "ACTIVE");

    let readable = shop.replace("scale, status, log", "log");
    assert_ne!(readable, shop);
    let head = head.replace("name: lab", "name: other");
    write(&stand.agent, &head, &[&readable, &lab]);
    followed(&stand.agent, 1, ["", "shop", ""]).await;
    let restart = entries(
        &stand.agent,
        "these changes take effect at the next start only",
    );
    assert_eq!(
        restart.first().and_then(|entry| entry.text("keys")),
        Some("name")
    );
    stand.wait("shop", "ACTIVE").await;
    assert_eq!(first.count_all("list"), lists, "a changed account resumes");

    write(&stand.agent, &head, &[&readable]);
    followed(&stand.agent, 2, ["", "", "lab"]).await;
    stand.wait("lab", "STALE").await;
    assert_eq!(stand.account("shop").await["state"], "ACTIVE");
}
