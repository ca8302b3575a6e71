//! The board: what a running demonstration looks like, and how it is drawn.
//!
//! ```text
//! run ─figures─▶ Live ─copy─▶ Board ─draw─▶ buffer ─▶ (cli) terminal
//! log, progress ──lines──▶ ▲
//! ```
//! # Invariants
//! - Drawing is a function of the [`Board`] and the size: no clock, no input, no output (test:
//!   `tests/cli/board.rs`, against `tests/golden/board`).
//! - Nothing on the board is understood by its colour alone.
//! - What is kept for it is bounded, however long the demonstration runs.

mod draw;
mod live;
mod panels;
mod shape;
mod text;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::audit::{CanaryFigures, Lag};
use crate::hub::Operations;

pub use draw::{Look, draw};
pub use live::Live;
pub(super) use live::push_bounded;

/// Seconds of which the events are shown.
pub const SECONDS: usize = 60;

/// Everything that is shown, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Board {
    /// Since the start.
    pub running: Duration,
    /// Where the hub listens, once it does.
    pub hub: Option<Doors>,
    /// The agent.
    pub agent: Agent,
    /// Its accounts, as the hub tells them.
    pub accounts: Vec<Account>,
    /// Objects in the hub's view, by kind.
    pub objects: BTreeMap<String, usize>,
    /// Events on their way.
    pub events: Events,
    /// What became of the planted values, if there are any.
    pub planted: Option<CanaryFigures>,
    /// The agent's certificate, once it has one.
    pub certificate: Option<Certificate>,
    /// What clients did through the facade.
    pub operations: Operations,
    /// What was said last, the newest at the end.
    pub lines: VecDeque<Line>,
    /// The kubeconfig to try, once it can be used.
    pub kubeconfig: Option<PathBuf>,
}

/// Addresses of the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors {
    /// For agents.
    pub agents: SocketAddr,
    /// For clients: the facade.
    pub clients: SocketAddr,
}

/// The agent and its link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// What the hub says of it, e.g. `ACTIVE`; empty before it has enrolled.
    pub state: String,
    /// Whether the agent has a link to the hub.
    pub connected: bool,
}

/// One account.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its state, e.g. `ACTIVE`.
    pub state: String,
    /// Why, if there is anything to say.
    pub reason: String,
    /// Objects in its view.
    pub objects: u64,
    /// Cluster event seen → facade event seen, once it is observed.
    pub lag: Option<Lag>,
}

/// Events on their way from the cluster to the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Taken from the cluster so far.
    pub received: u64,
    /// Taken in each of the last [`SECONDS`] seconds, the newest at the end.
    pub per_second: VecDeque<u64>,
    /// Values that the agent masked in them.
    pub masked: u64,
    /// Bytes that the hub got, compressed as they came.
    pub bytes: u64,
}

/// The certificate in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Its serial, hex.
    pub serial: String,
    /// From its issue to its end.
    pub life: Duration,
    /// From its issue to its renewal.
    pub renewed_after: Duration,
    /// Since its issue.
    pub age: Duration,
    /// Certificates that replaced an earlier one.
    pub rotations: u64,
    /// The last of them, the newest at the end.
    pub changes: VecDeque<Change>,
}

/// A certificate that replaced another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Serial of the one before, hex.
    pub old: String,
    /// Serial of the one after.
    pub new: String,
}

/// A line that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// By whom.
    pub voice: Voice,
    /// What.
    pub text: String,
}

/// Who says a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// The log.
    Log,
    /// The demonstration itself.
    Progress,
}
