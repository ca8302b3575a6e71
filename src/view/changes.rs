//! What a store needs to keep a view: changes since the last time, and the way back.

use std::sync::Arc;
use std::time::SystemTime;

use super::object::Object;
use super::state::{Kind, Ledger, Name, State, Stream};
use super::{StreamKey, View};
use crate::resource::{ResourceVersion, Scope};

/// What becomes of what a store holds of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays, with the changes applied.
    Kept,
    /// It is forgotten first: the objects given are all there are.
    Replaced,
    /// It is forgotten.
    Gone,
}

/// The changes of one stream, to be stored in one transaction with its version.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Which stream.
    pub stream: StreamKey,
    /// Name of the kind, e.g. `Deployment`.
    pub kind: String,
    /// What becomes of what was stored before.
    pub fate: Fate,
    /// Objects that are new or have changed.
    pub puts: Vec<Arc<Object>>,
    /// Namespaces and names of objects that are gone.
    pub deletes: Vec<Name>,
    /// The version up to which the stream is known with these changes.
    pub version: ResourceVersion,
    /// Whether the stream ever had a whole snapshot.
    pub complete: bool,
}

impl View {
    /// The changes of every stream since the last call, atomically with their versions.
    pub fn take_changes(&self) -> Vec<Changes> {
        let mut state = self.lock();
        let State {
            kinds,
            ledger,
            detached,
            ..
        } = &mut *state;
        let attached = |key: &StreamKey| {
            let kind = kinds.get(&key.gvr);
            kind.is_some_and(|kind| kind.streams.contains_key(&key.scope))
        };
        // A stream that is back is replaced, below.
        let mut changes: Vec<Changes> = std::mem::take(detached)
            .into_iter()
            .filter(|key| !attached(key))
            .map(Changes::gone)
            .collect();
        for (gvr, kind) in kinds.iter_mut() {
            let name = kind.name.clone();
            for (scope, stream) in kind.streams.iter_mut() {
                let key = || StreamKey {
                    gvr: gvr.clone(),
                    scope: Scope::clone(scope),
                };
                changes.extend(stream.take_changes(key, &name, ledger));
            }
        }
        changes
    }

    /// Notes changes that could not be stored, so that the next call gives them again.
    pub fn untake_changes(&self, changes: Vec<Changes>) {
        let mut state = self.lock();
        for change in changes {
            let held = state.kind_of(&change.stream).and_then(|(kind, ledger)| {
                let stream = kind.streams.get_mut(&change.stream.scope)?;
                Some((stream, ledger))
            });
            let Some((stream, ledger)) = held else {
                state.detached.insert(change.stream);
                continue;
            };
            stream.replaced |= change.fate != Fate::Kept;
            stream.dirty_version = true;
            for object in change.puts {
                let bytes = object.json_bytes();
                stream.soil(super::state::name_of(object.identity()), bytes, ledger);
            }
            for name in change.deletes {
                stream.soil(name, 0, ledger);
            }
        }
    }

    /// Bytes of objects that have changed since the last [`View::take_changes`].
    pub fn changed_bytes(&self) -> usize {
        let state = self.lock();
        let streams = state.kinds.values().flat_map(|kind| kind.streams.values());
        streams.map(|stream| stream.dirty_bytes).sum()
    }

    /// Takes over a stored stream, at start; `at` is when it was last known to be up to date.
    /// A stream that is attached already is left alone.
    pub fn restore(
        &self,
        key: &StreamKey,
        kind: &str,
        objects: Vec<Object>,
        version: ResourceVersion,
        complete: bool,
        at: SystemTime,
    ) {
        let mut state = self.lock();
        let State { kinds, ledger, .. } = &mut *state;
        kinds.insert_new(&key.gvr, || Box::new(Kind::new(kind)));
        let Some(held) = kinds.get_mut(&key.gvr) else {
            return;
        };
        if held.streams.contains_key(&key.scope) {
            return;
        }
        let mut stream = Stream::default();
        stream.restore(objects, version, complete, at, ledger);
        held.streams.insert(key.scope.clone(), Box::new(stream));
        held.keep_within(ledger);
    }
}

impl Stream {
    fn take_changes(
        &mut self,
        key: impl FnOnce() -> StreamKey,
        kind: &str,
        ledger: &mut Ledger,
    ) -> Option<Changes> {
        if self.dirty.is_empty() && !self.dirty_version && !self.replaced {
            return None;
        }
        let mut puts = Vec::new();
        let mut deletes = Vec::new();
        let dirty = self.take_dirty(ledger);
        if self.replaced {
            puts.extend(self.objects.values().cloned());
        } else {
            for name in dirty {
                match self.objects.get(&name) {
                    Some(object) => puts.push(Arc::clone(object)),
                    None => deletes.push(name),
                }
            }
        }
        self.dirty_bytes = 0;
        self.dirty_version = false;
        let fate = if std::mem::take(&mut self.replaced) {
            Fate::Replaced
        } else {
            Fate::Kept
        };
        Some(Changes {
            stream: key(),
            kind: kind.to_owned(),
            fate,
            puts,
            deletes,
            version: self.version,
            complete: self.complete,
        })
    }
}

impl Changes {
    const fn gone(stream: StreamKey) -> Self {
        Self {
            stream,
            kind: String::new(),
            fate: Fate::Gone,
            puts: Vec::new(),
            deletes: Vec::new(),
            version: ResourceVersion::ZERO,
            complete: false,
        }
    }
}
