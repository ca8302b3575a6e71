//! One account as the hub holds it: who feeds it, where its streams stand, what it last looked
//! like.
//!
//! Everything that decides ownership or applies events happens under one lock, so that a batch of
//! a fenced feed cannot slip in between.

mod checkpoint;
mod offered;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::BytesMut;
use tokio::sync::watch;

use crate::clock::SharedClock;
use crate::entropy::{self, SharedEntropy};
use crate::limits;
use crate::resource::{Gvr, Identity, ResourceVersion};
use crate::stream::{Receiver, Verdict, open_batch};
use crate::view::{Few, SnapshotEnd, StreamKey, View};
use crate::wire::v1;
use offered::keyed;

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

/// Bytes of objects of one account that are being put together from parts: sixteen as large as they may
/// be. An agent sends a few at once.
const PARTS_BYTES: usize = 16 * limits::OBJECT_BYTES;

#[derive(Debug)]
struct Lane {
    receiver: Receiver,
    /// Last sequence before the snapshot that is being received.
    before_snapshot: Option<u64>,
    /// Last sequence before the object that is being put together, and its bytes.
    parts: Option<(u64, BytesMut)>,
    condition: v1::StreamCondition,
    /// The agent may not read it.
    absent: bool,
}

impl Lane {
    const fn new(receiver: Receiver) -> Self {
        Self {
            receiver,
            absent: false,
            before_snapshot: None,
            parts: None,
            condition: v1::StreamCondition::Unspecified,
        }
    }

    /// Last sequence whose effect is in the view.
    fn settled(&self) -> u64 {
        let parts = self.parts.as_ref().map(|(before, _)| *before);
        let pending = self.before_snapshot.into_iter().chain(parts).min();
        pending.unwrap_or(self.receiver.applied)
    }
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

    // ------------------------------------------------------------ ownership

    /// Gives the account to `owner`, whose feed says where it stands, and tells it where each
    /// stream goes on.
    pub(super) fn attach(
        &self,
        owner: Owner,
        attach: &v1::Attach,
    ) -> Result<Vec<v1::StreamResume>, Refusal> {
        let mut state = self.lock();
        if let Some(present) = &state.owner {
            let same = present.agent == owner.agent && present.instance == owner.instance;
            if same && owner.generation < present.generation {
                return Err(Refusal::Fenced(
                    "a newer connection carries the account".into(),
                ));
            }
            if !same {
                let holder = &present.agent;
                return Err(Refusal::Fenced(format!(
                    "another instance of `{holder}` owns it"
                )));
            }
        }
        if !state.cluster_uid.is_empty() && state.cluster_uid != attach.cluster_uid {
            return Err(Refusal::ClusterChanged);
        }
        // A refusal changes nothing.
        let offered = keyed(0, self.view.remembered(), &attach.streams)?;
        let other_rules = state.policy_digest != attach.policy_digest.as_ref();
        state.cluster_uid.clone_from(&attach.cluster_uid);
        state.policy_digest = attach.policy_digest.to_vec();
        state.owner = Some(owner);
        state.numbers.clear();
        if other_rules {
            for key in self.view.streams() {
                self.view.purge(&key);
            }
            state.lanes.clear();
        }
        let resumes = self.add_streams(&mut state, offered);
        let offered: HashSet<&StreamKey> = state.numbers.values().collect();
        let gone: Vec<StreamKey> = self
            .view
            .streams()
            .into_iter()
            .filter(|key| !offered.contains(key))
            .collect();
        for key in gone {
            self.view.detach(&key);
            state.lanes.remove(&key);
        }
        self.tell_absent(&state);
        drop(state);
        Ok(resumes)
    }

    /// Takes the streams that came or went within an attached feed.
    pub(super) fn change_streams(
        &self,
        owner: &Owner,
        streams: &v1::Streams,
    ) -> Result<Vec<v1::StreamResume>, Refusal> {
        let mut state = self.lock();
        if state.owner.as_ref() != Some(owner) {
            return Err(Refusal::Fenced("another feed owns the account".into()));
        }
        let offered = keyed(state.lanes.len(), self.view.remembered(), &streams.attach)?;
        for number in &streams.detach {
            if let Some(key) = state.numbers.remove(number) {
                self.view.detach(&key);
                state.lanes.remove(&key);
            }
        }
        let resumes = self.add_streams(&mut state, offered);
        self.tell_absent(&state);
        Ok(resumes)
    }

    fn add_streams(
        &self,
        state: &mut State,
        offered: Vec<(StreamKey, &v1::StreamState)>,
    ) -> Vec<v1::StreamResume> {
        let mut resumes = Vec::with_capacity(offered.len());
        for (key, offer) in offered {
            self.view.attach(&key, &offer.kind);
            self.view.mark(&key, ResourceVersion(offer.mark));
            resumes.push(self.resume(state, &key, offer));
            state.numbers.insert(offer.stream, key);
        }
        resumes
    }

    fn resume(
        &self,
        state: &mut State,
        key: &StreamKey,
        offer: &v1::StreamState,
    ) -> v1::StreamResume {
        if let Some(lane) = state.lanes.get_mut(key)
            && lane.receiver.continues(offer.epoch, offer.first_sequence)
        {
            state.counts.resumed += 1;
            return v1::StreamResume {
                stream: offer.stream,
                epoch: lane.receiver.epoch,
                applied: lane.receiver.applied,
                resource_version: 0,
            };
        }
        self.new_epoch(state, key, offer.stream)
    }

    /// Starts a stream over: from the version that is known, or with a snapshot.
    fn new_epoch(&self, state: &mut State, key: &StreamKey, stream: u32) -> v1::StreamResume {
        let epoch = u64::from_le_bytes(entropy::bytes(&*self.entropy)) | 1;
        let mut lane = Lane::new(Receiver::new(epoch));
        // Until the agent says otherwise.
        lane.absent = state.lanes.get(key).is_some_and(|lane| lane.absent);
        state.lanes.insert(key.clone(), lane);
        self.view.snapshot_abandoned(key);
        let known = self.view.version(key).filter(|_| self.view.complete(key));
        state.counts.resumed += u64::from(known.is_some());
        let resource_version = known.map_or(0, |version| version.0);
        v1::StreamResume {
            stream,
            epoch,
            applied: 0,
            resource_version,
        }
    }

    /// Takes the account from the connections of `instance`, because it is gone; false if another
    /// feed owns it.
    pub(super) fn release(&self, agent: &str, instance: [u8; 16]) -> bool {
        let mut state = self.lock();
        let held = state
            .owner
            .as_ref()
            .is_some_and(|owner| owner.agent == agent && owner.instance == instance);
        if held {
            state.owner = None;
            drop(state);
            for key in self.view.streams() {
                self.view.interrupted(&key);
            }
        }
        held
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

    // ------------------------------------------------------------ events

    /// Applies a batch, if it is the owner's and its turn.
    pub(super) fn apply(&self, owner: &Owner, batch: &v1::Batch) -> Outcome {
        let mut state = self.lock();
        if state.owner.as_ref() != Some(owner) {
            state.counts.fenced += 1;
            return Outcome::Fenced;
        }
        let Some(key) = state.numbers.get(&batch.stream).cloned() else {
            // Detached while it was under way.
            return Outcome::Acknowledge(ack(batch, batch.first_sequence));
        };
        let Some(lane) = state.lanes.get(&key) else {
            return Outcome::Resume(self.new_epoch(&mut state, &key, batch.stream));
        };
        match lane
            .receiver
            .judge(batch.epoch, batch.first_sequence, batch.count)
        {
            Verdict::Apply { skip } => self.apply_events(&mut state, &key, batch, skip),
            Verdict::Duplicate => {
                let applied = lane.receiver.applied;
                state.counts.skipped += u64::from(batch.count);
                Outcome::Acknowledge(ack(batch, applied))
            }
            Verdict::Gap => Outcome::Resume(v1::StreamResume {
                stream: batch.stream,
                epoch: lane.receiver.epoch,
                applied: lane.receiver.applied,
                resource_version: 0,
            }),
            // Sent before the agent knew of the new epoch.
            Verdict::OtherEpoch => Outcome::Acknowledge(ack(batch, 0)),
        }
    }

    fn apply_events(
        &self,
        state: &mut State,
        key: &StreamKey,
        batch: &v1::Batch,
        skip: usize,
    ) -> Outcome {
        let events = match open_batch(batch) {
            Ok(events) => events,
            Err(error) => return Outcome::Broken(error.to_string()),
        };
        state.counts.skipped += skip as u64;
        state.counts.coalesced += u64::from(batch.coalesced);
        let mut snapshots = 0;
        let Some(lane) = state.lanes.get_mut(key) else {
            return Outcome::Broken("the stream is not attached".into());
        };
        let was_absent = lane.absent;
        let (mut applied, counted) = (lane.receiver.applied, events.len().saturating_sub(skip));
        for event in events.into_iter().skip(skip) {
            let Some(event) = event.event else {
                return Outcome::Broken("an event of an unknown sort".into());
            };
            if let Err(why) = self.event(lane, key, event, applied, &mut snapshots) {
                return Outcome::Broken(why);
            }
            applied += 1;
            lane.receiver.applied = applied;
        }
        let is_absent = lane.absent;
        if lane.parts.is_some() && state.bytes_of_parts() > PARTS_BYTES {
            state.lanes.remove(key);
            return Outcome::Broken("too many objects under way at once".into());
        }
        state.counts.applied += counted as u64;
        state.counts.batches += 1;
        state.counts.bytes += batch.payload.len() as u64;
        state.counts.snapshots += snapshots;
        if is_absent != was_absent {
            self.tell_absent(state);
        }
        Outcome::Acknowledge(ack(batch, applied))
    }

    fn event(
        &self,
        lane: &mut Lane,
        key: &StreamKey,
        event: v1::event::Event,
        before: u64,
        snapshots: &mut u64,
    ) -> Result<(), String> {
        use v1::event::Event as E;
        let view = &self.view;
        match event {
            E::Upsert(upsert) => {
                let identity = identity_of(upsert.identity)?;
                let (at, length) = (upsert.version_at, upsert.version_length);
                view.upsert(key, identity, upsert.object, at, length, upsert.opaque);
            }
            E::Part(part) => {
                let (begun, mut object) = lane.parts.take().unwrap_or((before, BytesMut::new()));
                if object.len() + part.bytes.len() > limits::OBJECT_BYTES {
                    return Err("an object over 4 MiB".into());
                }
                object.extend_from_slice(&part.bytes);
                if part.last {
                    let identity = identity_of(part.identity)?;
                    let (at, length) = (part.version_at, part.version_length);
                    view.upsert(key, identity, object.freeze(), at, length, false);
                } else {
                    lane.parts = Some((begun, object));
                }
            }
            E::Touch(touch) => {
                view.touch(key, &identity_of(touch.identity)?);
            }
            E::Delete(delete) => {
                view.delete(key, &identity_of(delete.identity)?);
            }
            E::Bookmark(bookmark) => {
                view.bookmark(key, ResourceVersion(bookmark.resource_version));
            }
            E::SnapshotBegin(_) => {
                lane.before_snapshot.get_or_insert(before);
                view.snapshot_begin(key);
            }
            E::SnapshotEnd(end) => {
                let ended = view.snapshot_end(key, ResourceVersion(end.resource_version));
                lane.before_snapshot = None;
                if matches!(ended, SnapshotEnd::NotBegun) {
                    return Err("a snapshot ended that had not begun".into());
                }
                lane.absent = false;
                *snapshots += 1;
            }
            E::Status(status) => {
                lane.condition = status.condition();
                match lane.condition {
                    v1::StreamCondition::Absent => lane.absent = true,
                    v1::StreamCondition::Interrupted => view.interrupted(key),
                    v1::StreamCondition::Live => {
                        lane.absent = false;
                        view.resumed(key);
                    }
                    v1::StreamCondition::Unspecified => {}
                }
            }
        }
        Ok(())
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

const fn ack(batch: &v1::Batch, applied: u64) -> v1::StreamAck {
    v1::StreamAck {
        stream: batch.stream,
        epoch: batch.epoch,
        applied,
    }
}

fn identity_of(identity: Option<v1::ObjectIdentity>) -> Result<Identity, String> {
    let identity = identity.ok_or("an event without identity")?;
    let parts = [&identity.namespace, &identity.name, &identity.uid];
    if parts.iter().any(|part| part.len() > limits::IDENTITY_BYTES) {
        return Err("an identity that no object can have".to_owned());
    }
    Ok(Identity {
        namespace: identity.namespace,
        name: identity.name,
        uid: identity.uid,
        resource_version: ResourceVersion(identity.resource_version),
    })
}

#[cfg(test)]
mod tests;
