//! `sortie demo`

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::args::{Color, Demo, Global};
use super::board::{Ended, Lines, Screen};
use super::process::{self, Signals};
use super::{Exit, print};
use crate::config::source::Environment;
use crate::demo::{self, AGENT_TTL, Logs, Progress, Report, Source};
use crate::{clock, entropy, policy};

/// Threads of the demonstration: hub, agent, cluster and auditor share them.
const THREADS: usize = 2;

/// Why the demonstration cannot begin.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("cannot make a private folder in `{}`", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("no kubeconfig: neither KUBECONFIG nor HOME is set; name one with --kubeconfig")]
    NoKubeconfig,
    #[error("cannot write the report `{}`", path.display())]
    Report {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// A folder that is removed at the end, with everything in it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left after a crash is in the system's folder for such things.
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn run(demo: &Demo, global: &Global) -> Exit {
    let (logs, environment) = (Logs::default(), Environment::of_process());
    let lines = Lines::for_board(global, &environment);
    process::prepare_audited(global, logs.clone(), lines.clone());
    let rules = match policy::load() {
        Ok(rules) => rules,
        Err(error) => return print::failed(&error),
    };
    let folder = match private_folder(&environment) {
        Ok(folder) => folder,
        Err(error) => return print::failed(&error),
    };
    let source = match source(demo, &environment) {
        Ok(source) => source,
        Err(error) => return print::failed(&error),
    };
    let settings = demo::Settings {
        source,
        plant: demo.plant,
        once: demo.once,
        timeout: demo.timeout,
        folder: folder.0.clone(),
        agent_ttl: AGENT_TTL,
        rules,
        board: lines.as_ref().map(Lines::live),
        logs,
        clock: clock::system(),
        entropy: entropy::system(),
    };
    let showing = show(settings, lines, global.color, demo.report.as_deref());
    process::block_on(THREADS, showing)
}

async fn show(
    settings: demo::Settings,
    lines: Option<Lines>,
    color: Color,
    report: Option<&Path>,
) -> Exit {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return print::failed(&error),
    };
    let stop = CancellationToken::new();
    let say: Progress = match &lines {
        Some(lines) => {
            let lines = lines.clone();
            Arc::new(move |text: &str| lines.progress(text))
        }
        None => Arc::new(print::progress),
    };
    // A terminal that cannot be taken over gets the plain lines.
    let mut screen = lines.and_then(|lines| Screen::open(&lines, color).ok());
    let running = demo::run(settings, say, stop.clone());
    tokio::pin!(running);
    let outcome = loop {
        tokio::select! {
            outcome = &mut running => break outcome,
            () = signals.next() => {
                screen = None;
                stop.cancel();
            }
            ended = shown(screen.as_mut()) => {
                screen = None;
                if ended == Ended::Asked {
                    stop.cancel();
                }
            }
        }
    };
    drop(screen);
    match outcome {
        Ok(None) => Exit::Done,
        Ok(Some(shown)) => conclude(&shown, report),
        Err(error) => print::failed(&error),
    }
}

/// Shows the board, if there is one, until that is over.
async fn shown(screen: Option<&mut Screen>) -> Ended {
    match screen {
        Some(screen) => screen.show().await,
        None => std::future::pending().await,
    }
}

fn conclude(shown: &Report, path: Option<&Path>) -> Exit {
    let text = serde_json::to_string_pretty(shown).unwrap_or_default() + "\n";
    match path {
        Some(path) => {
            if let Err(source) = std::fs::write(path, &text) {
                let path = path.to_owned();
                return print::failed(&DemoError::Report { path, source });
            }
            print::progress(&format!("report   {}", path.display()));
        }
        None => print::progress(text.trim_end()),
    }
    if shown.ok {
        print::progress("ok       everything holds");
        return Exit::Done;
    }
    for failed in &shown.failed {
        print::error_text(failed);
    }
    Exit::Failed
}

fn source(demo: &Demo, environment: &Environment) -> Result<Source, DemoError> {
    let path = match (&demo.kubeconfig, demo.live) {
        (Some(path), _) => path.clone(),
        (None, true) => environment.kubeconfig().ok_or(DemoError::NoKubeconfig)?,
        (None, false) => return Ok(Source::Embedded),
    };
    let context = demo.context.clone();
    Ok(Source::Kubeconfig {
        agent: path.clone(),
        auditor: path,
        context,
    })
}

fn private_folder(environment: &Environment) -> Result<Folder, DemoError> {
    let name = format!(
        "sortie-demo-{}",
        hex::encode(entropy::bytes::<6>(&*entropy::system()))
    );
    let path = environment.temporary().join(name);
    let made = DirBuilder::new().mode(0o700).create(&path);
    made.map_err(|source| DemoError::Folder {
        path: path.clone(),
        source,
    })?;
    Ok(Folder(path))
}
