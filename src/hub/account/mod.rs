//! One account as the hub holds it: who feeds it, where its streams stand, what it last looked
//! like.
//!
//! Everything that decides ownership or applies events happens under one lock, so that a batch of
//! a fenced feed cannot slip in between.

mod batches;
mod checkpoint;
mod lane;
mod offered;
mod ownership;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::resource::Gvr;
use crate::view::{Few, StreamKey, View};
use crate::wire::v1;
use lane::Lane;

/// The feed that may change an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// Name of the agent.
    pub(super) agent: String,
    /// Its process.
    pub(super) instance: [u8; 16],
    /// The connection, counted by that process.
    pub(super) generation: u64,
}

#[derive(Debug, Default)]
struct State {
    owner: Option<Owner>,
    cluster_uid: String,
    policy_digest: Vec<u8>,
    /// Streams by the number that the owner gave.
    numbers: Few<u32, StreamKey>,
    lanes: Few<StreamKey, Lane>,
    counts: Counts,
}

impl State {
    /// Bytes of the objects that are being put together, over all streams.
    fn bytes_of_parts(&self) -> usize {
        let parts = self.lanes.values().filter_map(|lane| lane.parts.as_ref());
        parts.map(|(_, object)| object.len()).sum()
    }
}

/// What was applied to an account since the hub started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Events applied.
    pub applied: u64,
    /// Events received again and skipped.
    pub skipped: u64,
    /// Objects coalesced by the agent before they were numbered.
    pub coalesced: u64,
    /// Batches of a fenced feed.
    pub fenced: u64,
    /// Batches applied.
    pub batches: u64,
    /// Compressed bytes of the batches applied.
    pub bytes: u64,
    /// Whole snapshots of streams that were taken over.
    pub snapshots: u64,
    /// Streams that went on without a snapshot.
    pub resumed: u64,
}

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Applied; acknowledge.
    Acknowledge(v1::StreamAck),
    /// The sender has to go on elsewhere.
    Resume(v1::StreamResume),
    /// Another feed owns the account.
    Fenced,
    /// Not from a well-behaved agent; its feed ends with this sentence.
    Broken(String),
}

/// Why a feed may not attach.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A newer connection, or another instance, owns the account.
    Fenced(String),
    /// The account is served from another cluster than before.
    ClusterChanged,
}

/// One account.
#[derive(Debug)]
pub(super) struct Account {
    /// Its name.
    pub(super) name: String,
    /// Its path at the facade, hex.
    pub(super) id: String,
    /// What it last looked like.
    pub(super) view: Arc<View>,
    state: Mutex<State>,
    /// What clients see of it besides objects.
    pub(super) surface: watch::Sender<Surface>,
    clock: SharedClock,
    entropy: SharedEntropy,
}

/// What clients see of an account besides its objects.
#[derive(Clone, Debug, Default)]
pub(super) struct Surface {
    /// The kinds, as its agent told them.
    pub(super) discovery: Arc<v1::Discovery>,
    /// Whether a definition has changed since, and the agent asks for newer kinds.
    pub(super) outdated: bool,
    /// Kinds that the agent's credential may not list.
    pub(super) absent: Arc<HashSet<Gvr>>,
    /// Since when no agent is connected; `None` while one is.
    pub(super) away_since: Option<SystemTime>,
    /// The agent's own words on the account.
    pub(super) offer: Option<Arc<v1::AccountOffer>>,
}

impl Surface {
    /// Whether newer kinds are on their way from an agent that is there.
    pub(super) const fn awaits_kinds(&self) -> bool {
        self.outdated && self.away_since.is_none()
    }
}

impl Account {
    pub(super) fn new(
        name: &str,
        id: &str,
        surface: Surface,
        clock: SharedClock,
        entropy: SharedEntropy,
    ) -> Self {
        Self {
            name: name.to_owned(),
            id: id.to_owned(),
            view: Arc::new(View::new(Arc::clone(&clock))),
            state: Mutex::default(),
            surface: watch::Sender::new(surface),
            clock,
            entropy,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was applied since the hub started.
    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Who feeds the account.
    pub(super) fn owner(&self) -> Option<Owner> {
        self.lock().owner.clone()
    }

    /// The cluster and rules its objects come from.
    pub(super) fn provenance(&self) -> (String, Vec<u8>) {
        let state = self.lock();
        (state.cluster_uid.clone(), state.policy_digest.clone())
    }

    pub(super) fn set_provenance(&self, cluster_uid: &str, policy_digest: &[u8]) {
        let mut state = self.lock();
        cluster_uid.clone_into(&mut state.cluster_uid);
        state.policy_digest = policy_digest.to_vec();
    }

    /// Tells clients whether somebody feeds the account, and if not, since when: since `now` if that
    /// is news. Whoever comes last tells how it is, in whatever order it is told.
    pub(super) fn tell_presence(&self, now: SystemTime) {
        let state = self.lock();
        let fed = state.owner.is_some();
        self.surface.send_if_modified(|surface| {
            let before = surface.away_since;
            surface.away_since = (!fed).then(|| before.unwrap_or(now));
            surface.away_since != before
        });
        drop(state);
    }

    /// A kind is absent if none of its streams may be read: one forbidden namespace hides no other.
    fn tell_absent(&self, state: &State) {
        let (absent, present): (Vec<_>, Vec<_>) =
            state.lanes.iter().partition(|(_, lane)| lane.absent);
        let mut absent: HashSet<Gvr> = absent.iter().map(|(key, _)| key.gvr.clone()).collect();
        for (key, _) in present {
            absent.remove(&key.gvr);
        }
        self.surface.send_if_modified(|surface| {
            let differs = *surface.absent != absent;
            if differs {
                surface.absent = Arc::new(absent);
            }
            differs
        });
    }
}

#[cfg(test)]
mod tests;
