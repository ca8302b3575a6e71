//! What a feed tells of an account's objects, batch by batch.

use super::{Account, Outcome, Owner, State};
use crate::limits;
use crate::stream::{Verdict, open_batch};
use crate::view::StreamKey;
use crate::wire::v1;

/// Bytes of objects of one account that are being put together from parts: sixteen as large as they may
/// be. An agent sends a few at once.
pub(super) const PARTS_BYTES: usize = 16 * limits::OBJECT_BYTES;

impl Account {
    /// Applies a batch, if it is the owner's and its turn.
    pub(in crate::hub) fn apply(&self, owner: &Owner, batch: &v1::Batch) -> Outcome {
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
            match lane.event(&self.view, key, event, applied) {
                Ok(completed) => snapshots += u64::from(completed),
                Err(why) => return Outcome::Broken(why),
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
}

const fn ack(batch: &v1::Batch, applied: u64) -> v1::StreamAck {
    v1::StreamAck {
        stream: batch.stream,
        epoch: batch.epoch,
        applied,
    }
}
