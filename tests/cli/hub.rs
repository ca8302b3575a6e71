//! A hub under its command line, end to end.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::sortie::{Sortie, program, run};

pub(crate) fn config(_folder: &Path) -> String {
    "\
name: hub-1
trust-domain: test.example
names: [127.0.0.1]
state-dir: state
listen: { data: 127.0.0.1:0, enrol: 127.0.0.1:0, facade: 127.0.0.1:0, health: 127.0.0.1:0, metrics: 127.0.0.1:0 }
"
    .to_owned()
}

#[tokio::test]
async fn a_hub_is_administered_over_its_socket() {
    let mut hub = Sortie::hub(config);
    hub.ready().await;
    assert_eq!(
        hub.logged("listening")
            .await
            .text("root-spki-sha256")
            .unwrap()
            .len(),
        64
    );

    let empty = hub.command(&["get", "agents"]).await;
    assert_eq!((empty.code, empty.stdout.as_str()), (Some(0), ""));
    assert_eq!(empty.stderr, "no agents\n");

    let made = hub
        .command(&["token", "create", "prod-eu", "--account", "lab"])
        .await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert!(made.stdout.starts_with("sortie-join-v1."));
    assert!(!made.stderr.contains("sortie-join-v1."));

    let tokens = hub.command(&["get", "tokens"]).await.stdout;
    let lines: Vec<Vec<&str>> = tokens
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["ID", "AGENT", "ACCOUNTS", "EXPIRES", "SPENT"]);
    assert_eq!(lines[1][1..3], ["prod-eu", "lab"]);
    let deleted = hub.command(&["token", "delete", lines[1][0]]).await;
    assert_eq!(deleted.code, Some(0), "{}", deleted.stderr);

    let client = hub
        .command(&["client", "create", "clouddriver", "--account", "lab"])
        .await;
    assert_eq!((client.code, client.stdout.as_str()), (Some(0), ""));
    let clients = hub.command(&["get", "clients", "-o", "json"]).await.stdout;
    let clients: Value = serde_json::from_str(&clients).unwrap();
    assert_eq!(clients["version"], 1);
    assert_eq!(clients["items"][0]["name"], "clouddriver");
    assert_eq!(clients["items"][0]["accounts"][0], "lab");

    let unknown = hub.command(&["get", "clients", "nobody"]).await;
    assert_eq!(
        (unknown.code, unknown.stderr.as_str()),
        (
            Some(1),
            "error: no client nobody\nhint: `sortie get clients` lists them\n"
        )
    );
    let waited = hub
        .command(&[
            "get",
            "accounts",
            "lab",
            "--wait",
            "ACTIVE",
            "--timeout",
            "1s",
        ])
        .await;
    assert_eq!(waited.code, Some(69));
    assert_eq!(waited.stderr, "error: account lab is not ACTIVE after 1s\n");

    let stopped = tokio::time::timeout(Duration::from_secs(5), hub.stop()).await;
    assert_eq!(stopped, Ok(0), "{:?}", hub.log());
    hub.log().assert_without(&[made.stdout.trim_end()]);
    assert_eq!(hub.stdout(), "");
}

#[tokio::test]
async fn a_secret_is_written_to_a_new_file_of_its_owner() {
    let hub = Sortie::hub(config);
    hub.ready().await;
    let file = hub.folder().join("join");
    let path = file.to_str().unwrap();
    let create = ["token", "create", "prod-eu", "--out", path];
    let made = hub.command(&create).await;
    assert_eq!(
        (made.code, made.stdout.as_str()),
        (Some(0), ""),
        "{}",
        made.stderr
    );
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = hub.command(&create).await;
    assert_eq!(again.code, Some(1));
    assert_eq!(
        again.stderr,
        format!("error: `{path}` exists; it is not overwritten\n")
    );

    let refused = hub.folder().join("kubeconfig");
    let path = refused.to_str().unwrap();
    let ran = hub
        .command(&["kubeconfig", "lab", "--client", "nobody", "--out", path])
        .await;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(!refused.exists());
}

#[tokio::test]
async fn a_state_folder_serves_one_hub() {
    let hub = Sortie::hub(config);
    hub.ready().await;
    let file = hub.config_file();
    let second = run(&["hub", "--config", file.to_str().unwrap()], "").await;
    assert_eq!(second.code, Some(1));
    assert!(
        second.stderr.contains("another hub uses the store"),
        "{}",
        second.stderr
    );
    let still = hub.command(&["get", "agents"]).await;
    assert_eq!(still.code, Some(0), "{}", still.stderr);
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_told_with_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let socket = socket.to_str().unwrap();
    let wanted = format!(
        "error: cannot reach the hub at `{socket}`: No such file or directory (os error 2)\n\
         hint: is the hub running? `--hub` names its socket: `admin.sock` in its `state-dir`\n"
    );
    for words in [
        &["get", "agents"][..],
        &["get", "agents", "--wait", "ACTIVE", "--timeout", "1s"],
        &["account", "approve", "lab"],
    ] {
        let ran = run(&[&["--hub", socket], words].concat(), "").await;
        assert_eq!((ran.code, ran.stderr), (Some(69), wanted.clone()));
    }
}

#[tokio::test]
async fn a_configuration_is_checked_without_being_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.yaml");
    let path = file.to_str().unwrap();
    fs::write(&file, config(folder.path())).unwrap();
    let good = run(&["hub", "--config", path, "--check"], "").await;
    assert_eq!(good.code, Some(0), "{good:?}");
    let lines: Vec<&str> = good.stdout.lines().collect();
    assert_eq!(lines[0], format!("ok   configuration: {path}"));
    assert!(
        lines.iter().all(|line| line.starts_with("ok   ")),
        "{lines:?}"
    );
    let printed = run(&["hub", "--config", path, "--print-config"], "").await;
    assert!(
        printed.stdout.contains("max-stale: \"15m\"\n"),
        "{}",
        printed.stdout
    );
    assert!(!folder.path().join("state").exists());

    fs::write(&file, "name: hub-1\nnames: [hub]\n").unwrap();
    let wanted = format!("{path}:1: trust-domain: is missing\n");
    for flag in [&["--check"][..], &["--print-config"], &[]] {
        let bad = run(&[&["hub", "--config", path], flag].concat(), "").await;
        assert_eq!((bad.code, bad.stdout.as_str()), (Some(64), ""));
        assert_eq!(bad.stderr, wanted);
    }
}

#[tokio::test]
async fn hub_and_agent_may_open_as_many_files_as_the_system_lets_them() {
    let running = Sortie::hub(config);
    running.ready().await;
    let join = running.command(&["token", "create", "lab"]).await.stdout;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("join"), join).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // They end because of it, after they have begun.
    let health = format!("health: {}", taken.local_addr().unwrap());
    let hub = config(folder.path()).replace("health: 127.0.0.1:0", &health);
    let agent = format!(
        "name: lab
listen: {{ {health}, metrics: 127.0.0.1:0 }}
identity: {{ join: {{ method: token, join-file: join }} }}
accounts: [{{ name: lab, credential: {{ kubeconfig-file: not-there.yaml }} }}]
"
    );
    for (role, text) in [("hub", hub), ("agent", agent)] {
        let path = folder.path().join(role);
        fs::write(&path, text).unwrap();
        let script = "ulimit -Sn 300; ulimit -Hn 500; exec \"$@\"";
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(program());
        shell.args(["--log-format", "json", role, "--config"]);
        shell.arg(&path).current_dir(folder.path());
        let ran = shell.kill_on_drop(true).output().await.unwrap();
        let log = String::from_utf8_lossy(&ran.stderr);
        let told = log.lines().find(|line| line.contains("\"open files\""));
        let told = told.unwrap_or_else(|| panic!("{log}"));
        for part in ["\"limit\":\"500\"", "\"before\":\"300\""] {
            assert!(told.contains(part), "{told}");
        }
    }
}
