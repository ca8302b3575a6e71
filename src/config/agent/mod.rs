//! `agent.yaml`.
//!
//! ```text
//! listen, hub, identity ── identity.rs ─┐
//! engines ──────────────── engines.rs ──┼─▶ agent::Settings
//! accounts ─────────────── accounts.rs ─┘
//! ```

mod accounts;
mod credential;
mod engines;
mod identity;
mod live;
mod print;

use std::path::Path;

use super::ConfigError;
use super::hub::{HEALTH, METRICS};
use super::reader::{Map, Reader};
use super::source::Environment;
use super::text::{address, parsed};
use crate::agent::Settings;

pub use live::{Live, live};
pub use print::print;

/// Folder of a pod's own account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const KEYS: [&str; 7] = [
    "accounts",
    "engines",
    "hub",
    "identity",
    "listen",
    "name",
    "state-dir",
];

/// Reads the text of the file at `path`, and the join string that it names.
///
/// # Errors
/// Everything that has to be changed.
pub fn read(file: &Path, text: &str, environment: &Environment) -> Result<Settings, ConfigError> {
    let (reader, node) = Reader::open(file, text)?;
    let settings = settings(&reader.root(&node, &KEYS), environment);
    reader.finish(settings)
}

fn settings(root: &Map<'_>, environment: &Environment) -> Option<Settings> {
    let name = root.required("name", parsed);
    let listen = root.map("listen", &["health", "metrics"]);
    let health = listen.optional("health", address);
    let metrics = listen.optional("metrics", address);
    let identity = identity::read(root);
    let engines = engines::read(root, environment);
    let accounts = accounts::read(root, &engines, environment);
    let identity = identity?;
    Some(Settings {
        name: name?,
        health: health.unwrap_or(HEALTH),
        metrics: metrics.unwrap_or(METRICS),
        state_dir: identity.state_dir,
        hub: identity.hub,
        evidence: identity.evidence,
        engines: engines.settings,
        accounts: accounts?,
        host: environment.host.clone().unwrap_or_default(),
    })
}
