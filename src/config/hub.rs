//! `hub.yaml`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::ConfigError;
use super::print::yaml;
use super::reader::{Field, Map, Parsed, Reader, printable};
use super::text::{address, duration, is_host, parsed, path, text, written};
use crate::hub::{Listen, Settings, Ttls};
use crate::identity::{NAMES_PER_CERTIFICATE, Role, profile};

/// The state folder where the configuration names none.
pub const STATE_DIR: &str = "/var/lib/sortie";

/// Age of a view that is still served, where the configuration says nothing else.
const MAX_STALE: Duration = Duration::from_mins(15);

/// Range of `max-stale`.
const STALE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));

const KEYS: [&str; 7] = [
    "certificates",
    "listen",
    "max-stale",
    "name",
    "names",
    "state-dir",
    "trust-domain",
];

/// Reads the text of the file at `path`.
///
/// # Errors
/// Everything that has to be changed.
pub fn read(file: &Path, text: &str) -> Result<Settings, ConfigError> {
    let (reader, node) = Reader::open(file, text)?;
    let settings = settings(&reader.root(&node, &KEYS));
    reader.finish(settings)
}

fn settings(root: &Map<'_>) -> Option<Settings> {
    let name = root.required("name", parsed);
    let trust_domain = root.required("trust-domain", parsed);
    let names = root.required_list("names", NAMES_PER_CERTIFICATE, |field| field.read(host));
    let state_dir = root.optional("state-dir", path);
    let max_stale = root.optional("max-stale", duration(STALE.0..=STALE.1));
    let listen = listen(root);
    let certificates = certificates(root);
    Some(Settings {
        frames: None,
        name: name?,
        trust_domain: trust_domain?,
        names: names?,
        state_dir: state_dir.unwrap_or_else(|| PathBuf::from(STATE_DIR)),
        listen,
        certificates,
        max_stale: max_stale.unwrap_or(MAX_STALE),
    })
}

fn host(field: &Field<'_>) -> Parsed<String> {
    let text = text(field)?;
    if is_host(&text) {
        return Ok(text);
    }
    let got = printable(&text);
    Err(format!("must be a host name or an address, got `{got}`"))
}

fn listen(root: &Map<'_>) -> Listen {
    let map = root.map("listen", &["data", "enrol", "facade", "health", "metrics"]);
    let at = |key, default| map.optional(key, address).unwrap_or(default);
    Listen {
        data: at("data", everywhere(9091)),
        enrol: at("enrol", everywhere(9092)),
        facade: at("facade", everywhere(7443)),
        health: at("health", HEALTH),
        metrics: at("metrics", METRICS),
    }
}

const fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

/// Where health is told, where the configuration says nothing else.
pub(super) const HEALTH: SocketAddr = everywhere(8082);

/// Where metrics are told, where the configuration says nothing else: to this machine only.
pub(super) const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8008);

fn certificates(root: &Map<'_>) -> Ttls {
    let map = root.map("certificates", &["agent-ttl", "client-ttl", "hub-ttl"]);
    let ttl = |key, role| {
        let read = duration(profile::SHORTEST_TTL..=profile::LONGEST_TTL);
        let default = profile::profile(role).ttl;
        map.optional(key, read).unwrap_or(default)
    };
    Ttls {
        agent: ttl("agent-ttl", Role::Agent),
        client: ttl("client-ttl", Role::Client),
        hub: ttl("hub-ttl", Role::Hub),
    }
}

/// The effective settings as YAML, which reads back as the same settings.
pub fn print(settings: &Settings) -> String {
    yaml(&value(settings))
}

fn value(settings: &Settings) -> Value {
    let (listen, ttls) = (&settings.listen, settings.certificates);
    json!({
        "name": settings.name.as_str(),
        "trust-domain": settings.trust_domain.as_str(),
        "names": settings.names,
        "state-dir": settings.state_dir,
        "listen": {
            "data": listen.data,
            "enrol": listen.enrol,
            "facade": listen.facade,
            "health": listen.health,
            "metrics": listen.metrics,
        },
        "certificates": {
            "agent-ttl": written(ttls.agent),
            "client-ttl": written(ttls.client),
            "hub-ttl": written(ttls.hub),
        },
        "max-stale": written(settings.max_stale),
    })
}
