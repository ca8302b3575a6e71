//! Servers are gone when the process that started them is, even by `kill -9`.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::eventually::{LIMIT, eventually};
use crate::support::server::Server;

/// Names the folder, in the process that plays the killed test.
const FOLDER: &str = "SORTIE_TEST_SUPERVISED_FOLDER";

/// A server with a child of its own.
const SERVER: &str = "sleep 600 & echo $$ $!; wait";

/// The process ids that the server has printed.
fn printed(stem: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(stem.with_extension("out")).ok()?;
    let line = text.strip_suffix('\n')?;
    Some(line.split(' ').map(ToOwned::to_owned).collect())
}

/// Whether a process has ended; one that nobody has waited for yet has.
fn gone(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z'))
}

#[test]
#[ignore = "the other half of the test below, which runs it and kills it"]
fn holds_a_server_until_it_is_killed() {
    let folder = env::var_os(FOLDER).unwrap();
    let folder = Path::new(&folder);
    let mut command = Command::new("sh");
    command.args(["-c", SERVER]);
    let server = Server::start(&command, &folder.join("server"), Some(folder));
    let (_never_sent, never) = std::sync::mpsc::channel::<()>();
    let waited = never.recv_timeout(LIMIT); // until we are killed
    drop(server);
    assert!(waited.is_ok(), "nobody killed this process");
}

#[tokio::test]
async fn a_killed_test_process_leaves_no_server_and_no_folder() {
    let folder = tempfile::TempDir::with_prefix("sortie-supervised-")
        .unwrap()
        .keep();
    let mut killed = Command::new(env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "supervisor::holds_a_server_until_it_is_killed",
        ])
        .env(FOLDER, &folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pids = eventually("the server runs", || printed(&folder.join("server"))).await;
    assert!(!pids.iter().any(|pid| gone(pid)), "{pids:?}");
    killed.kill().unwrap();
    killed.wait().unwrap();
    for pid in &pids {
        eventually("the server and its child are gone", || {
            gone(pid).then_some(())
        })
        .await;
    }
    eventually("the folder is gone", || (!folder.exists()).then_some(())).await;
}

#[tokio::test]
async fn a_dropped_server_is_gone_at_once() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", SERVER]);
    let stem = folder.path().join("server");
    let server = Server::start(&command, &stem, None);
    let pids = eventually("the server runs", || printed(&stem)).await;
    drop(server);
    assert!(gone(&pids[0]), "{pids:?}");
}

#[tokio::test]
async fn how_a_server_ended_is_told() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "echo out; echo err >&2; exit 3"]);
    let server = Server::start(&command, &folder.path().join("brief"), None);
    assert_eq!(server.ended().await, 3);
    assert_eq!(
        (server.stdout(), server.stderr()),
        ("out\n".to_owned(), "err\n".to_owned())
    );

    command = Command::new("sleep");
    command.arg("600");
    let mut server = Server::start(&command, &folder.path().join("killed"), None);
    server.kill().await;
    assert_eq!(server.exit_code(), Some(-9));
}
