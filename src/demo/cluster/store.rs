//! The objects, their one resourceVersion, the history of changes, and who watches them.
//!
//! Nothing here can be printed: objects hold planted values.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::mpsc;

use super::kinds::Kind;
use super::refusal::Refusal;

/// Objects the cluster holds at most.
const OBJECTS: usize = 50_000;

/// Watches open at once.
const WATCHES: usize = 512;

/// Events that may wait for one watcher; one that falls further behind is closed, as
/// kube-apiserver does.
const WATCH_QUEUE: usize = 1000;

/// Where an object is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) plural: &'static str,
    pub(super) group: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(kind: &'static Kind, namespace: &str, name: &str) -> Self {
        Self {
            plural: kind.plural,
            group: kind.group,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Whether this is an object of `kind` in `namespace` (all namespaces if empty).
    fn within(&self, kind: &Kind, namespace: &str) -> bool {
        self.plural == kind.plural
            && self.group == kind.group
            && (namespace.is_empty() || self.namespace == namespace)
    }
}

/// One change: created without `before`, deleted without `after`.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) key: Key,
    pub(super) version: u64,
    pub(super) before: Option<Arc<Value>>,
    pub(super) after: Option<Arc<Value>>,
}

/// What a list was answered from.
pub(super) struct Listed {
    pub(super) version: u64,
    pub(super) objects: Vec<(Key, Arc<Value>)>,
}

/// A watch that has been opened: first what has been missed, then what comes.
pub(super) struct Watch {
    pub(super) missed: Vec<Change>,
    pub(super) coming: mpsc::Receiver<Change>,
}

struct Watcher {
    kind: &'static Kind,
    namespace: String,
    queue: mpsc::Sender<Change>,
}

struct State {
    version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    /// Changes up to this version may be missing from the history.
    forgotten: u64,
    watchers: Vec<Watcher>,
}

/// The cluster's memory.
pub(super) struct Store {
    state: Mutex<State>,
    history: usize,
}

impl Store {
    /// An empty store that remembers `history` changes.
    pub(super) fn new(history: usize) -> Self {
        Self {
            state: Mutex::new(State {
                version: 1,
                objects: BTreeMap::new(),
                history: VecDeque::new(),
                forgotten: 0,
                watchers: Vec::new(),
            }),
            history,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of the latest change.
    pub(super) fn version(&self) -> u64 {
        self.state().version
    }

    /// Changes up to this version may be forgotten: a watch from before it is answered 410.
    pub(super) fn forgotten(&self) -> u64 {
        self.state().forgotten
    }

    /// One object.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.state().objects.get(key).map(Arc::clone)
    }

    /// The objects of `kind` in `namespace` (everywhere if empty), as they were at `at` or as
    /// they are now.
    pub(super) fn list(
        &self,
        kind: &'static Kind,
        namespace: &str,
        at: Option<u64>,
    ) -> Result<Listed, Refusal> {
        let state = self.state();
        let version = at.unwrap_or(state.version);
        state.check(version)?;
        let mut objects: BTreeMap<&Key, &Arc<Value>> = state
            .objects
            .iter()
            .filter(|(key, _)| key.within(kind, namespace))
            .collect();
        // Undo what came later, the latest first.
        let later = state
            .history
            .iter()
            .rev()
            .take_while(|c| c.version > version);
        for change in later.filter(|change| change.key.within(kind, namespace)) {
            match &change.before {
                Some(before) => objects.insert(&change.key, before),
                None => objects.remove(&change.key),
            };
        }
        let objects = objects
            .into_iter()
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        Ok(Listed { version, objects })
    }

    /// Changes of `kind` in `namespace` (everywhere if empty) after `version`.
    pub(super) fn watch(
        &self,
        kind: &'static Kind,
        namespace: &str,
        version: u64,
    ) -> Result<Watch, Refusal> {
        let mut state = self.state();
        state.check(version)?;
        state.watchers.retain(|watcher| !watcher.queue.is_closed());
        if state.watchers.len() >= WATCHES {
            return Err(Refusal::too_many("too many watches"));
        }
        let missed = state
            .history
            .iter()
            .filter(|change| change.version > version && change.key.within(kind, namespace))
            .cloned()
            .collect();
        let (queue, coming) = mpsc::channel(WATCH_QUEUE);
        state.watchers.push(Watcher {
            kind,
            namespace: namespace.to_owned(),
            queue,
        });
        Ok(Watch { missed, coming })
    }

    /// Changes one object under the lock.
    ///
    /// `change` is given the object as it is and the version the new one will have; what it
    /// returns is kept (`None`: nothing changes). With `dry_run` it is only returned.
    pub(super) fn change(
        &self,
        key: &Key,
        dry_run: bool,
        change: impl FnOnce(Option<&Value>, u64) -> Result<Option<Value>, Refusal>,
    ) -> Result<Option<Arc<Value>>, Refusal> {
        let mut state = self.state();
        let before = state.objects.get(key).map(Arc::clone);
        let Some(after) = change(before.as_deref(), state.version + 1)? else {
            return Ok(before);
        };
        let after = Arc::new(after);
        if !dry_run {
            if before.is_none() && state.objects.len() >= OBJECTS {
                return Err(Refusal::too_many("the cluster holds no more objects"));
            }
            state.objects.insert(key.clone(), Arc::clone(&after));
            state.tell(key.clone(), before, Some(Arc::clone(&after)), self.history);
        }
        Ok(Some(after))
    }

    /// Removes an object that `allow` agrees to; the object as it was.
    pub(super) fn remove(
        &self,
        key: &Key,
        allow: impl FnOnce(&Value) -> Result<(), Refusal>,
    ) -> Result<Option<Arc<Value>>, Refusal> {
        let mut state = self.state();
        let Some(before) = state.objects.get(key).map(Arc::clone) else {
            return Ok(None);
        };
        allow(&before)?;
        state.objects.remove(key);
        state.tell(key.clone(), Some(Arc::clone(&before)), None, self.history);
        Ok(Some(before))
    }

    /// Keys of the objects in `namespace` for which `chosen` holds.
    pub(super) fn keys(&self, namespace: &str, chosen: impl Fn(&Key, &Value) -> bool) -> Vec<Key> {
        let state = self.state();
        let objects = state.objects.iter();
        objects
            .filter(|(key, object)| key.namespace == namespace && chosen(key, object))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

impl State {
    /// Whether the past at `version` can still be told.
    fn check(&self, version: u64) -> Result<(), Refusal> {
        if version > self.version {
            return Err(Refusal::from_the_future(version, self.version));
        }
        if version < self.forgotten {
            return Err(Refusal::expired(self.forgotten));
        }
        Ok(())
    }

    fn tell(
        &mut self,
        key: Key,
        before: Option<Arc<Value>>,
        after: Option<Arc<Value>>,
        history: usize,
    ) {
        self.version += 1;
        let change = Change {
            key,
            version: self.version,
            before,
            after,
        };
        // A watcher that is gone, or too slow, loses its queue: its watch ends.
        self.watchers.retain(|watcher| {
            !change.key.within(watcher.kind, &watcher.namespace)
                || watcher.queue.try_send(change.clone()).is_ok()
        });
        self.history.push_back(change);
        while self.history.len() > history {
            if let Some(oldest) = self.history.pop_front() {
                self.forgotten = oldest.version;
            }
        }
    }
}
