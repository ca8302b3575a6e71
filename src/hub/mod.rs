//! Builds and supervises one hub: listeners, sessions, admission, registry, dispatch, store.
//!
//! ```text
//!  agent ══▶ listener ─▶ enrolment ─▶ issuer                    registry ─┐
//!  agent ══▶ listener ─▶ session ─▶ feed ─▶ account (view, cursors) ──────┼─▶ store
//!                           ▲ dispatch ◀─ upstream ◀─ facade ◀─ listener ◀┼═ client
//!  sortie CLI ── admin.sock ────────────────────────────────────── admin ─┘
//! ```
//! # Invariants
//! - A stream is served only to a peer that the TLS listener verified, and only for its own
//!   session ([`peer::Peer`] is made nowhere else; tests: `tests/real`).
//! - A change of the registry is on disk before it is answered (test: `registry::tests`).
//! - Objects and the cursor that covers them are stored in one transaction (test:
//!   `store::tests`).
//! - After a revocation no message of the peer is applied, and its sockets are closed at once.
//! # Failure
//! - The store cannot be written → accounts go on from memory, the log says so once, written again
//!   when it can.
//! - An agent is gone → its accounts are served from what is known, with its age.

mod account;
mod accounts;
pub mod admin;
mod admission;
mod audit;
mod backup;
mod bans;
mod check;
mod checkpoint;
mod crowd;
mod dispatch;
mod enrolment;
mod feed;
mod health;
mod listener;
mod metrics;
mod own;
mod peer;
mod queue;
mod recent;
mod registry;
mod services;
mod session;
mod start;
mod store;
mod stored;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use account::Counts;
pub use check::check;
pub use recent::{Operation, Operations};
pub use start::{Running, StartError, start};
pub use store::FILE as STORE_FILE;

use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::identity::tls::Published;
use crate::identity::{Issuer, Name, TrustDomain};
use crate::tasks::Tasks;

/// What a hub is made of; checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this hub, in its certificate.
    pub name: Name,
    /// Everything it certifies belongs to this domain.
    pub trust_domain: TrustDomain,
    /// Host names and addresses in its certificate: what agents and clients dial.
    pub names: Vec<String>,
    /// Certificate authority, registry and view.
    pub state_dir: PathBuf,
    /// Where it listens.
    pub listen: Listen,
    /// Lifetimes of what it certifies.
    pub certificates: Ttls,
    /// Age of a view that is still served.
    pub max_stale: Duration,
    /// Is handed the inflated events of every batch, for an auditor; nobody else needs it.
    pub frames: Option<Frames>,
}

/// Looks at inflated frames.
#[derive(Clone)]
pub struct Frames(pub Arc<Look>);

/// Looks at one inflated frame.
pub type Look = dyn Fn(&[u8]) + Send + Sync;

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Frames")
    }
}

/// Where a hub listens.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Agents with a certificate.
    pub data: SocketAddr,
    /// Agents that want one.
    pub enrol: SocketAddr,
    /// Clients.
    pub facade: SocketAddr,
    /// `/livez`, `/readyz`, `/version`.
    pub health: SocketAddr,
    /// `/metrics`.
    pub metrics: SocketAddr,
}

/// Lifetimes of certificates.
#[derive(Clone, Copy, Debug)]
pub struct Ttls {
    /// Agents.
    pub agent: Duration,
    /// Clients, unless asked for otherwise.
    pub client: Duration,
    /// The hub itself.
    pub hub: Duration,
}

/// The facade over this hub.
type Facade = crate::facade::Facade<upstream::Port>;

/// What the parts of a hub share.
#[derive(Debug)]
pub struct Core {
    name: Name,
    trust_domain: TrustDomain,
    /// The names in its certificate; the first is what join strings and kubeconfigs point at.
    hosts: Vec<String>,
    ttls: Ttls,
    max_stale: Duration,
    frames: Option<Frames>,
    clock: SharedClock,
    entropy: SharedEntropy,
    issuer: Arc<dyn Issuer>,
    /// The hub's own certificate.
    own: Published,
    figures: Arc<metrics::Figures>,
    registry: Arc<registry::Registry>,
    bans: Arc<bans::Bans>,
    sessions: session::Sessions,
    accounts: accounts::Accounts,
    told: accounts::Told,
    live: Arc<peer::Live>,
    clients: listener::Clients,
    /// Held by the checkpoint under way.
    checkpointing: tokio::sync::Mutex<()>,
    dispatcher: dispatch::Dispatcher,
    recent: recent::Recent,
    facade: Arc<Facade>,
    /// Places of watches over the administration socket.
    watches: tokio::sync::Semaphore,
    store: Arc<store::Store>,
    addresses: Addresses,
    tasks: Tasks,
}

/// The addresses a hub has bound.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Agents with a certificate.
    pub data: SocketAddr,
    /// Agents that want one.
    pub enrol: SocketAddr,
    /// Clients.
    pub facade: SocketAddr,
    /// `/livez`, `/readyz`, `/version`.
    pub health: SocketAddr,
    /// `/metrics`.
    pub metrics: SocketAddr,
}
