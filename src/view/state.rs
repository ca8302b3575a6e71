//! What a view holds: kinds, their streams, and the bytes they cost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::fence::Fences;
use super::few::Few;
use super::history::{Change, Entry, History};
use super::object::Object;
use super::snapshot::{Snapshot, is_of_the_past};
use super::{Applied, StreamKey, Totals};
use crate::resource::{Gvr, Identity, ResourceVersion, Scope};

/// Namespace and name.
pub(super) type Name = (String, String);

/// Bytes that a name which waits for the next checkpoint takes besides its own.
const DIRTY_BYTES: usize = 96;

fn dirty_weight(name: &Name) -> usize {
    DIRTY_BYTES + name.0.len() + name.1.len()
}

pub(super) fn name_of(identity: &Identity) -> Name {
    (identity.namespace.clone(), identity.name.clone())
}

#[derive(Debug)]
pub(super) struct State {
    /// Boxed, here and below: one that comes or goes moves those behind it.
    pub(super) kinds: Few<Gvr, Box<Kind>>,
    pub(super) ledger: Ledger,
    pub(super) ignored: u64,
    /// Streams that went since the last checkpoint.
    pub(super) detached: BTreeSet<StreamKey>,
}

/// The bytes of an account.
#[derive(Debug)]
pub(super) struct Ledger {
    used: usize,
    budget: usize,
}

impl Ledger {
    pub(super) fn add(&mut self, bytes: usize) {
        self.used = self.used.saturating_add(bytes);
    }

    pub(super) fn remove(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
    }

    const fn is_over(&self) -> bool {
        self.used > self.budget
    }
}

/// The streams of one resource, and what its watchers and fences need.
#[derive(Debug)]
pub(super) struct Kind {
    /// E.g. `Deployment`.
    pub(super) name: String,
    pub(super) streams: Few<Scope, Box<Stream>>,
    pub(super) history: History,
    pub(super) fences: Fences,
    pub(super) over_budget: bool,
    /// Ticks with every change that a watcher or a fence may wait for.
    pub(super) tick: watch::Sender<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) objects: BTreeMap<Name, Arc<Object>>,
    /// Everything up to here is in `objects`.
    pub(super) version: ResourceVersion,
    /// Whether there ever was a whole snapshot.
    pub(super) complete: bool,
    /// Clients that know an older state than this cannot be told what happened since.
    pub(super) forgotten: ResourceVersion,
    pub(super) snapshot: Option<Snapshot>,
    /// Since when the stream is not known to be up to date.
    pub(super) interrupted: Option<SystemTime>,
    /// The state is unproven until it has passed this version.
    pub(super) mark: ResourceVersion,
    pub(super) dirty: BTreeSet<Name>,
    pub(super) dirty_bytes: usize,
    pub(super) dirty_version: bool,
    /// Whether the next checkpoint replaces what was stored before.
    pub(super) replaced: bool,
}

impl State {
    pub(super) fn new(budget: usize) -> Self {
        Self {
            kinds: Few::default(),
            ledger: Ledger { used: 0, budget },
            ignored: 0,
            detached: BTreeSet::new(),
        }
    }

    /// The stream's kind and the ledger; `None` if the stream is not attached.
    pub(super) fn kind_of(&mut self, key: &StreamKey) -> Option<(&mut Kind, &mut Ledger)> {
        let kind = self.kinds.get_mut(&key.gvr)?;
        kind.streams.contains_key(&key.scope).then_some(())?;
        Some((kind, &mut self.ledger))
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            objects: self.kinds.values().map(|kind| kind.objects()).sum(),
            bytes: self.ledger.used,
            ignored: self.ignored,
            over_budget: self.kinds.values().filter(|kind| kind.over_budget).count(),
        }
    }

    pub(super) fn counts(&self) -> Vec<(Gvr, String, usize)> {
        let kinds = self.kinds.iter();
        let attached = kinds.filter(|(_, kind)| !kind.streams.is_empty());
        let counts = attached.map(|(gvr, kind)| (gvr.clone(), kind.name.clone(), kind.objects()));
        counts.collect()
    }
}

impl Kind {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            streams: Few::default(),
            history: History::default(),
            fences: Fences::default(),
            over_budget: false,
            tick: watch::Sender::new(0),
        }
    }

    fn objects(&self) -> usize {
        self.streams
            .values()
            .map(|stream| stream.objects.len())
            .sum()
    }

    pub(super) fn notify(&self) {
        self.tick.send_modify(|tick| *tick = tick.wrapping_add(1));
    }

    /// The streams that hold objects of `namespace`; every stream for `None`.
    pub(super) fn matching<'a>(
        &'a self,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Scope, &'a Stream)> {
        let streams = self.streams.iter();
        streams
            .filter(move |(scope, _)| holds(scope, namespace))
            .map(|(scope, stream)| (scope, stream.as_ref()))
    }

    /// An object as the stream has it now: applied at once, or staged while a snapshot runs.
    pub(super) fn put(&mut self, scope: &Scope, object: Object, ledger: &mut Ledger) -> Applied {
        let Some(stream) = self.streams.get_mut(scope) else {
            return Applied::Ignored;
        };
        if stream.snapshot.is_some() {
            let applied = stream.stage(object, ledger);
            self.keep_within(ledger);
            return applied;
        }
        if self.over_budget || !stream.admits(object.identity()) {
            return Applied::Ignored;
        }
        let version = object.identity().resource_version;
        self.replace(scope, Arc::new(object), version, ledger);
        self.advance(scope, version);
        self.keep_within(ledger);
        Applied::Changed
    }

    /// The object's version has changed, its content has not.
    pub(super) fn touch(
        &mut self,
        scope: &Scope,
        identity: &Identity,
        ledger: &mut Ledger,
    ) -> Applied {
        let Some(stream) = self.streams.get_mut(scope) else {
            return Applied::Ignored;
        };
        let name = name_of(identity);
        let staged = stream.staged(&name);
        let known = staged.or_else(|| stream.objects.get(&name));
        let Some(known) = known.filter(|known| known.identity().uid == identity.uid) else {
            return Applied::Ignored;
        };
        let touched = known.at_version(identity.resource_version);
        self.put(scope, touched, ledger)
    }

    pub(super) fn delete(
        &mut self,
        scope: &Scope,
        identity: &Identity,
        ledger: &mut Ledger,
    ) -> Applied {
        let name = name_of(identity);
        let Some(stream) = self.streams.get_mut(scope) else {
            return Applied::Ignored;
        };
        stream.unstage(identity, ledger);
        let known = stream.objects.get(&name);
        let known = known.is_some_and(|known| is_of_the_past(known.identity(), identity));
        let version = identity.resource_version;
        if known {
            self.remove(scope, &name, version, version, ledger);
        }
        self.advance(scope, version);
        if known {
            Applied::Changed
        } else {
            Applied::Ignored
        }
    }

    /// Nothing more has happened in the stream up to `version`.
    pub(super) fn advance(&mut self, scope: &Scope, version: ResourceVersion) {
        let Some(stream) = self.streams.get_mut(scope) else {
            return;
        };
        // While a snapshot is staged the state is still that of the version before it.
        if stream.snapshot.is_none() {
            stream.interrupted = None;
            if version > stream.version {
                stream.version = version;
                stream.dirty_version = true;
            }
        }
        self.notify();
    }

    /// Puts `object` in its place and tells the watchers, who know of it from `version` on.
    pub(super) fn replace(
        &mut self,
        scope: &Scope,
        object: Arc<Object>,
        version: ResourceVersion,
        ledger: &mut Ledger,
    ) {
        let Some(stream) = self.streams.get_mut(scope) else {
            return;
        };
        ledger.add(object.weight());
        let name = name_of(object.identity());
        let before = stream.objects.insert(name.clone(), Arc::clone(&object));
        stream.soil(name, object.json_bytes(), ledger);
        if let Some(before) = &before {
            ledger.remove(before.weight());
        }
        let same = |before: &Arc<Object>| before.identity().uid == object.identity().uid;
        let before = match before {
            Some(before) if !same(&before) => {
                // As of an older version than what took its place: a watch that is cut between the
                // two goes on with the other.
                let earlier = ResourceVersion(version.0.saturating_sub(1));
                let gone = Change::Delete(Arc::new(before.at_version(earlier)));
                self.record(scope, version, gone, ledger);
                None
            }
            before => before,
        };
        let after = object;
        self.record(scope, version, Change::Put { before, after }, ledger);
    }

    /// Takes an object away and tells the watchers, as of version `told`, that it is gone; who knows
    /// the state at `version` knows of it.
    pub(super) fn remove(
        &mut self,
        scope: &Scope,
        name: &Name,
        told: ResourceVersion,
        version: ResourceVersion,
        ledger: &mut Ledger,
    ) {
        let Some(stream) = self.streams.get_mut(scope) else {
            return;
        };
        if let Some(object) = stream.objects.remove(name) {
            ledger.remove(object.weight());
            stream.soil(name.clone(), 0, ledger);
            let gone = Arc::new(object.at_version(told));
            self.record(scope, version, Change::Delete(gone), ledger);
        }
    }

    fn record(
        &mut self,
        scope: &Scope,
        version: ResourceVersion,
        change: Change,
        ledger: &mut Ledger,
    ) {
        let scope = scope.clone();
        let before = self.history.bytes();
        let evicted = self.history.push(Entry {
            scope,
            version,
            change,
        });
        ledger.remove(before);
        ledger.add(self.history.bytes());
        self.forget(evicted);
    }

    fn forget(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            if let Some(stream) = self.streams.get_mut(&entry.scope) {
                stream.forgotten = stream.forgotten.max(entry.version);
            }
        }
    }

    /// Ends every watch; clients list again.
    pub(super) fn forget_history(&mut self, ledger: &mut Ledger) {
        ledger.remove(self.history.bytes());
        let entries = self.history.reset();
        self.forget(entries);
        self.notify();
    }

    /// Gives up the history, and what is only there to store less; and if that does not suffice the
    /// kind, for the account's budget.
    pub(super) fn keep_within(&mut self, ledger: &mut Ledger) {
        if ledger.is_over() {
            self.forget_history(ledger);
        }
        if ledger.is_over() {
            for stream in self.streams.values_mut() {
                stream.replaced |= !stream.dirty.is_empty();
                stream.take_dirty(ledger);
            }
        }
        if ledger.is_over() {
            self.over_budget = true;
            for stream in self.streams.values_mut() {
                stream.clear(ledger);
            }
            self.notify();
        }
    }
}

impl Stream {
    /// A stream of which nothing is known, nor should anything be stored.
    pub(super) fn attached() -> Self {
        Self {
            replaced: true,
            ..Self::default()
        }
    }

    /// Whether `identity` is news: of another version than is known, and not of the past.
    fn admits(&self, identity: &Identity) -> bool {
        let version = identity.resource_version;
        match self.objects.get(&name_of(identity)) {
            Some(known) => version > known.identity().resource_version,
            None => !self.complete || version > self.version,
        }
    }

    /// Forgets the state, as if there never had been a snapshot.
    pub(super) fn clear(&mut self, ledger: &mut Ledger) {
        self.drop_staged(ledger);
        self.take_dirty(ledger);
        for object in std::mem::take(&mut self.objects).into_values() {
            ledger.remove(object.weight());
        }
        *self = Self {
            replaced: true,
            dirty_version: true,
            mark: self.mark,
            interrupted: self.interrupted,
            ..Self::default()
        };
    }

    /// Takes over a stored state.
    pub(super) fn restore(
        &mut self,
        objects: Vec<Object>,
        version: ResourceVersion,
        complete: bool,
        at: SystemTime,
        ledger: &mut Ledger,
    ) {
        for object in objects {
            ledger.add(object.weight());
            let name = name_of(object.identity());
            self.objects.insert(name, Arc::new(object));
        }
        self.version = version;
        self.forgotten = version;
        self.complete = complete;
        self.interrupted = Some(at);
    }

    /// Notes a change for the next checkpoint.
    pub(super) fn soil(&mut self, name: Name, bytes: usize, ledger: &mut Ledger) {
        self.dirty_bytes = self.dirty_bytes.saturating_add(bytes);
        // Everything is stored anew, whatever its name.
        if self.replaced {
            return;
        }
        let weight = dirty_weight(&name);
        if self.dirty.insert(name) {
            ledger.add(weight);
        }
    }

    /// The names that the next checkpoint would store.
    pub(super) fn take_dirty(&mut self, ledger: &mut Ledger) -> BTreeSet<Name> {
        let dirty = std::mem::take(&mut self.dirty);
        ledger.remove(dirty.iter().map(dirty_weight).sum());
        dirty
    }
}

/// Whether a stream of `scope` may hold objects of `namespace`; of any for `None`.
pub(super) fn holds(scope: &Scope, namespace: Option<&str>) -> bool {
    match (scope, namespace) {
        (Scope::Cluster, _) | (_, None) => true,
        (Scope::Namespace(scope), Some(namespace)) => scope == namespace,
    }
}
