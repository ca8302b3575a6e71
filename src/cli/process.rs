//! What hub and agent have in common as processes: logs, hardening, signals, drain.

use std::future::Future;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal as Number, getrlimit, setrlimit};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use super::args::{Color, Format, Global, Level};
use super::board::Lines;
use super::{Exit, print};
use crate::config::ConfigError;
use crate::demo::Logs;
use crate::fault::Chain;
use crate::limits;
use crate::secret::{clear_registers, harden};
use crate::tasks::Tasks;
use crate::telemetry::log;

/// Time a process has to drain; the links of an agent drain within [`limits::DRAIN`].
const GRACE: Duration = limits::DRAIN.saturating_add(Duration::from_secs(5));

/// Time that threads have to end when the process is told to stop at once.
const STOP: Duration = Duration::from_secs(1);

/// Threads of a runtime that uses several: more than this only move work around.
pub(super) const THREADS: usize = 4;

/// The system refuses what every process needs.
#[derive(Debug, Error)]
#[error("cannot {attempted}")]
pub(super) struct SystemError {
    attempted: &'static str,
    #[source]
    source: io::Error,
}

/// Starts the log, then hardens the process.
pub(super) fn prepare(global: &Global, allow_dump: bool) {
    let (level, format, color) = logging(global);
    // A process has one log; a second start within it uses the first.
    let _installed_before = log::install(log::subscriber(level, format, color, io::stderr));
    if allow_dump {
        tracing::warn!("memory of this process may be dumped and read");
    } else {
        harden_or_warn();
    }
}

/// As [`prepare`]; everything that could ever be logged goes to `auditor`, and to the terminal, or
/// the board on it, warnings only, unless more was asked for.
pub(super) fn prepare_audited(global: &Global, auditor: Logs, board: Option<Lines>) {
    let (level, format, color) = logging(global);
    let level = if level == LevelFilter::INFO {
        LevelFilter::WARN
    } else {
        level
    };
    let (writer, color) = match board {
        Some(lines) => (BoxMakeWriter::new(lines), false),
        None => (BoxMakeWriter::new(io::stderr), color),
    };
    let quiet = log::audited(level, format, color, writer, auditor);
    let _installed_before = log::install(quiet);
    harden_or_warn();
}

fn harden_or_warn() {
    if let Err(error) = harden() {
        tracing::warn!(error = %Chain(&error), "not hardened");
    }
}

/// Lets the process have as many files open as the system lets it: each connection is one, and the
/// usual 1,024 are few.
pub(super) fn raise_open_files() {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    let number = |limit: Option<u64>| limit.map_or_else(|| "any".to_owned(), |n| n.to_string());
    let (soft, hard) = (number(before.current), number(before.maximum));
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::info!(limit = hard, before = soft, "open files"),
        Err(error) => {
            tracing::warn!(%error, limit = soft, hard, "cannot raise the limit of open files");
        }
    }
}

fn logging(global: &Global) -> (LevelFilter, log::Format, bool) {
    let color = global.color == Color::Auto && io::stderr().is_terminal();
    let format = match global.log_format {
        Format::Text => log::Format::Text,
        Format::Json => log::Format::Json,
    };
    let level = match global.log_level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    (level, format, color)
}

/// Tells what has to be changed in a configuration.
pub(super) fn refuse(error: &ConfigError) -> Exit {
    match error {
        ConfigError::Problems(_) => print::note(&error.to_string()),
        ConfigError::Unreadable { .. } | ConfigError::NotText { .. } => print::error(error),
    }
    Exit::Usage
}

/// Runs `body` on a runtime with `threads` threads; one is the calling one.
pub(super) fn block_on(threads: usize, body: impl Future<Output = Exit>) -> Exit {
    let mut builder = if threads > 1 {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.on_thread_park(clear_registers);
    match builder.enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(body);
            runtime.shutdown_timeout(STOP);
            exit
        }
        Err(source) => {
            let attempted = "start the runtime";
            print::error(&SystemError { attempted, source });
            Exit::Failed
        }
    }
}

/// The signals that ask a process to end.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal is gone: what was begun there ends in order, as with the others.
    hangup: Signal,
    /// Never looked at: with somebody listening, a file that may not grow is an error of its
    /// write, and not the end of the process.
    _file_size: Signal,
}

impl Signals {
    /// From here on, these signals no longer end the process by themselves.
    pub(super) fn listen() -> Result<Self, SystemError> {
        let failed = |source| SystemError {
            attempted: "listen to signals",
            source,
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            hangup: signal(SignalKind::hangup()).map_err(failed)?,
            _file_size: signal(SignalKind::from_raw(Number::XFSZ.as_raw())).map_err(failed)?,
        })
    }

    /// Waits for the next one. Cancellation-safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Lets `drain` run until it is done or a second signal comes; tells whether all is drained.
    pub(super) async fn during<F: Future<Output = bool>>(
        &mut self,
        drain: impl FnOnce(Duration) -> F,
    ) -> bool {
        tracing::info!("draining");
        tokio::select! {
            drained = drain(GRACE) => {
                if drained {
                    tracing::info!("drained");
                } else {
                    tracing::warn!("not everything ended in time");
                }
                drained
            }
            () = self.next() => {
                tracing::warn!("stopped at once by a second signal");
                false
            }
        }
    }
}

/// How a process ends that was not refused.
pub(super) fn ended(drained: bool, tasks: &Tasks) -> Exit {
    match tasks.dead() {
        Some(task) => {
            print::error_text(&format!(
                "the task `{task}` panicked; its log line says where"
            ));
            Exit::Panicked
        }
        None if drained => Exit::Done,
        None => Exit::Failed,
    }
}
