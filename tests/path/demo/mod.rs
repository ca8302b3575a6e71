//! What `sortie demo` shows, and that it says so when something is broken.

mod broken;
mod real;
mod shape;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use sortie::demo::{self, Logs, Report, Source};
use sortie::policy::{self, Rules};
use sortie::{clock, entropy};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::kubectl::Ran;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sortie");

/// How long a whole demonstration may take; its certificates alone take a minute.
const LIMIT: Duration = Duration::from_mins(4);

/// Lifetime of certificates where a test has no minute to wait for two rotations.
const SHORT: Duration = Duration::from_secs(10);

/// The program's `demo`, with a folder for temporary files of its own.
fn command(arguments: &[&str], temporary: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("demo").args(arguments).env("TMPDIR", temporary);
    for name in ["RUST_LOG", "KUBECONFIG"] {
        command.env_remove(name);
    }
    command
}

/// Runs `sortie demo --once --report FILE` and more to its end; gives how, and the report.
async fn once(arguments: &[&str]) -> (Ran, Value) {
    let folder = TempDir::with_prefix("sortie-demo-test-").unwrap();
    let (report, temporary) = (folder.path().join("report.json"), folder.path().join("tmp"));
    std::fs::create_dir(&temporary).unwrap();
    let file = report.display().to_string();
    let all = [&["--once", "--report", &file], arguments].concat();
    let mut command = tokio::process::Command::from(command(&all, &temporary));
    let ran = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let ran = tokio::time::timeout(LIMIT, ran)
        .await
        .expect("it ends")
        .unwrap();
    assert_eq!(left(&temporary), 0, "its folder has gone");
    let text = std::fs::read_to_string(report).unwrap_or_default();
    (ran.into(), serde_json::from_str(&text).unwrap_or_default())
}

/// How many entries a folder has.
fn left(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// A demonstration in this process, with something changed.
struct Staged {
    source: Source,
    plant: bool,
    agent_ttl: Duration,
    timeout: Duration,
    rules: Rules,
}

impl Staged {
    fn on(source: Source) -> Self {
        Self {
            source,
            plant: false,
            agent_ttl: SHORT,
            timeout: Duration::from_mins(1),
            rules: policy::load().unwrap(),
        }
    }

    /// The report; `at_rotation` is called when the first one was seen, while all is observed.
    async fn report(self, at_rotation: impl FnOnce() + Send + 'static) -> Report {
        let folder = TempDir::with_prefix("sortie-demo-test-").unwrap();
        let at_rotation = Mutex::new(Some(at_rotation));
        let say = move |line: &str| {
            println!("{line}");
            if line.starts_with("rotated")
                && let Some(act) = at_rotation.lock().unwrap().take()
            {
                act();
            }
        };
        let settings = demo::Settings {
            source: self.source,
            plant: self.plant,
            once: true,
            timeout: self.timeout,
            folder: folder.path().to_owned(),
            agent_ttl: self.agent_ttl,
            rules: self.rules,
            board: None,
            logs: Logs::default(),
            clock: clock::system(),
            entropy: entropy::system(),
        };
        let running = demo::run(settings, Arc::new(say), CancellationToken::new());
        let report = tokio::time::timeout(LIMIT, running).await.expect("it ends");
        let report = report.unwrap().expect("a run to its end has a report");
        println!("{}", serde_json::to_string(&report).unwrap());
        report
    }
}

fn kubeconfig(agent: PathBuf, auditor: PathBuf) -> Source {
    Source::Kubeconfig {
        agent,
        auditor,
        context: None,
    }
}
