//! What one account has still to tell its hub: unsent events, then numbered batches.
//!
//! Unsent events are coalesced per object: the newest state wins and goes to the back, so that a
//! version never overtakes one that is still unsent. Numbering happens when a link has credit;
//! from then on a batch is fixed until the hub acknowledges it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message;
use tokio::sync::Notify;

use super::batch::{self, PACK_BYTES};
use super::events::events_of;
use super::quota::Quota;
use crate::limits;
use crate::resource::{Identity, ResourceVersion};
use crate::scrub;
use crate::wire::v1;

/// What an item takes beside its object, with names as long as they mostly are.
const ITEM_BYTES: usize = 160;

/// What of it are namespace, name and uid.
const NAMES_BYTES: usize = 80;

/// Something a stream has to tell.
#[derive(Debug)]
pub(super) enum Item {
    /// The object's content is new.
    Upsert(scrub::Object),
    /// The object is there, and could not be filtered.
    Opaque(Identity),
    /// Only the object's version is new.
    Touch(Identity),
    /// The object is gone.
    Delete(Identity),
    /// Nothing happened up to this version.
    Bookmark(ResourceVersion),
    /// Every object of the stream follows.
    SnapshotBegin,
    /// Every object was named.
    SnapshotEnd(ResourceVersion),
    /// Whether the stream can be read.
    Status(v1::StreamCondition, String),
}

impl Item {
    fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Upsert(object) => Some(&object.identity),
            Self::Opaque(identity) | Self::Touch(identity) | Self::Delete(identity) => {
                Some(identity)
            }
            Self::Bookmark(_) | Self::SnapshotBegin | Self::SnapshotEnd(_) | Self::Status(..) => {
                None
            }
        }
    }

    /// Bytes held while unsent.
    fn bytes(&self) -> usize {
        let object = match self {
            Self::Upsert(object) => object.bytes.as_bytes().len(),
            _ => 0,
        };
        let names = self.identity().map_or(0, |identity| {
            identity.namespace.len() + identity.name.len() + identity.uid.len()
        });
        object + ITEM_BYTES + names.saturating_sub(NAMES_BYTES)
    }
}

/// Why an item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The stream has another epoch by now, or is gone.
    OtherEpoch,
}

/// What became of an item.
enum Pushed {
    /// It waits to be sent, `instead` of an earlier one of its object or behind all others.
    Taken {
        instead: bool,
    },
    /// No room now; here it is back.
    Full(Item),
    OtherEpoch,
}

/// The unsent and unacknowledged events of one account. Bounded by [`limits::PENDING_BYTES`] and
/// the agent's [`Quota`] unsent; numbered batches are bounded by the credit of the connection.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    /// Something can be sent.
    filled: Notify,
    /// Something was sent.
    emptied: Notify,
    quota: Arc<Quota>,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<u32, Lane>,
    pending_bytes: usize,
    /// An item waits for room: nothing is held back.
    full: bool,
}

/// What a queue holds, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) pending: usize,
    pub(super) outbox: usize,
}

/// One stream.
#[derive(Debug, Default)]
struct Lane {
    epoch: u64,
    next_sequence: u64,
    outbox: VecDeque<v1::Batch>,
    /// Unsent items by position; an item that was coalesced away leaves a hole.
    pending: VecDeque<Option<Item>>,
    /// Position of the front of `pending`.
    base: u64,
    by_uid: HashMap<String, u64>,
    /// Bytes of `pending`.
    bytes: usize,
    /// A snapshot is being told. The hub shows nothing of it before its end, so until then whole
    /// batches are worth waiting for.
    in_snapshot: bool,
    /// Parts of an object that has been begun.
    parts: VecDeque<v1::Event>,
    coalesced: u32,
}

impl Queue {
    /// An empty queue within `quota`.
    pub fn new(quota: Arc<Quota>) -> Self {
        Self {
            state: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            quota,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what waits now. Under the lock: nothing may leave the quota before it came.
    fn account(&self, state: &mut State, added: usize, gone: usize) {
        state.pending_bytes = state.pending_bytes + added - gone;
        self.quota.change(added, gone);
    }

    /// What it holds now.
    pub(super) fn held(&self) -> Held {
        let state = self.lock();
        let batches = state.streams.values().flat_map(|lane| &lane.outbox);
        Held {
            pending: state.pending_bytes,
            outbox: batches.map(|batch| batch.payload.len()).sum(),
        }
    }

    /// Forgets what `stream` had to tell and starts it in `epoch` at sequence 1.
    pub(super) fn start(&self, stream: u32, epoch: u64) {
        let mut state = self.lock();
        let old = state.streams.insert(
            stream,
            Lane {
                epoch,
                next_sequence: 1,
                ..Lane::default()
            },
        );
        let gone = old.map_or(0, |lane| lane.bytes);
        self.account(&mut state, 0, gone);
        drop(state);
        self.emptied.notify_waiters();
    }

    /// Forgets `stream`.
    pub(super) fn remove(&self, stream: u32) {
        let mut state = self.lock();
        let old = state.streams.remove(&stream);
        let gone = old.map_or(0, |lane| lane.bytes);
        self.account(&mut state, 0, gone);
        drop(state);
        self.emptied.notify_waiters();
    }

    /// The epoch of `stream` and the first sequence that can still be sent in it.
    pub(super) fn position(&self, stream: u32) -> (u64, u64) {
        let state = self.lock();
        state.streams.get(&stream).map_or((0, 0), |lane| {
            let first = lane.outbox.front().map(|batch| batch.first_sequence);
            (lane.epoch, first.unwrap_or(lane.next_sequence))
        })
    }

    /// Takes `item`, waiting for room; tells whether it took the place of an unsent one.
    /// Cancel-safe (a cancelled push has not happened).
    ///
    /// # Errors
    /// [`Refusal::OtherEpoch`]: the caller starts over in the stream's new epoch.
    pub(super) async fn push(&self, stream: u32, epoch: u64, item: Item) -> Result<bool, Refusal> {
        let mut waiting = Some(item);
        loop {
            let (emptied, freed) = (self.emptied.notified(), self.quota.freed());
            if let Some(item) = waiting.take() {
                match self.try_push(stream, epoch, item) {
                    Pushed::Taken { instead } => return Ok(instead),
                    Pushed::OtherEpoch => return Err(Refusal::OtherEpoch),
                    Pushed::Full(back) => waiting = Some(back),
                }
            }
            tokio::select! {
                () = emptied => {}
                () = freed => {}
            }
        }
    }

    fn try_push(&self, stream: u32, epoch: u64, item: Item) -> Pushed {
        let mut state = self.lock();
        let bytes = item.bytes();
        let pending = state.pending_bytes;
        let room = pending + bytes <= limits::PENDING_BYTES && self.quota.has_room(pending, bytes);
        let full = pending > 0 && !room;
        let Some(lane) = state
            .streams
            .get_mut(&stream)
            .filter(|lane| lane.epoch == epoch)
        else {
            return Pushed::OtherEpoch;
        };
        if full && !lane.replaces(&item) {
            state.full = true;
            drop(state);
            self.filled.notify_one();
            return Pushed::Full(item);
        }
        let before = lane.coalesced;
        let (added, freed) = lane.push(item);
        let instead = lane.coalesced > before;
        let waits = lane.waits_for_more();
        self.account(&mut state, added, freed);
        drop(state);
        if !waits {
            self.filled.notify_one();
        }
        Pushed::Taken { instead }
    }

    /// The next batch of `stream` that holds `cursor` or something after it: one that was numbered
    /// before, else a new one.
    pub(super) fn next_batch(&self, stream: u32, cursor: u64) -> Option<v1::Batch> {
        let mut state = self.lock();
        let full = state.full;
        let lane = state.streams.get_mut(&stream)?;
        if let Some(known) = lane
            .outbox
            .iter()
            .find(|batch| last_sequence(batch) >= cursor)
        {
            return Some(known.clone());
        }
        if lane.waits_for_more() && !full {
            return None;
        }
        let (batch, freed) = lane.number(stream)?;
        self.account(&mut state, 0, freed);
        state.full = false;
        drop(state);
        self.emptied.notify_waiters();
        Some(batch)
    }

    /// Streams that have something to send or unacknowledged.
    pub(super) fn busy(&self) -> Vec<u32> {
        let state = self.lock();
        let unsent = |lane: &Lane| !lane.pending.is_empty() || !lane.parts.is_empty();
        let busy = |lane: &Lane| {
            !lane.outbox.is_empty() || unsent(lane) && (state.full || !lane.waits_for_more())
        };
        state
            .streams
            .iter()
            .filter(|(_, lane)| busy(lane))
            .map(|(stream, _)| *stream)
            .collect()
    }

    /// Forgets the batches that the hub has applied; late and repeated calls are harmless.
    pub(super) fn acknowledge(&self, stream: u32, epoch: u64, applied: u64) {
        let mut state = self.lock();
        let Some(lane) = state
            .streams
            .get_mut(&stream)
            .filter(|lane| lane.epoch == epoch)
        else {
            return;
        };
        while lane
            .outbox
            .front()
            .is_some_and(|batch| last_sequence(batch) <= applied)
        {
            lane.outbox.pop_front();
        }
        if lane.outbox.is_empty() {
            lane.outbox = VecDeque::new();
        }
    }

    /// Waits until something may have become sendable.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Wakes whoever waits in [`Queue::filled`].
    pub(super) fn nudge(&self) {
        self.filled.notify_one();
    }

    /// Whether something waits for room.
    pub(super) fn is_full(&self) -> bool {
        self.lock().full
    }

    /// Unsent bytes.
    pub fn pending_bytes(&self) -> usize {
        self.lock().pending_bytes
    }
}

/// Sequence of the last event of a batch.
pub(super) const fn last_sequence(batch: &v1::Batch) -> u64 {
    batch.first_sequence + batch.count as u64 - 1
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.quota.change(0, self.pending_bytes());
    }
}

impl Lane {
    /// Whether what is unsent is better sent with what comes next.
    fn waits_for_more(&self) -> bool {
        self.in_snapshot && self.bytes < PACK_BYTES && self.parts.is_empty()
    }

    /// Whether `item` takes the place of one that is unsent.
    fn replaces(&self, item: &Item) -> bool {
        item.identity()
            .is_some_and(|identity| self.by_uid.contains_key(&identity.uid))
    }

    /// Appends `item`; returns the bytes that were added and those that were freed.
    fn push(&mut self, item: Item) -> (usize, usize) {
        match &item {
            Item::SnapshotBegin => self.in_snapshot = true,
            Item::SnapshotEnd(_) | Item::Status(..) => self.in_snapshot = false,
            _ => {}
        }
        let (added, freed) = self.append(item);
        self.bytes = self.bytes + added - freed;
        (added, freed)
    }

    fn append(&mut self, item: Item) -> (usize, usize) {
        let bytes = item.bytes();
        let position = self.base + self.pending.len() as u64;
        match &item {
            Item::SnapshotBegin | Item::SnapshotEnd(_) => {
                // An object that a snapshot named must stay inside it, or the sweep takes it.
                self.by_uid.clear();
                self.pending.push_back(Some(item));
                return (bytes, 0);
            }
            Item::Bookmark(_) => {
                if let Some(Some(last @ Item::Bookmark(_))) = self.pending.back_mut() {
                    let freed = last.bytes();
                    *last = item;
                    return (bytes, freed);
                }
                self.pending.push_back(Some(item));
                return (bytes, 0);
            }
            Item::Status(..) => {
                self.pending.push_back(Some(item));
                return (bytes, 0);
            }
            Item::Upsert(_) | Item::Opaque(_) | Item::Touch(_) | Item::Delete(_) => {}
        }
        let uid = item
            .identity()
            .map(|identity| identity.uid.clone())
            .unwrap_or_default();
        let earlier = self
            .by_uid
            .insert(uid, position)
            .and_then(|at| self.take(at));
        let freed = earlier.as_ref().map_or(0, Item::bytes);
        if earlier.is_some() {
            self.coalesced = self.coalesced.saturating_add(1);
        }
        let merged = merge(earlier, item);
        let added = merged.bytes();
        self.pending.push_back(Some(merged));
        (added, freed)
    }

    fn take(&mut self, position: u64) -> Option<Item> {
        let at = usize::try_from(position.checked_sub(self.base)?).ok()?;
        self.pending.get_mut(at)?.take()
    }

    /// Numbers as many unsent events as one batch holds; also returns the bytes freed.
    fn number(&mut self, stream: u32) -> Option<(v1::Batch, usize)> {
        let (mut events, mut size, mut freed) = (Vec::new(), 0, 0);
        while size < PACK_BYTES {
            if self.parts.is_empty() {
                let Some(item) = self.pop() else { break };
                freed += item.bytes();
                self.parts.extend(events_of(item));
            }
            let next = self.parts.front().map_or(0, Message::encoded_len) + 8;
            if !events.is_empty() && size + next > PACK_BYTES {
                break;
            }
            size += next;
            events.extend(self.parts.pop_front());
        }
        self.bytes -= freed;
        let coalesced = std::mem::take(&mut self.coalesced);
        let batch = batch::pack(stream, self.epoch, self.next_sequence, events, coalesced)?;
        self.next_sequence = last_sequence(&batch) + 1;
        self.outbox.push_back(batch.clone());
        if self.pending.is_empty() && self.parts.is_empty() {
            self.release();
        }
        Some((batch, freed))
    }

    /// Gives the blocks back that a burst has grown: most streams wait most of the time, and an
    /// agent may have thousands of them. Nothing is unsent.
    fn release(&mut self) {
        self.pending = VecDeque::new();
        self.parts = VecDeque::new();
        self.by_uid = HashMap::new();
    }

    fn pop(&mut self) -> Option<Item> {
        loop {
            let front = self.pending.pop_front()?;
            let position = self.base;
            self.base += 1;
            let Some(item) = front else { continue };
            if let Some(uid) = item.identity().map(|identity| identity.uid.as_str())
                && self.by_uid.get(uid) == Some(&position)
            {
                self.by_uid.remove(uid);
            }
            return Some(item);
        }
    }
}

/// What is left to tell of `earlier` and `later`, both of one object.
fn merge(earlier: Option<Item>, later: Item) -> Item {
    match (earlier, later) {
        (Some(Item::Upsert(mut object)), Item::Touch(identity)) => {
            object.identity.resource_version = identity.resource_version;
            Item::Upsert(object)
        }
        (Some(Item::Opaque(_)), Item::Touch(identity)) => Item::Opaque(identity),
        (_, later) => later,
    }
}

#[cfg(test)]
mod tests;
