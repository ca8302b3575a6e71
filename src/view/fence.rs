//! Fences: what a reader has to see because of a write that was answered.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::state::Kind;
use super::{FENCE_LIFETIME, StreamKey, View};
use crate::resource::{Gvr, ResourceVersion};

/// Deletions of one kind that are waited for one by one; with more, the collection goes live.
const DELETE_FENCES: usize = 1024;

/// Collections of one kind that may be fenced; with more, the whole kind goes live.
const COLLECTION_FENCES: usize = 256;

/// Whether the view has seen every write that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// A read of the view sees them.
    Yes,
    /// A read of the view may miss one; the cluster has to be asked.
    NotYet,
}

/// What the view of one kind has to have seen. A namespace of `None` is every namespace.
#[derive(Debug, Default)]
pub(super) struct Fences {
    versions: BTreeMap<Option<String>, ResourceVersion>,
    deletes: Vec<DeleteFence>,
    collections: Vec<CollectionFence>,
    /// How many collections were fenced ever.
    fenced: u64,
}

#[derive(Debug)]
struct CollectionFence {
    namespace: Option<String>,
    number: u64,
    until: Instant,
}

#[derive(Debug)]
struct DeleteFence {
    namespace: String,
    name: String,
    uid: String,
    until: Instant,
}

impl View {
    /// A write in `namespace` was answered with `version`; reads have to see it.
    pub fn fence(&self, gvr: &Gvr, namespace: Option<&str>, version: ResourceVersion) {
        if let Some(kind) = self.lock().kinds.get_mut(gvr) {
            kind.fences.add_version(namespace, version);
        }
    }

    /// A deletion was answered: reads have to see the object with `uid` gone or terminating.
    pub fn fence_delete(&self, gvr: &Gvr, namespace: Option<&str>, name: &str, uid: &str) {
        if let Some(kind) = self.lock().kinds.get_mut(gvr) {
            kind.fences.add_delete(DeleteFence {
                namespace: namespace.unwrap_or_default().to_owned(),
                name: name.to_owned(),
                uid: uid.to_owned(),
                until: Instant::now() + FENCE_LIFETIME,
            });
        }
    }

    /// A write was answered that tells no version: the collection has to be asked live, until
    /// [`View::collection_seen`] says at which version that was done.
    pub fn fence_collection(&self, gvr: &Gvr, namespace: Option<&str>) {
        if let Some(kind) = self.lock().kinds.get_mut(gvr) {
            kind.fences.add_collection(namespace);
        }
    }

    /// How many collections of a resource were fenced so far; to be asked before a live list.
    pub fn collection_fences(&self, gvr: &Gvr) -> u64 {
        let state = self.lock();
        state.kinds.get(gvr).map_or(0, |kind| kind.fences.fenced)
    }

    /// A list of `namespace` was answered live at `version`: of the collections within it, the
    /// first `fences` ever fenced are settled once the view has passed that version. What was
    /// written while the list was on its way is not in it.
    pub fn collection_seen(
        &self,
        gvr: &Gvr,
        namespace: Option<&str>,
        version: ResourceVersion,
        fences: u64,
    ) {
        if let Some(kind) = self.lock().kinds.get_mut(gvr) {
            kind.fences.close_collections(namespace, version, fences);
        }
    }

    /// The stream's state is unproven until it has passed `version`, that of a write.
    pub fn mark(&self, key: &StreamKey, version: ResourceVersion) {
        if let Some(stream) = self.stream(&mut self.lock(), key) {
            stream.mark = stream.mark.max(version);
        }
    }

    /// Waits until the view of `namespace` has seen every write, at most for `patience`.
    ///
    /// Cancellation safe. A kind that is not watched has nothing to wait for.
    pub async fn settled(&self, gvr: &Gvr, namespace: Option<&str>, patience: Duration) -> Settled {
        let wait = async {
            loop {
                let mut ticks = {
                    let mut state = self.lock();
                    let Some(kind) = state.kinds.get_mut(gvr) else {
                        return;
                    };
                    if kind.is_settled(namespace) {
                        return;
                    }
                    kind.tick.subscribe()
                };
                if ticks.changed().await.is_err() {
                    return;
                }
            }
        };
        match tokio::time::timeout(patience, wait).await {
            Ok(()) => Settled::Yes,
            Err(_elapsed) => Settled::NotYet,
        }
    }
}

impl Kind {
    /// Whether reads of `namespace` see every write; forgets the fences that are passed.
    fn is_settled(&mut self, namespace: Option<&str>) -> bool {
        let mut fences = std::mem::take(&mut self.fences);
        let passed = |place: &Option<String>, version: ResourceVersion| {
            self.matching(place.as_deref())
                .all(|(_, stream)| stream.version >= version)
        };
        fences
            .versions
            .retain(|place, version| !passed(place, *version));
        let now = Instant::now();
        fences.collections.retain(|fence| fence.until > now);
        let waits_for_version = |place: Option<&str>| {
            let overlaps = |known: &Option<String>| overlap(known.as_deref(), place);
            fences.versions.keys().any(overlaps)
        };
        let gone = |fence: &DeleteFence| {
            let name = (fence.namespace.clone(), fence.name.clone());
            self.matching(fence.place()).all(|(_, stream)| {
                let known = stream.objects.get(&name);
                known
                    .is_none_or(|known| known.identity().uid != fence.uid || known.is_terminating())
            })
        };
        // An object that the view has not seen yet is not gone: first the versions.
        fences.deletes.retain(|fence| {
            fence.until > now && (waits_for_version(fence.place()) || !gone(fence))
        });
        let overlaps = |known: Option<&str>| overlap(known, namespace);
        let settled = !fences
            .versions
            .keys()
            .any(|known| overlaps(known.as_deref()))
            && !fences.deletes.iter().any(|fence| overlaps(fence.place()))
            && !fences
                .collections
                .iter()
                .any(|fence| overlaps(fence.namespace.as_deref()))
            && self
                .matching(namespace)
                .all(|(_, stream)| stream.version >= stream.mark);
        self.fences = fences;
        settled
    }
}

impl DeleteFence {
    /// Cluster-scoped objects are read with every namespace.
    fn place(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(self.namespace.as_str())
    }
}

fn overlap(one: Option<&str>, other: Option<&str>) -> bool {
    one.is_none() || other.is_none() || one == other
}

impl Fences {
    fn add_version(&mut self, namespace: Option<&str>, version: ResourceVersion) {
        let mut place = namespace.map(str::to_owned);
        if self.versions.len() >= COLLECTION_FENCES && !self.versions.contains_key(&place) {
            place = None;
        }
        let known = self.versions.entry(place).or_default();
        *known = version.max(*known);
    }

    fn add_delete(&mut self, fence: DeleteFence) {
        if self.deletes.len() < DELETE_FENCES {
            self.deletes.push(fence);
        } else {
            self.add_collection(fence.place().map(str::to_owned).as_deref());
        }
    }

    fn add_collection(&mut self, namespace: Option<&str>) {
        let until = Instant::now() + FENCE_LIFETIME;
        let place = if self.collections.len() < COLLECTION_FENCES {
            namespace.map(str::to_owned)
        } else {
            None
        };
        self.collections.retain(|fence| fence.namespace != place);
        self.fenced += 1;
        self.collections.push(CollectionFence {
            namespace: place,
            number: self.fenced,
            until,
        });
    }

    fn close_collections(
        &mut self,
        namespace: Option<&str>,
        version: ResourceVersion,
        fences: u64,
    ) {
        let before = self.collections.len();
        self.collections.retain(|fence| {
            let is_within = namespace.is_none() || fence.namespace.as_deref() == namespace;
            !is_within || fence.number > fences
        });
        if self.collections.len() < before {
            self.add_version(namespace, version);
        }
    }
}
