//! One run: a cluster, a hub, an agent, an auditor; and what they have shown.

mod follow;
mod parts;
mod sources;
mod verdict;
mod waiting;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::audit::{self, Canaries, Report};
use super::board::Live;
use super::cluster;
use super::logs::Logs;
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::policy::Rules;
use crate::tasks::Tasks;

/// Certificates of the demonstration's agent last this long, so that one sees them rotate.
pub const AGENT_TTL: Duration = Duration::from_mins(1);

/// Time that the parts get to stop.
const GRACE: Duration = Duration::from_secs(10);

/// What a run is made of.
#[derive(Debug)]
pub struct Settings {
    /// The cluster to use.
    pub source: Source,
    /// Plant values in a real cluster, in a namespace of their own.
    pub plant: bool,
    /// End when synced and rotated twice; otherwise run until stopped.
    pub once: bool,
    /// Longest time until an `once` run is complete.
    pub timeout: Duration,
    /// A private folder for the hub's state and for kubeconfigs.
    pub folder: PathBuf,
    /// Lifetime of the agent's certificates.
    pub agent_ttl: Duration,
    /// What is removed, and which kinds are cached.
    pub rules: Rules,
    /// Where the figures are put while it runs, if anybody looks at them.
    pub board: Option<Live>,
    /// Where TRACE logs are looked through.
    pub logs: Logs,
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub entropy: SharedEntropy,
}

/// Which cluster.
#[derive(Clone, Debug)]
pub enum Source {
    /// The embedded one.
    Embedded,
    /// A real one.
    Kubeconfig {
        /// The file that opens it for the agent.
        agent: PathBuf,
        /// The file that opens it for the auditor; the same, outside of tests.
        auditor: PathBuf,
        /// The context; otherwise the current one.
        context: Option<String>,
    },
}

/// Why a run could not be made. What it shows is in the [`Report`].
#[derive(Debug, Error)]
pub enum RunError {
    /// The embedded cluster.
    #[error("cannot start the embedded cluster")]
    Cluster(#[from] cluster::StartError),
    /// A kubeconfig.
    #[error("cannot use the kubeconfig `{}`", path.display())]
    Kubeconfig {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: audit::KubeconfigError,
    },
    /// A file in the private folder.
    #[error("cannot use `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The hub.
    #[error("cannot start the hub")]
    Hub(#[from] crate::hub::StartError),
    /// The agent.
    #[error("cannot start the agent")]
    Agent(#[from] crate::agent::StartError),
    /// The hub's answer to an administrator.
    #[error("{what}: {message}")]
    Admin {
        /// What was asked.
        what: &'static str,
        /// What the hub said.
        message: String,
    },
    /// One of the sides cannot be read.
    #[error("cannot read {side}")]
    Read {
        /// Which.
        side: &'static str,
        /// Why.
        #[source]
        source: audit::ReadError,
    },
    /// The planted values cannot be looked for.
    #[error("cannot look for the planted values")]
    Canaries(#[from] audit::CanaryError),
    /// It took too long.
    #[error("not {what} within {timeout:?}: {state}")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        timeout: Duration,
        /// Where it stood.
        state: String,
    },
    /// Told to stop.
    #[error("interrupted")]
    Stopped,
}

/// Who owns the tasks of a run, in the order in which they are stopped.
#[derive(Debug, Default)]
struct Owners {
    /// The planted namespace; its removal needs the cluster.
    planting: Tasks,
    /// The agent, which would complain of a cluster or a hub that is gone.
    agent: Tasks,
    /// The cluster, the hub and the auditor.
    rest: Tasks,
}

impl Owners {
    async fn died(&self) -> &'static str {
        tokio::select! {
            task = self.agent.died() => task,
            task = self.rest.died() => task,
        }
    }

    async fn stop(&self) {
        for tasks in [&self.planting, &self.agent, &self.rest] {
            let _ended = tasks.drain(GRACE).await;
        }
    }
}

/// Tells how a run goes, line by line.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// Runs a demonstration. With `once`, the report tells what it has shown; otherwise there is none
/// and the run lasts until `stop`.
///
/// # Errors
/// It could not be run. Whatever was started is stopped, and planted namespaces are removed.
pub async fn run(
    settings: Settings,
    say: Progress,
    stop: CancellationToken,
) -> Result<Option<Report>, RunError> {
    let owners = Owners::default();
    let running = parts::start_and_watch(&settings, &say, &owners);
    let outcome = tokio::select! {
        outcome = running => outcome,
        () = stop.cancelled() => Err(RunError::Stopped),
        task = owners.died() => Err(RunError::Admin {
            what: "a part of the demonstration stopped",
            message: format!("task `{task}` panicked"),
        }),
    };
    owners.stop().await;
    match outcome {
        Err(RunError::Stopped) if !settings.once => Ok(None),
        outcome => outcome,
    }
}

/// What is looked for in everything that leaves the agent.
fn look_into(canaries: &Canaries, source: &'static str) -> impl Fn(&[u8]) + Send + Sync + use<> {
    let scan = std::sync::Mutex::new(canaries.scan(source));
    move |bytes: &[u8]| {
        scan.lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .feed(bytes);
    }
}
