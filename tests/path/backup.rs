//! A hub's state is copied while it runs, lost, and restored.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail their test"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::returns::{checkpointed, keep_addresses, service};
use crate::support::capture::Entry;
use crate::support::double::{Double, Settings};
use crate::support::eventually::eventually_async;
use crate::support::facade::Facade;
use crate::support::kubectl::Kubectl;
use crate::support::matrix::fill_disk;
use crate::support::sortie::Sortie;
use crate::support::stand::{self, Plan, Stand};
use crate::support::testbed::Testbed;

const PODS: &str = "/api/v1/pods";

/// Objects of each account, and how many of them change in a second.
const OBJECTS: usize = 500;
const PER_SECOND: u64 = 200;

fn mode(path: &Path) -> u32 {
    let facts = fs::metadata(path).expect("it is there");
    facts.permissions().mode() & 0o7777
}

async fn row(hub: &Sortie, what: &str, name: &str) -> Value {
    let ran = stand::ok(hub.command(&["get", what, name, "-o", "json"]).await);
    let answer: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    answer["items"][0].clone()
}

/// Versions of the listed objects, in order.
fn versions(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("a list").iter();
    let mut versions: Vec<String> = items
        .map(|item| item["metadata"]["resourceVersion"].to_string())
        .collect();
    versions.sort();
    versions
}

/// How many enrolments the hub has judged since its last start.
fn enrolments(hub: &Sortie) -> usize {
    let log = hub.log();
    let of_agents = log
        .entries()
        .filter(|entry| entry.text("action") == Some("enrol"));
    of_agents.count()
}

/// Copies the state of a hub that runs.
async fn copied(hub: &Sortie) -> PathBuf {
    let backup = hub.folder().join("backup");
    let out = backup.display().to_string();
    let made = stand::ok(hub.command(&["backup", "--out", &out]).await);
    assert!(
        made.stderr.contains(&out) && made.stdout.is_empty(),
        "{made:?}"
    );
    for (path, wanted) in [
        ("", 0o700),
        ("ca", 0o700),
        ("ca/root.pem", 0o600),
        ("ca/intermediate.pem", 0o600),
        ("sortie.redb", 0o600),
    ] {
        assert_eq!(mode(&backup.join(path)), wanted, "{path}");
    }
    let again = hub.command(&["backup", "--out", &out]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("exists"), "{again:?}");
    backup
}

fn cluster() -> Double {
    Double::start(Settings {
        objects: vec![("pods", OBJECTS)],
        changing: true,
        ..Settings::default()
    })
}

#[tokio::test]
async fn a_hub_restored_from_a_backup_knows_its_agents_clients_and_accounts() {
    let (one, two) = (cluster(), cluster());
    let mut stand = Stand::joining(Plan::one("one", &one.write_kubeconfig(), "")).await;
    keep_addresses(&stand.hub).await;
    stand.wait("one", "ACTIVE").await;
    // One agent that will come back as another process, and one that only loses its connection.
    let plan = Plan::one("two", &two.write_kubeconfig(), "");
    let identity = "state-dir: identity\n";
    let mut kept = stand::agent_with(&[], &stand.hub, "kept", &plan, identity).await;
    stand::wait(&stand.hub, &kept, "two", "ACTIVE").await;
    let facades = [
        Facade::of(&stand.kubeconfig("one", "visitor").await),
        Facade::of(&stand::kubeconfig(&stand.hub, "two", "other").await),
    ];
    let before = [
        row(&stand.hub, "accounts", "one").await,
        row(&stand.hub, "accounts", "two").await,
    ];
    for double in [&one, &two] {
        double.drive("pods", PER_SECOND);
    }

    let backup = copied(&stand.hub).await;
    assert_eq!(enrolments(&stand.hub), 2);
    stand.hub.kill().await;
    kept.kill().await;
    let state = stand.hub.folder().join("state");
    fs::remove_dir_all(&state).expect("it was there");
    fs::rename(&backup, &state).expect("it was there");
    stand.agent.pause(true);
    stand.hub.start_again();
    stand.hub.ready().await;
    let revoke = |entry: &Entry| {
        entry
            .message()
            .is_some_and(|it| it.contains("from a backup"))
    };
    assert_eq!(stand.hub.log().entries().filter(revoke).count(), 1);
    for (facade, account) in facades.iter().zip(&before) {
        assert_eq!(versions(&facade.get(PODS).await).len(), OBJECTS);
        let name = account["name"].as_str().expect("a name");
        let now = row(&stand.hub, "accounts", name).await;
        assert_eq!(
            (&now["id"], &now["reason"]),
            (&account["id"], &"AgentAway".into()),
            "{now}"
        );
    }

    stand.agent.pause(false);
    kept.start_again();
    stand.wait("one", "ACTIVE").await;
    stand::wait(&stand.hub, &kept, "two", "ACTIVE").await;
    for double in [&one, &two] {
        double.drive("pods", 0);
    }
    for (facade, double) in facades.iter().zip([&one, &two]) {
        eventually_async("what the cluster has", async || {
            // One tick of the drive may still have been under way.
            let wanted = versions(&double.api().get(PODS).await);
            let shown = versions(&facade.get(PODS).await);
            (shown == wanted).then_some(())
        })
        .await;
    }
    assert_eq!(enrolments(&stand.hub), 0);
    assert_eq!(kept.stop().await, 0, "{:?}", kept.log());
}

#[tokio::test]
async fn a_backup_that_does_not_fit_is_told_leaves_nothing_and_the_hub_goes_on() {
    let cluster = Testbed::shared().await.cluster();
    let namespace = cluster.api().namespace("backup").await;
    let services = format!("/api/v1/namespaces/{namespace}/services");
    let create = async |name: &str| {
        cluster.api().create(&services, &service(name)).await;
    };
    let stand = Stand::start(Plan::one("lab", &cluster.kubeconfig, "")).await;
    let kubectl = Kubectl::pinned(33, &stand.kubeconfig("lab", "visitor").await);
    checkpointed(&stand.hub, &create).await;
    let out = stand.hub.folder().join("backup").display().to_string();
    let partial = format!("{out}.partial");

    fill_disk(&stand.hub, true);
    let failed = stand.hub.command(&["backup", "--out", &out]).await;
    fill_disk(&stand.hub, false);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    println!("{}", failed.stderr.trim());
    assert!(failed.stderr.contains("is the disk full?"), "{failed:?}");
    for path in [&out, &partial] {
        assert!(!Path::new(path).exists(), "{path}");
    }

    create("after").await;
    eventually_async("what came after", async || {
        let listed = kubectl.run(&["get", "services", "-n", &namespace]).await;
        listed.stdout.contains("after").then_some(())
    })
    .await;
    // The store is written as before, and copied.
    let client = ["client", "create", "late", "--account", "lab"];
    stand::ok(stand.hub.command(&client).await);
    stand::ok(stand.hub.command(&["backup", "--out", &out]).await);
}
