//! Snapshots: staged beside the state, which they replace when they are whole.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::object::Object;
use super::state::{Kind, Ledger, Name, Stream, name_of};
use super::{Applied, SnapshotEnd};
use crate::resource::{Identity, ResourceVersion, Scope};

/// What was named since the begin of a snapshot.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Uids of the state that were named since the begin. Of no others: whoever sends the snapshot
    /// does not decide how many they are.
    seen: HashSet<String>,
    /// Objects that differ from the state.
    staged: BTreeMap<Name, Arc<Object>>,
}

impl Kind {
    /// From here on, items are staged.
    pub(super) fn begin_snapshot(&mut self, scope: &Scope, ledger: &mut Ledger) {
        if let Some(stream) = self.streams.get_mut(scope) {
            stream.drop_staged(ledger);
            stream.snapshot = Some(Snapshot::default());
            self.over_budget = false;
        }
    }

    /// What was staged becomes the state.
    pub(super) fn end_snapshot(
        &mut self,
        scope: &Scope,
        version: ResourceVersion,
        ledger: &mut Ledger,
    ) -> SnapshotEnd {
        let Some(stream) = self.streams.get_mut(scope) else {
            return SnapshotEnd::NotBegun;
        };
        let first = !stream.complete;
        if stream.snapshot.is_some() && !first && version < stream.version {
            stream.drop_staged(ledger);
            return SnapshotEnd::Older;
        }
        let Some(Snapshot { seen, staged }) = stream.snapshot.take() else {
            // What had begun was given up when it grew beyond the budget.
            let given_up = self.over_budget;
            return if given_up {
                SnapshotEnd::OverBudget
            } else {
                SnapshotEnd::NotBegun
            };
        };
        let before = stream.version;
        let gone: Vec<Name> = stream
            .objects
            .iter()
            .filter(|(name, object)| {
                let identity = object.identity();
                !seen.contains(&identity.uid)
                    && identity.resource_version <= version
                    && !staged.contains_key(*name)
            })
            .map(|(name, _)| name.clone())
            .collect();
        // In the order of their versions, so that the history's versions grow.
        let mut puts: Vec<Arc<Object>> = staged.into_values().collect();
        puts.sort_by_key(|object| object.identity().resource_version);
        // A snapshot that says something else about the past than what was served: no event can
        // mend that for a client that is up to date, so it has to list again.
        let contradicts = puts
            .iter()
            .any(|object| object.identity().resource_version <= before)
            || (!gone.is_empty() && version <= before);
        let newest = puts.last().map(|object| object.identity().resource_version);
        for object in puts {
            ledger.remove(object.weight());
            let at = if first {
                version
            } else {
                object.identity().resource_version
            };
            self.replace(scope, object, at, ledger);
        }
        let told = newest.unwrap_or(before).max(before);
        self.remove_unseen(scope, gone, told, version, ledger);
        if let Some(stream) = self.streams.get_mut(scope) {
            stream.complete = true;
            stream.interrupted = None;
            if first {
                stream.forgotten = version;
            }
            stream.version = stream.version.max(version);
            stream.dirty_version = true;
        }
        if contradicts && !first {
            self.forget_history(ledger);
        }
        self.keep_within(ledger);
        self.notify();
        SnapshotEnd::Applied
    }
}

impl Kind {
    /// Takes away what a snapshot at `version` did not name. Each is told as of a version of its
    /// own, after `told`, as long as there are so many: a watch that is cut between two of them goes
    /// on with the next.
    fn remove_unseen(
        &mut self,
        scope: &Scope,
        gone: Vec<Name>,
        told: ResourceVersion,
        version: ResourceVersion,
        ledger: &mut Ledger,
    ) {
        let mut left = gone.len() as u64;
        for name in gone {
            left -= 1;
            let own = ResourceVersion(version.0.saturating_sub(left));
            self.remove(scope, &name, own.max(told), version, ledger);
        }
    }
}

impl Stream {
    /// Takes an item of the snapshot under way.
    pub(super) fn stage(&mut self, object: Object, ledger: &mut Ledger) -> Applied {
        let Some(snapshot) = &mut self.snapshot else {
            return Applied::Ignored;
        };
        let identity = object.identity();
        let name = name_of(identity);
        let version = identity.resource_version;
        let staged = snapshot.staged.get(&name);
        if staged.is_some_and(|staged| staged.identity().resource_version >= version) {
            return Applied::Ignored;
        }
        let known = self.objects.get(&name);
        if known.is_some_and(|known| known.identity().uid == identity.uid) {
            snapshot.seen.insert(identity.uid.clone());
        }
        if known.is_some_and(|known| known.identity().resource_version >= version) {
            return Applied::Ignored;
        }
        ledger.add(object.weight());
        if let Some(staged) = snapshot.staged.insert(name, Arc::new(object)) {
            ledger.remove(staged.weight());
        }
        Applied::Changed
    }

    /// Takes back an item of the snapshot under way, which is gone.
    pub(super) fn unstage(&mut self, identity: &Identity, ledger: &mut Ledger) {
        let Some(snapshot) = &mut self.snapshot else {
            return;
        };
        snapshot.seen.remove(&identity.uid);
        let name = name_of(identity);
        let staged = snapshot.staged.get(&name).map(|staged| staged.identity());
        if staged.is_some_and(|staged| is_of_the_past(staged, identity))
            && let Some(staged) = snapshot.staged.remove(&name)
        {
            ledger.remove(staged.weight());
        }
    }

    /// The object of the snapshot under way that has this name.
    pub(super) fn staged(&self, name: &Name) -> Option<&Arc<Object>> {
        self.snapshot.as_ref()?.staged.get(name)
    }

    /// Forgets the snapshot under way.
    pub(super) fn drop_staged(&mut self, ledger: &mut Ledger) {
        let staged = self.snapshot.take().map(|snapshot| snapshot.staged);
        for object in staged.unwrap_or_default().into_values() {
            ledger.remove(object.weight());
        }
    }
}

/// Whether `known` is gone with the deletion of `identity`.
pub(super) fn is_of_the_past(known: &Identity, identity: &Identity) -> bool {
    known.uid == identity.uid && known.resource_version <= identity.resource_version
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{StreamKey, View};
    use super::*;
    use crate::clock;
    use crate::resource::Gvr;

    #[test]
    fn uids_that_the_state_does_not_have_are_not_kept() {
        let view = View::new(clock::system());
        let key = StreamKey {
            gvr: Gvr::new("", "v1", "pods"),
            scope: Scope::Cluster,
        };
        view.attach(&key, "Pod");
        let put = |uid: u64, version: u64| {
            let identity = Identity {
                namespace: "shop".into(),
                name: "a".into(),
                uid: uid.to_string(),
                resource_version: ResourceVersion(version),
            };
            view.upsert(&key, identity, Bytes::new(), 0, 0, true);
        };
        let seen = || {
            let mut state = view.lock();
            let (kind, _) = state.kind_of(&key).unwrap();
            let stream = kind.streams.get(&key.scope).unwrap();
            stream.snapshot.as_ref().unwrap().seen.len()
        };
        view.snapshot_begin(&key);
        (1..=100).for_each(|at| put(at, at));
        assert_eq!(seen(), 0, "there is no state yet");
        view.snapshot_end(&key, ResourceVersion(200));
        view.snapshot_begin(&key);
        // Of the past, and of the future.
        (101..=200).for_each(|at| put(at, 1));
        (201..=300).for_each(|at| put(at, at));
        put(100, 400);
        assert_eq!(seen(), 1);
    }
}
