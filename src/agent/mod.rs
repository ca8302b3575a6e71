//! Builds and supervises one agent: a worker per account, the identity task, the session with the
//! hub.
//!
//! ```text
//! roster: a worker per account that the configuration names now, or that fan_out makes of one
//!         whose secret stands for several
//! worker (per account): credential ─▶ cluster ─▶ discovery ─▶ feed ─┐
//! uplink: evidence ─▶ certificate ─▶ connection ─▶ link ◀── feeds ──┘
//!                         ▲ renewal      │ dispatch ─▶ operations
//! ```
//! # Invariants
//! - A worker's panic stops its account only; it is started again (test: `supervision::tests`).
//! - Before the hub accepts an account, nothing of its cluster is listed or watched.
//! - The agent listens nowhere, health and metrics aside.
//! # Failure
//! - Refused for good before the first certificate → [`Fatal`], exit code 77.
//! - Refused later → stays up, not ready, asks again every 10 minutes.
//! - Everything else is retried, with its reason in the account's state and in the log.

mod accounts;
mod certificate;
mod check;
mod evidence;
mod fan_out;
mod kinds;
mod memory;
mod metrics;
mod operations;
mod rediscovery;
mod renewal;
mod roster;
mod supervision;
mod trial;
mod uplink;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::clock::SharedClock;
use crate::credential::{self, OwnCertificate};
use crate::entropy::{self, SharedEntropy};
use crate::fault::Advised;
use crate::identity::renewal::Schedule;
use crate::identity::{Name, SpkiSha256};
use crate::policy::{self, Rules};
use crate::secret::SecretBytes;
use crate::stream::StreamCounts;
use crate::tasks::Tasks;
use crate::telemetry;
use crate::telemetry::health;
use crate::telemetry::health::Latches;

pub use accounts::Counts;
pub use check::{check, surroundings};
pub use evidence::{joining, read_join};
pub use roster::Wanted;

/// What an agent is made of; checked.
#[derive(Debug)]
pub struct Settings {
    /// Its name, stable across restarts.
    pub name: Name,
    /// `/livez`, `/readyz`, `/version`.
    pub health: SocketAddr,
    /// `/metrics`.
    pub metrics: SocketAddr,
    /// Where key and certificate are kept, if anywhere.
    pub state_dir: Option<PathBuf>,
    /// Which hub.
    pub hub: Hub,
    /// How it proves who it is.
    pub evidence: Evidence,
    /// Secret engines by profile.
    pub engines: Vec<credential::Settings>,
    /// What it serves.
    pub accounts: Vec<AccountSettings>,
    /// Name of this pod or host, for people.
    pub host: String,
}

/// Where a hub is, and by which root it is recognised.
#[derive(Clone, Debug)]
pub struct Hub {
    /// `host:port` of the data listener.
    pub data: String,
    /// `host:port` of the enrol listener.
    pub enrol: String,
    /// SHA-256 of the root's public key.
    pub root_spki_sha256: SpkiSha256,
}

/// How an agent proves who it is.
#[derive(Debug)]
pub enum Evidence {
    /// A one-time token, from a join string.
    Token {
        /// Which token, public; the one at the start.
        id: String,
        /// Its secret.
        secret: Arc<SecretBytes>,
        /// The file of the join string, if it has one: another token in it is the one to show.
        file: Option<PathBuf>,
    },
    /// A projected `ServiceAccount` token, read at each attempt.
    ServiceAccount {
        /// The file it is projected to.
        token_file: PathBuf,
    },
}

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountSettings {
    /// Its name in Spinnaker.
    pub name: String,
    /// Where its credential comes from.
    pub source: credential::Source,
    /// What may be read and done.
    pub policy: policy::AccountSettings,
    /// Spinnaker roles that may read.
    pub read_roles: Vec<String>,
    /// Spinnaker roles that may write.
    pub write_roles: Vec<String>,
}

/// Why an agent did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address is taken or not ours.
    #[error("cannot listen on {address} (`listen.{door}`)")]
    Bind {
        /// Which listener.
        door: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: Advised,
    },
}

/// Why an agent cannot go on, and only an operator can help.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub struct Fatal {
    /// What happened, and what to do.
    pub message: String,
}

/// An agent that runs.
#[derive(Debug)]
pub struct Running {
    /// Where health is told.
    pub health: SocketAddr,
    /// Where metrics are told.
    pub metrics: SocketAddr,
    accounts: Arc<accounts::Accounts>,
    identity: watch::Receiver<uplink::IdentityStatus>,
    wanted: watch::Sender<Arc<Wanted>>,
    tasks: Tasks,
}

/// The agent's certificate, as it tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityReport {
    /// Serial of the certificate in use, hex; empty before the first.
    pub serial: String,
    /// Its life; none before the first.
    pub life: Option<Life>,
    /// Certificates that replaced an earlier one while the agent ran.
    pub rotations: u64,
    /// Whether a link to the hub is open.
    pub connected: bool,
}

/// The life of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it was issued, by the hub's clock.
    pub issued_at: SystemTime,
    /// When it is renewed, unless told to earlier.
    pub renew_at: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

impl From<Schedule> for Life {
    fn from(schedule: Schedule) -> Self {
        Self {
            issued_at: schedule.issued_at(),
            renew_at: schedule.renew_at(),
            not_after: schedule.not_after(),
        }
    }
}

impl Running {
    /// Waits until the agent cannot go on.
    pub async fn fatal(&self) -> Fatal {
        let mut identity = self.identity.clone();
        let told = identity.wait_for(|status| status.fatal.is_some()).await;
        let fatal = told.ok().and_then(|status| status.fatal.clone());
        match fatal {
            Some(fatal) => fatal,
            // The uplink stopped without one: whoever stopped it knows why.
            None => std::future::pending().await,
        }
    }

    /// The certificate of the moment.
    pub fn identity(&self) -> IdentityReport {
        self.identity.borrow().report.clone()
    }

    /// Waits until `wanted` holds for the certificate.
    pub async fn identity_until(&self, wanted: impl Fn(&IdentityReport) -> bool) {
        let mut identity = self.identity.clone();
        // Ends without it only when the agent stops.
        let _stopped = identity
            .wait_for(|status| wanted(&status.report))
            .await
            .map(drop);
    }

    /// What was counted per account.
    pub fn counts(&self) -> Vec<(String, StreamCounts)> {
        self.accounts.counts()
    }

    /// Lists that no 410 preceded: snapshots beyond the first of each stream and those that a 410
    /// asked for.
    pub fn relists(&self) -> u64 {
        let of = |counts: &StreamCounts| {
            let excused = counts.streams + counts.expired;
            counts.snapshots.saturating_sub(excused)
        };
        self.counts().iter().map(|(_, counts)| of(counts)).sum()
    }

    /// Serves these accounts from now on: stops, starts and changes what differs, and nothing else.
    pub fn reload(&self, wanted: Wanted) {
        self.wanted.send_replace(Arc::new(wanted));
    }

    /// Stops: links drain, watches end.
    pub async fn drain(self, grace: Duration) -> bool {
        self.tasks.drain(grace).await
    }
}

/// Starts an agent whose tasks belong to `tasks`.
///
/// # Errors
/// Nothing is left running.
pub async fn start(
    settings: Settings,
    rules: &Rules,
    clock: SharedClock,
    entropy: SharedEntropy,
    tasks: Tasks,
) -> Result<Running, StartError> {
    let (health_listener, health) = bind("health", settings.health).await?;
    let (metrics_listener, metrics) = bind("metrics", settings.metrics).await?;
    let latches = Latches::open(&["identity", "hub", "accounts"]);
    let accounts = accounts::Accounts::new(Arc::clone(&clock), latches.clone());
    // Operations outlive a stop for the time of their link's drain: so do the connections that
    // carry them to the clusters. The uplink ends both.
    let connections = Tasks::new();
    let quota = Arc::default();
    let (shown, told) = watch::channel(None);
    let roster = roster::Roster::new(roster::Common {
        rules: rules.clone(),
        accounts: Arc::clone(&accounts),
        clock: Arc::clone(&clock),
        entropy: Arc::clone(&entropy),
        certificate: OwnCertificate::told_by(told),
        hash_key: std::hash::RandomState::new(),
        quota: Arc::clone(&quota),
        connections: connections.clone(),
        tasks: tasks.clone(),
    });
    let wanted = watch::Sender::new(Arc::new(Wanted {
        engines: settings.engines,
        accounts: settings.accounts,
    }));
    let (wishes, fetches) = (wanted.subscribe(), roster.fetches());
    tasks.spawn("roster", move |stop| roster.run(wishes, stop));
    tasks.spawn("memory", move |stop| memory::look_after(quota, stop));
    let instance = entropy::bytes(&*entropy);
    let uplink = uplink::Uplink::new(
        uplink::Settings {
            name: settings.name,
            state_dir: settings.state_dir,
            hub: settings.hub,
            evidence: settings.evidence,
            host: settings.host,
            instance,
        },
        Arc::clone(&accounts),
        latches.clone(),
        clock,
        entropy,
        shown,
    );
    let identity = uplink.status();
    let owner = tasks.clone();
    tasks.spawn("uplink", move |stop| uplink.run(owner, connections, stop));
    health::serve(&tasks, health_listener, latches);
    let figures = metrics::source(&accounts, fetches, identity.clone());
    telemetry::metrics::serve(&tasks, metrics_listener, figures);
    Ok(Running {
        health,
        metrics,
        accounts,
        identity,
        wanted,
        tasks,
    })
}

async fn bind(
    door: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::Bind {
        door,
        address,
        source: Advised::listening(error),
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
