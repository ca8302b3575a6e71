//! The objects of the double, and what happened to them last.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use super::Settings;
use super::object::{Instance, KINDS, Kind, Template};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was created.
    Added,
    /// It has gone.
    Deleted,
    /// It has a new version.
    Modified,
}

impl Change {
    /// As watch events call it.
    pub(crate) const fn event(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Deleted => "DELETED",
            Self::Modified => "MODIFIED",
        }
    }
}

/// An entry of the log that watches read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) change: Change,
    pub(crate) instance: Instance,
    /// How often the faulty door tells it.
    pub(crate) faulty: usize,
}

/// What the next change of a kind shall look like to watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trick {
    /// It is told once.
    #[default]
    None,
    /// It is not told.
    Drop,
    /// It is told twice.
    Duplicate,
    /// It is not told at [`Double::faulty_door`](super::Double::faulty_door).
    Hide,
    /// It is told twice there.
    Repeat,
}

/// All objects of one kind.
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) kind: &'static Kind,
    pub(crate) template: Arc<Template>,
    objects: Vec<(Instance, bool)>,
    log: VecDeque<Entry>,
    /// Entries that have left the log: the position of its first one.
    forgotten: u64,
    /// The newest version that has left the log; older versions cannot be watched from.
    compacted: u64,
    next: usize,
    trick: Trick,
}

impl Collection {
    fn new(kind: &'static Kind, settings: &Settings) -> Self {
        let count = settings.count(kind.resource);
        let objects = (0..count)
            .map(|number| {
                (
                    Instance {
                        number,
                        life: 0,
                        version: 1,
                    },
                    true,
                )
            })
            .collect();
        Self {
            kind,
            template: Arc::new(Template::new(kind, settings)),
            objects,
            log: VecDeque::new(),
            forgotten: 0,
            compacted: 0,
            next: 0,
            trick: Trick::None,
        }
    }

    /// The objects that exist, from this number on.
    pub(crate) fn from(&self, number: usize) -> impl Iterator<Item = Instance> {
        let rest = self.objects.get(number..).unwrap_or_default();
        rest.iter()
            .filter(|(_, exists)| *exists)
            .map(|(instance, _)| *instance)
    }

    /// One object, if it exists.
    pub(crate) fn get(&self, number: usize) -> Option<Instance> {
        let (instance, exists) = self.objects.get(number)?;
        exists.then_some(*instance)
    }

    /// The position behind the newest entry.
    pub(crate) fn end(&self) -> u64 {
        self.forgotten + self.log.len() as u64
    }

    /// The position behind all entries up to `version`; none if some newer ones were forgotten.
    pub(crate) fn after(&self, version: u64) -> Option<u64> {
        if version < self.compacted {
            return None;
        }
        let known = self
            .log
            .partition_point(|entry| entry.instance.version <= version);
        Some(self.forgotten + known as u64)
    }

    /// Up to `limit` entries from `position` on; none if they were forgotten.
    pub(crate) fn read(&self, position: u64, limit: usize) -> Option<Vec<Entry>> {
        let skip = usize::try_from(position.checked_sub(self.forgotten)?).ok()?;
        Some(self.log.iter().skip(skip).take(limit).copied().collect())
    }

    fn apply(&mut self, number: usize, change: Change, version: u64, capacity: usize) {
        let Some((instance, exists)) = self.objects.get_mut(number) else {
            return;
        };
        instance.version = version;
        if change == Change::Added {
            instance.life += 1;
        }
        *exists = change != Change::Deleted;
        let trick = std::mem::take(&mut self.trick);
        let entry = Entry {
            change,
            instance: *instance,
            faulty: match trick {
                Trick::Hide => 0,
                Trick::Repeat => 2,
                _ => 1,
            },
        };
        let times = match trick {
            Trick::Drop => 0,
            Trick::Duplicate => 2,
            _ => 1,
        };
        self.log.extend(std::iter::repeat_n(entry, times));
        self.forget_down_to(capacity);
    }

    fn forget_down_to(&mut self, capacity: usize) {
        while self.log.len() > capacity {
            if let Some(entry) = self.log.pop_front() {
                self.forgotten += 1;
                self.compacted = entry.instance.version;
            }
        }
    }
}

/// Everything that requests and the test share.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
    capacity: usize,
    /// The newest version; waiting on it wakes watches.
    pub(crate) version: watch::Sender<u64>,
    /// While true, nothing is answered and no event is sent.
    pub(crate) frozen: watch::Sender<bool>,
    /// Watches end when this differs from what it was at their start.
    pub(crate) closes: watch::Sender<u64>,
    /// Counts how often the watches that were open fell silent.
    pub(crate) silences: watch::Sender<u64>,
}

/// What lies under the lock.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) collections: Vec<Collection>,
    pub(crate) counts: BTreeMap<(String, String), u64>,
}

impl Inner {
    /// The objects of a resource.
    pub(crate) fn collection(&mut self, resource: &str) -> &mut Collection {
        self.collections
            .iter_mut()
            .find(|collection| collection.kind.resource == resource)
            .unwrap_or_else(|| panic!("the double has no `{resource}`"))
    }
}

impl Store {
    /// As the settings want it.
    pub(crate) fn new(settings: &Settings) -> Self {
        let collections = KINDS
            .iter()
            .map(|kind| Collection::new(kind, settings))
            .collect();
        Self {
            inner: Mutex::new(Inner {
                collections,
                counts: BTreeMap::new(),
            }),
            capacity: settings.log_entries,
            version: watch::Sender::new(1),
            frozen: watch::Sender::new(false),
            closes: watch::Sender::new(0),
            silences: watch::Sender::new(0),
        }
    }

    /// Waits until nothing is frozen.
    pub(crate) async fn thawed(&self) {
        let mut frozen = self.frozen.subscribe();
        let seen = frozen.wait_for(|frozen| !frozen).await;
        seen.expect("the store has its own sender");
    }

    /// Takes the lock, for no longer than a statement or two.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics under the lock")
    }

    /// Changes one object and tells the watches; gives its new version.
    pub(crate) fn change(&self, resource: &str, number: usize, change: Change) -> u64 {
        let mut inner = self.lock();
        let version = *self.version.borrow() + 1;
        inner
            .collection(resource)
            .apply(number, change, version, self.capacity);
        self.version.send_replace(version);
        version
    }

    /// Gives the next existing objects a new version, in turn.
    pub(crate) fn touch_next(&self, resource: &str, count: u64) {
        let mut inner = self.lock();
        let mut version = *self.version.borrow();
        let collection = inner.collection(resource);
        for _ in 0..count {
            let number = collection.next;
            collection.next = (number + 1) % collection.objects.len().max(1);
            if collection.get(number).is_some() {
                version += 1;
                collection.apply(number, Change::Modified, version, self.capacity);
            }
        }
        self.version.send_replace(version);
    }

    /// Plays a trick on the next change of a kind.
    pub(crate) fn trick(&self, resource: &str, trick: Trick) {
        self.lock().collection(resource).trick = trick;
    }

    /// Forgets all events, so that every older version is too old to watch from.
    pub(crate) fn compact(&self) {
        let newest = *self.version.borrow();
        for collection in &mut self.lock().collections {
            collection.forget_down_to(0);
            collection.compacted = newest;
        }
    }
}
