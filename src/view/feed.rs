//! The side of a view that its streams write.

use bytes::Bytes;

use super::object::Object;
use super::state::{Kind, Stream};
use super::{Applied, SnapshotEnd, StreamKey, View};
use crate::resource::{Identity, ResourceVersion};

impl View {
    /// Attaches a stream of objects of `kind`, e.g. `Deployment`. A stream that is attached
    /// already, or was restored, keeps its state and its age until it has something to tell.
    pub fn attach(&self, key: &StreamKey, kind: &str) {
        let mut state = self.lock();
        state
            .kinds
            .insert_new(&key.gvr, || Box::new(Kind::new(kind)));
        if let Some(held) = state.kinds.get_mut(&key.gvr) {
            let attached = || Box::new(Stream::attached());
            held.streams.insert_new(&key.scope, attached);
        }
    }

    /// Drops a stream and its objects. Watches of its kind end, so that clients list again.
    pub fn detach(&self, key: &StreamKey) {
        let mut state = self.lock();
        let Some((kind, ledger)) = state.kind_of(key) else {
            return;
        };
        if let Some(mut stream) = kind.streams.remove(&key.scope) {
            stream.clear(ledger);
        }
        // The kind stays, so that positions in its history are never used again.
        kind.forget_history(ledger);
        state.detached.insert(key.clone());
    }

    /// The streams that are attached.
    pub fn streams(&self) -> Vec<StreamKey> {
        let state = self.lock();
        let keys = state.kinds.iter().flat_map(|(gvr, kind)| {
            kind.streams.keys().map(|scope| StreamKey {
                gvr: gvr.clone(),
                scope: scope.clone(),
            })
        });
        keys.collect()
    }

    /// Number of kinds that are, or were, attached, and of streams that have gone since the last
    /// [`View::take_changes`]: what stays of a stream.
    pub fn remembered(&self) -> usize {
        let state = self.lock();
        state.kinds.len() + state.detached.len()
    }

    /// An object was added or has changed: filtered JSON, and where in it the digits of
    /// `metadata.resourceVersion` stand. `opaque` ones have no JSON, only an identity.
    pub fn upsert(
        &self,
        key: &StreamKey,
        identity: Identity,
        json: Bytes,
        version_at: u32,
        version_length: u32,
        opaque: bool,
    ) -> Applied {
        let Some(kind) = self.kind_name(key) else {
            return self.count(Applied::Ignored);
        };
        // Parsed outside of the lock.
        let object = Object::new(
            &key.gvr,
            &kind,
            identity,
            json,
            version_at,
            version_length,
            opaque,
        );
        let mut state = self.lock();
        let applied = state
            .kind_of(key)
            .map(|(kind, ledger)| kind.put(&key.scope, object, ledger));
        drop(state);
        self.count(applied.unwrap_or(Applied::Ignored))
    }

    /// An object's version has changed, its filtered content has not.
    pub fn touch(&self, key: &StreamKey, identity: &Identity) -> Applied {
        let mut state = self.lock();
        let applied = state
            .kind_of(key)
            .map(|(kind, ledger)| kind.touch(&key.scope, identity, ledger));
        drop(state);
        self.count(applied.unwrap_or(Applied::Ignored))
    }

    /// An object is gone; the identity's version is that of its deletion.
    pub fn delete(&self, key: &StreamKey, identity: &Identity) -> Applied {
        let mut state = self.lock();
        let applied = state
            .kind_of(key)
            .map(|(kind, ledger)| kind.delete(&key.scope, identity, ledger));
        drop(state);
        self.count(applied.unwrap_or(Applied::Ignored))
    }

    /// Nothing else happened in the stream up to `version`.
    pub fn bookmark(&self, key: &StreamKey, version: ResourceVersion) {
        if let Some((kind, _)) = self.lock().kind_of(key) {
            kind.advance(&key.scope, version);
        }
    }

    /// What follows, until [`View::snapshot_end`], is every object of the stream. It is staged:
    /// readers go on to see the state before it.
    pub fn snapshot_begin(&self, key: &StreamKey) {
        if let Some((kind, ledger)) = self.lock().kind_of(key) {
            kind.begin_snapshot(&key.scope, ledger);
        }
    }

    /// Forgets the snapshot under way, if there is one: its end will not come.
    pub fn snapshot_abandoned(&self, key: &StreamKey) {
        if let Some((kind, ledger)) = self.lock().kind_of(key)
            && let Some(stream) = kind.streams.get_mut(&key.scope)
        {
            stream.drop_staged(ledger);
        }
    }

    /// The snapshot is whole: it becomes the state, and objects it did not name are gone.
    pub fn snapshot_end(&self, key: &StreamKey, version: ResourceVersion) -> SnapshotEnd {
        let mut state = self.lock();
        let end = state
            .kind_of(key)
            .map(|(kind, ledger)| kind.end_snapshot(&key.scope, version, ledger));
        end.unwrap_or(SnapshotEnd::NotBegun)
    }

    /// Forgets the objects of a stream that stays attached, as if it had never had a snapshot.
    pub fn purge(&self, key: &StreamKey) {
        if let Some((kind, ledger)) = self.lock().kind_of(key) {
            if let Some(stream) = kind.streams.get_mut(&key.scope) {
                stream.clear(ledger);
            }
            kind.forget_history(ledger);
        }
    }

    /// From now on the stream is not known to be up to date; listings tell their age, until the
    /// stream's next event, bookmark or snapshot.
    pub fn interrupted(&self, key: &StreamKey) {
        let now = self.clock.now();
        if let Some(stream) = self.stream(&mut self.lock(), key) {
            stream.interrupted.get_or_insert(now);
        }
    }

    /// The stream is up to date again, though it has nothing to tell.
    pub fn resumed(&self, key: &StreamKey) {
        if let Some(stream) = self.stream(&mut self.lock(), key) {
            stream.interrupted = None;
        }
    }

    /// Whether the stream ever had a whole snapshot.
    pub fn complete(&self, key: &StreamKey) -> bool {
        self.stream(&mut self.lock(), key)
            .is_some_and(|stream| stream.complete)
    }

    /// The version up to which the stream's objects are known.
    pub fn version(&self, key: &StreamKey) -> Option<ResourceVersion> {
        self.stream(&mut self.lock(), key)
            .map(|stream| stream.version)
    }

    #[expect(clippy::unused_self, reason = "borrows from the lock of this view")]
    pub(super) fn stream<'a>(
        &self,
        state: &'a mut super::State,
        key: &StreamKey,
    ) -> Option<&'a mut Stream> {
        let kind = state.kinds.get_mut(&key.gvr)?;
        kind.streams.get_mut(&key.scope).map(Box::as_mut)
    }

    fn kind_name(&self, key: &StreamKey) -> Option<String> {
        let state = self.lock();
        state.kinds.get(&key.gvr).map(|kind| kind.name.clone())
    }

    fn count(&self, applied: Applied) -> Applied {
        if applied == Applied::Ignored {
            self.lock().ignored += 1;
        }
        applied
    }
}
