//! Who is revoked: names, keys and serials, looked up during every handshake.

use std::collections::HashSet;

use arc_swap::ArcSwap;

use super::registry::{Issued, Registry};
use crate::identity::verify::Admission;
use crate::identity::{Refusal, Role, SpkiSha256, VerifiedPeer};

#[derive(Debug, Default)]
struct Banned {
    names: HashSet<(Role, String)>,
    /// Hex.
    keys: HashSet<String>,
    serials: HashSet<String>,
}

/// The revoked of the moment.
#[derive(Debug, Default)]
pub(super) struct Bans(ArcSwap<Banned>);

impl Bans {
    /// Takes over what the registry says.
    pub(super) fn load(&self, registry: &Registry) {
        let banned = registry.read(|tables| {
            let mut banned = Banned::default();
            for (name, agent) in tables
                .agents
                .iter()
                .filter(|(_, row)| row.revoked.is_some())
            {
                banned.add(Role::Agent, name, &agent.certificates);
            }
            for (name, client) in tables
                .clients
                .iter()
                .filter(|(_, row)| row.revoked.is_some())
            {
                banned.add(Role::Client, name, &client.certificates);
            }
            banned
        });
        self.0.store(banned.into());
    }

    /// Whether `name` is revoked.
    pub(super) fn bans_name(&self, role: Role, name: &str) -> bool {
        self.0.load().names.contains(&(role, name.to_owned()))
    }

    /// Whether a key was certified for somebody who is revoked.
    pub(super) fn bans_key(&self, key: &SpkiSha256) -> bool {
        self.0.load().keys.contains(&hex::encode(key))
    }
}

impl Banned {
    fn add(&mut self, role: Role, name: &str, certificates: &[Issued]) {
        self.names.insert((role, name.to_owned()));
        self.keys.extend(
            certificates
                .iter()
                .map(|certificate| certificate.key.clone()),
        );
        self.serials.extend(
            certificates
                .iter()
                .map(|certificate| certificate.serial.clone()),
        );
    }
}

impl Admission for Bans {
    fn refusal(&self, peer: &VerifiedPeer) -> Option<Refusal> {
        let banned = self.0.load();
        let id = peer.id();
        if banned
            .names
            .contains(&(id.role, id.name.as_str().to_owned()))
        {
            return Some(Refusal::Name);
        }
        if banned.keys.contains(&hex::encode(peer.spki_sha256())) {
            return Some(Refusal::Key);
        }
        banned
            .serials
            .contains(peer.serial())
            .then_some(Refusal::Serial)
    }
}
