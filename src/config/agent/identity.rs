//! Which hub, and how the agent proves who it is.

use std::path::PathBuf;
use std::sync::Arc;

use crate::agent::{Evidence, Hub, read_join};
use crate::config::reader::{Field, Map, Parsed, printable};
use crate::config::text::{host_port, path, text};
use crate::identity::SpkiSha256;

/// What is said about the hub and the agent's proof.
pub(super) struct Identity {
    pub(super) hub: Hub,
    pub(super) evidence: Evidence,
    pub(super) state_dir: Option<PathBuf>,
}

/// What the file says about the hub; a join string may say the same.
struct Written {
    data: Option<String>,
    enrol: Option<String>,
    pin: Option<SpkiSha256>,
    state_dir: Option<PathBuf>,
}

pub(super) fn read(root: &Map<'_>) -> Option<Identity> {
    let sections = Sections::of(root);
    let written = sections.written(root);
    let Sections { hub, trust, join } = &sections;
    match join.required("method", method)? {
        Method::Kubernetes => kubernetes(root, hub, trust, join, written),
        Method::Token => token(trust, join, written),
    }
}

/// Tells what is wrong with the keys, and reads no other file.
pub(super) fn check(root: &Map<'_>) {
    let sections = Sections::of(root);
    sections.written(root);
    sections.join.required("method", method);
}

struct Sections<'a> {
    hub: Map<'a>,
    trust: Map<'a>,
    join: Map<'a>,
}

impl<'a> Sections<'a> {
    fn of(root: &Map<'a>) -> Self {
        let identity = root.map("identity", &["join", "trust"]);
        Self {
            hub: root.map("hub", &["data", "enrol", "proxy"]),
            trust: identity.map("trust", &["root-spki-sha256"]),
            join: identity.map("join", &["join-file", "method", "token-file"]),
        }
    }

    fn written(&self, root: &Map<'_>) -> Written {
        self.hub.optional("proxy", proxy);
        Written {
            data: self.hub.optional("data", host_port),
            enrol: self.hub.optional("enrol", host_port),
            pin: self.trust.optional("root-spki-sha256", pin),
            state_dir: root.optional("state-dir", path),
        }
    }
}

enum Method {
    Kubernetes,
    Token,
}

fn method(field: &Field<'_>) -> Parsed<Method> {
    match text(field)?.as_str() {
        "kubernetes" => Ok(Method::Kubernetes),
        "token" => Ok(Method::Token),
        other => Err(format!(
            "must be `kubernetes` or `token`, got `{}`",
            printable(other)
        )),
    }
}

fn proxy(field: &Field<'_>) -> Parsed<()> {
    match text(field)?.as_str() {
        "none" => Ok(()),
        "environment" => Err("`environment` is not available in this version; write `none`".into()),
        other => Err(format!("must be `none`, got `{}`", printable(other))),
    }
}

fn pin(field: &Field<'_>) -> Parsed<SpkiSha256> {
    let text = text(field)?;
    let mut pin = [0; 32];
    let wrong = |_error| {
        "must be the 64 hex digits of a SHA-256; the hub logs it as `root-spki-sha256`".to_owned()
    };
    hex::decode_to_slice(&text, &mut pin).map_err(wrong)?;
    Ok(pin)
}

fn kubernetes(
    root: &Map<'_>,
    hub: &Map<'_>,
    trust: &Map<'_>,
    join: &Map<'_>,
    written: Written,
) -> Option<Identity> {
    need(hub, "data");
    need(hub, "enrol");
    need(trust, "root-spki-sha256");
    if join.field("join-file").is_some() {
        join.tell("join-file", "belongs to the method `token`");
    }
    if written.state_dir.is_some() {
        root.tell(
            "state-dir",
            "belongs to the join method `token`: this one needs no state",
        );
    }
    let token_file = join.required("token-file", path)?;
    Some(Identity {
        hub: Hub {
            data: written.data?,
            enrol: written.enrol?,
            root_spki_sha256: written.pin?,
        },
        evidence: Evidence::ServiceAccount { token_file },
        state_dir: None,
    })
}

fn need(map: &Map<'_>, key: &str) {
    if map.field(key).is_none() {
        map.tell(key, "is missing");
    }
}

fn token(trust: &Map<'_>, join: &Map<'_>, written: Written) -> Option<Identity> {
    if join.field("token-file").is_some() {
        join.tell("token-file", "belongs to the method `kubernetes`");
    }
    let file = join.required("join-file", path)?;
    let found = match read_join(&file) {
        Ok(found) => found,
        Err(problem) => {
            join.tell("join-file", problem);
            return None;
        }
    };
    // An address in the file wins: the way to the hub may lead through a forwarder. Who answers
    // there is still held against the join string's root and the hub's name.
    if written.pin.is_some_and(|pin| pin != found.root_spki_sha256) {
        trust.tell(
            "root-spki-sha256",
            "differs from the one in the join string; leave it out",
        );
    }
    Some(Identity {
        hub: Hub {
            data: written.data.unwrap_or(found.data),
            enrol: written.enrol.unwrap_or(found.enrol),
            root_spki_sha256: found.root_spki_sha256,
        },
        evidence: Evidence::Token {
            id: found.id,
            secret: Arc::new(found.secret),
            file: Some(file),
        },
        state_dir: written.state_dir,
    })
}
