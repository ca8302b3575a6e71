//! What the store gets of an account, and gives back.

use super::super::store::StreamCheckpoint;
use super::super::stored::{Cursor, load_object, object_key, store_object, stream_key};
use super::{Account, Lane, State};
use crate::clock;
use crate::resource::ResourceVersion;
use crate::stream::Receiver;
use crate::view::{Changes, Fate, Object, StreamKey};

impl Account {
    /// What has changed since the last call, to be stored in one transaction; [`Account::unstore`]
    /// takes it back if that fails.
    pub(in crate::hub) fn changes(&self) -> (Vec<StreamCheckpoint>, Vec<Changes>) {
        let state = self.lock();
        let changes = self.view.take_changes();
        let at = clock::unix_seconds(self.clock.now());
        let checkpoints = changes
            .iter()
            .map(|change| self.checkpoint(&state, change, at))
            .collect();
        (checkpoints, changes)
    }

    fn checkpoint(&self, state: &State, change: &Changes, at: u64) -> StreamCheckpoint {
        let lane = state.lanes.get(&change.stream);
        let cursor = Cursor {
            kind: change.kind.clone(),
            epoch: lane.map_or(0, |lane| lane.receiver.epoch),
            applied: lane.map_or(0, Lane::settled),
            version: change.version.0,
            complete: change.complete,
            at,
        };
        let puts = change.puts.iter().map(|object| {
            let identity = object.identity();
            (
                object_key(&identity.namespace, &identity.name),
                Some(store_object(object)),
            )
        });
        let deletes = change
            .deletes
            .iter()
            .map(|name| (object_key(&name.0, &name.1), None));
        StreamCheckpoint {
            key: stream_key(&self.name, &change.stream),
            cursor: match change.fate {
                Fate::Gone => None,
                Fate::Kept | Fate::Replaced => serde_json::to_vec(&cursor).ok(),
            },
            objects: puts.chain(deletes).collect(),
            purge: change.fate != Fate::Kept,
        }
    }

    /// Notes changes that could not be stored.
    pub(in crate::hub) fn unstore(&self, changes: Vec<Changes>) {
        self.view.untake_changes(changes);
    }

    /// Forgets everything that is known, so that the next checkpoint does; whoever feeds the account
    /// has to attach again.
    pub(in crate::hub) fn forget(&self) {
        let mut state = self.lock();
        *state = State::default();
        for key in self.view.streams() {
            self.view.detach(&key);
        }
        drop(state);
        self.tell_presence(self.clock.now());
    }

    /// Bytes of objects that have changed and are not stored.
    pub(in crate::hub) fn changed_bytes(&self) -> usize {
        self.view.changed_bytes()
    }

    /// Takes over what the store holds of one stream.
    pub(in crate::hub) fn restore(
        &self,
        key: &StreamKey,
        cursor: &[u8],
        objects: &[(String, Vec<u8>)],
    ) {
        let Ok(cursor) = serde_json::from_slice::<Cursor>(cursor) else {
            tracing::warn!(account = self.name, stream = %key.gvr, "a stored cursor cannot be read; the stream starts over");
            return;
        };
        let objects: Vec<Object> = objects
            .iter()
            .filter_map(|(name, value)| load_object(key, &cursor.kind, name, value))
            .collect();
        let version = ResourceVersion(cursor.version);
        let at = clock::from_unix_seconds(cursor.at);
        self.view
            .restore(key, &cursor.kind, objects, version, cursor.complete, at);
        let receiver = Receiver {
            epoch: cursor.epoch,
            applied: cursor.applied,
        };
        self.lock().lanes.insert(key.clone(), Lane::new(receiver));
        // The registry knows of the attach, which may be hours older than what was told last.
        let stored = Some(at.min(self.clock.now()));
        self.surface
            .send_modify(|surface| surface.away_since = surface.away_since.max(stored));
    }
}
