//! One account's feed: its streams, and what every link needs to know to carry them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::queue::Queue;
use super::quota::Quota;
use crate::cluster::Reason;
use crate::resource::{Gvr, ResourceVersion, Scope};
use crate::wire::v1;

/// What a feed is made for.
#[derive(Clone, Debug)]
pub struct FeedSettings {
    /// Name of the account.
    pub account: String,
    /// UID of the cluster's `kube-system` namespace.
    pub cluster_uid: String,
    /// Digest of the rules that decide what is sent.
    pub policy_digest: [u8; 32],
    /// What it shares with the agent's other feeds.
    pub quota: Arc<Quota>,
}

/// Where a stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    /// The incarnation that the hub gave; zero until it gave one.
    pub(super) epoch: u64,
    /// Version to watch from; zero asks for a snapshot.
    pub(super) version: ResourceVersion,
}

/// Why a stream cannot be read now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Its name in the closed list.
    pub reason: Reason,
    /// One line for people.
    pub message: String,
}

/// How a stream is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Reading {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// Up to date, or about to be.
    Live,
    /// Not offered to this account: it was never read, and its list was answered 403.
    Absent(Outage),
    /// Not now; retried.
    Interrupted(Outage),
}

/// What happened on one stream, for metrics and reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Streams that were begun.
    pub streams: u64,
    /// Events taken from the API server.
    pub received: u64,
    /// Objects told with their content.
    pub upserts: u64,
    /// Objects of which only the version was told.
    pub touches: u64,
    /// Objects told as gone.
    pub deletes: u64,
    /// Events that told nothing new.
    pub repeated: u64,
    /// Objects that could not be filtered, and whose identity was told instead.
    pub refused: u64,
    /// Lists and streaming lists asked of the API server.
    pub snapshots: u64,
    /// Watches that ended and were resumed.
    pub resumed: u64,
    /// Watches that told nothing for too long, and were opened again.
    pub silent: u64,
    /// Times the API server no longer knew the version (410).
    pub expired: u64,
    /// Values masked.
    pub masked: u64,
    /// Events that took the place of an unsent one of the same object.
    pub coalesced: u64,
}

impl StreamCounts {
    /// Adds another stream's counts.
    pub const fn add(&mut self, other: &Self) {
        self.streams += other.streams;
        self.received += other.received;
        self.upserts += other.upserts;
        self.touches += other.touches;
        self.deletes += other.deletes;
        self.repeated += other.repeated;
        self.refused += other.refused;
        self.snapshots += other.snapshots;
        self.resumed += other.resumed;
        self.silent += other.silent;
        self.expired += other.expired;
        self.masked += other.masked;
        self.coalesced += other.coalesced;
    }
}

/// One stream of a feed.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) number: u32,
    pub(super) gvr: Gvr,
    pub(super) kind: String,
    pub(super) scope: Scope,
    pub(super) resume: watch::Sender<Resume>,
    /// Told when the feed knows it no longer.
    pub(super) removed: CancellationToken,
    /// Highest version of a write carried out on the resource.
    mark: AtomicU64,
    /// Whether it has been read once, or is known to be unreadable.
    ready: AtomicBool,
    reading: Mutex<Reading>,
    pub(super) counts: Mutex<StreamCounts>,
}

impl Stream {
    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut StreamCounts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Events taken from the API server so far.
    pub(super) fn received(&self) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.received
    }
}

/// One account's feed, shared by its watches and by the links that carry it.
#[derive(Debug)]
pub struct Feed {
    settings: FeedSettings,
    /// What is still to be told.
    pub(super) queue: Queue,
    streams: Mutex<BTreeMap<u32, Arc<Stream>>>,
    /// Generation of the link that carries the feed; zero if none does.
    owner: watch::Sender<u64>,
    /// Grows when streams come.
    added: watch::Sender<u32>,
    discovery: watch::Sender<Arc<v1::Discovery>>,
    /// Grows when a stream becomes ready.
    progress: watch::Sender<u64>,
    /// Grows when a stream that was interrupted is read again.
    returns: watch::Sender<u64>,
    /// Grows when a `CustomResourceDefinition` changes, or may have.
    definitions: watch::Sender<u64>,
    /// Batches sent, and their bytes.
    sent: (AtomicU64, AtomicU64),
}

/// What a feed holds and has sent, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedFigures {
    /// Number of streams, by how they are read.
    pub streams: [(&'static str, u64); 4],
    /// Bytes of events that are not yet numbered.
    pub queued_bytes: u64,
    /// Bytes of batches that are not acknowledged.
    pub outbox_bytes: u64,
    /// Batches sent, those sent again included.
    pub batches: u64,
    /// Compressed bytes of the batches sent.
    pub sent_bytes: u64,
}

impl Feed {
    /// A feed without streams.
    pub fn new(settings: FeedSettings) -> Arc<Self> {
        Arc::new(Self {
            queue: Queue::new(Arc::clone(&settings.quota)),
            settings,
            streams: Mutex::default(),
            owner: watch::Sender::new(0),
            added: watch::Sender::new(0),
            discovery: watch::Sender::new(Arc::default()),
            progress: watch::Sender::new(0),
            returns: watch::Sender::new(0),
            definitions: watch::Sender::new(0),
            sent: Default::default(),
        })
    }

    /// Name of the account.
    pub fn account(&self) -> &str {
        &self.settings.account
    }

    pub(super) fn quota(&self) -> &Quota {
        &self.settings.quota
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a stream; it starts when the hub says where.
    pub(super) fn add(&self, gvr: Gvr, kind: String, scope: Scope) -> Arc<Stream> {
        let mut streams = self.lock();
        let number = *self.added.borrow() + 1;
        let resume = Resume {
            epoch: 0,
            version: ResourceVersion::ZERO,
        };
        let stream = Arc::new(Stream {
            number,
            gvr,
            kind,
            scope,
            resume: watch::Sender::new(resume),
            removed: CancellationToken::new(),
            mark: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            reading: Mutex::default(),
            counts: Mutex::default(),
        });
        streams.insert(number, Arc::clone(&stream));
        drop(streams);
        self.added.send_replace(number);
        stream
    }

    /// Whether a stream of `gvr` in `scope` exists.
    pub fn has(&self, gvr: &Gvr, scope: &Scope) -> bool {
        self.lock()
            .values()
            .any(|stream| stream.gvr == *gvr && stream.scope == *scope)
    }

    /// Removes every stream of `gvr`; their watches end.
    pub fn remove(&self, gvr: &Gvr) {
        let mut streams = self.lock();
        streams.retain(|number, stream| {
            let goes = stream.gvr == *gvr;
            if goes {
                self.queue.remove(*number);
                stream.removed.cancel();
            }
            !goes
        });
        drop(streams);
        self.added.send_modify(|_| {});
    }

    /// Tells which kinds the account has, as they were asked for when definitions had changed so
    /// often ([`Feed::definitions`]).
    pub fn set_discovery(&self, mut discovery: v1::Discovery, definitions: u64) {
        discovery.outdated = *self.definitions.borrow() != definitions;
        let discovery = Arc::new(discovery);
        self.discovery.send_if_modified(|old| {
            let differs = **old != *discovery;
            if differs {
                *old = discovery;
            }
            differs
        });
    }

    /// Tells that newer kinds than those known cannot be had now.
    pub fn keep_discovery(&self, definitions: u64) {
        let known = self.discovery.borrow().as_ref().clone();
        self.set_discovery(known, definitions);
    }

    /// Notes that a write on `gvr` was answered with `version`: the hub's state of the resource is
    /// unproven until it has passed it.
    pub fn mark(&self, gvr: &Gvr, version: ResourceVersion) {
        for stream in self.lock().values().filter(|stream| stream.gvr == *gvr) {
            stream.mark.fetch_max(version.0, Ordering::Relaxed);
        }
    }

    /// The counts of all streams together.
    pub fn counts(&self) -> StreamCounts {
        let mut sum = StreamCounts::default();
        for stream in self.lock().values() {
            sum.add(&stream.counts.lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum
    }

    /// What it holds and has sent.
    pub fn figures(&self) -> FeedFigures {
        let [mut unknown, mut live, mut absent, mut interrupted] = [0; 4];
        for stream in self.lock().values() {
            *match &*stream.reading() {
                Reading::Unknown => &mut unknown,
                Reading::Live => &mut live,
                Reading::Absent(_) => &mut absent,
                Reading::Interrupted(_) => &mut interrupted,
            } += 1;
        }
        let held = self.queue.held();
        FeedFigures {
            streams: [
                ("absent", absent),
                ("interrupted", interrupted),
                ("live", live),
                ("unknown", unknown),
            ],
            queued_bytes: held.pending as u64,
            outbox_bytes: held.outbox as u64,
            batches: self.sent.0.load(Ordering::Relaxed),
            sent_bytes: self.sent.1.load(Ordering::Relaxed),
        }
    }

    /// Notes that a batch of so many bytes was sent.
    pub(super) fn note_sent(&self, bytes: usize) {
        self.sent.0.fetch_add(1, Ordering::Relaxed);
        self.sent.1.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether every stream has been read once, or is known to be unreadable.
    pub fn is_ready(&self) -> bool {
        self.lock()
            .values()
            .all(|stream| stream.ready.load(Ordering::Relaxed))
    }

    /// Why nothing of the cluster can be read: every stream that the account has is interrupted.
    pub fn outage(&self) -> Option<Outage> {
        let mut found = None;
        for stream in self.lock().values() {
            match &*stream.reading() {
                Reading::Absent(_) => {}
                Reading::Unknown | Reading::Live => return None,
                Reading::Interrupted(outage) => found = Some(outage.clone()),
            }
        }
        found
    }

    /// Tells when a stream is read in another way than before.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Tells when a `CustomResourceDefinition` has changed, or may have: how often so far.
    pub fn definitions(&self) -> watch::Receiver<u64> {
        self.definitions.subscribe()
    }

    /// Tells when a stream that was interrupted is read again: how often so far.
    pub(super) fn returns(&self) -> watch::Receiver<u64> {
        self.returns.subscribe()
    }

    /// Notes how a stream is read from now on.
    pub(super) fn set_reading(&self, stream: &Stream, reading: &Reading) {
        let interrupted = matches!(reading, Reading::Interrupted(_));
        let mut known = stream.reading();
        if *known == *reading {
            return;
        }
        let was_interrupted = matches!(*known, Reading::Interrupted(_));
        known.clone_from(reading);
        drop(known);
        if was_interrupted && *reading == Reading::Live {
            self.returns.send_modify(|count| *count += 1);
        }
        stream.ready.fetch_or(!interrupted, Ordering::Relaxed);
        self.progress.send_modify(|count| *count += 1);
    }

    /// Notes that a `CustomResourceDefinition` changes; called before the hub is told of it.
    pub(super) fn definition_changes(&self) {
        self.definitions_unsure();
        self.discovery.send_if_modified(|told| {
            let was_current = !told.outdated;
            if was_current {
                Arc::make_mut(told).outdated = true;
            }
            was_current
        });
    }

    /// Notes that definitions may have changed while nobody here watched them.
    pub(super) fn definitions_unsure(&self) {
        self.definitions.send_modify(|count| *count += 1);
    }

    pub(super) fn numbers(&self) -> Vec<u32> {
        self.lock().keys().copied().collect()
    }

    pub(super) fn attach(&self, session: &[u8], generation: u64) -> v1::Attach {
        v1::Attach {
            session: session.to_vec().into(),
            account: self.settings.account.clone(),
            generation,
            cluster_uid: self.settings.cluster_uid.clone(),
            policy_digest: self.settings.policy_digest.to_vec().into(),
            streams: self.states(|_| true),
        }
    }

    pub(super) fn states(&self, wanted: impl Fn(u32) -> bool) -> Vec<v1::StreamState> {
        let streams = self.lock();
        let wanted = streams.values().filter(|stream| wanted(stream.number));
        wanted.map(|stream| self.state(stream)).collect()
    }

    fn state(&self, stream: &Stream) -> v1::StreamState {
        let (epoch, first_sequence) = self.queue.position(stream.number);
        v1::StreamState {
            stream: stream.number,
            resource: Some(v1::Gvr {
                group: stream.gvr.group.clone(),
                version: stream.gvr.version.clone(),
                resource: stream.gvr.resource.clone(),
            }),
            kind: stream.kind.clone(),
            scope: Some(scope_to_wire(&stream.scope)),
            epoch,
            first_sequence,
            mark: stream.mark.load(Ordering::Relaxed),
        }
    }

    /// Takes the hub's word on where a stream goes on; returns the sequence to send from.
    pub(super) fn resumed(&self, resume: &v1::StreamResume) -> Option<u64> {
        let stream = self.lock().get(&resume.stream).cloned()?;
        let (epoch, _) = self.queue.position(resume.stream);
        if epoch == resume.epoch && epoch != 0 {
            self.queue.acknowledge(resume.stream, epoch, resume.applied);
            return Some(resume.applied + 1);
        }
        self.queue.start(resume.stream, resume.epoch);
        let version = ResourceVersion(resume.resource_version);
        stream.resume.send_replace(Resume {
            epoch: resume.epoch,
            version,
        });
        Some(1)
    }

    /// Makes the link of `generation` the one that sends; an older one never takes over.
    pub(super) fn own(&self, generation: u64) -> bool {
        let owned = self.owner.send_if_modified(|owner| {
            let takes = generation > *owner;
            if takes {
                *owner = generation;
            }
            takes
        });
        self.queue.nudge();
        owned || *self.owner.borrow() == generation
    }

    pub(super) fn owner(&self) -> watch::Receiver<u64> {
        self.owner.subscribe()
    }

    pub(super) fn added(&self) -> watch::Receiver<u32> {
        self.added.subscribe()
    }

    pub(super) fn discovery(&self) -> watch::Receiver<Arc<v1::Discovery>> {
        self.discovery.subscribe()
    }
}

fn scope_to_wire(scope: &Scope) -> v1::Scope {
    let scope = match scope {
        Scope::Cluster => v1::scope::Scope::Cluster(v1::WholeCluster {}),
        Scope::Namespace(namespace) => v1::scope::Scope::Namespace(namespace.clone()),
    };
    v1::Scope { scope: Some(scope) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_outdated_from_a_change_of_a_definition_until_they_were_asked_for_after_it() {
        let feed = Feed::new(FeedSettings {
            account: "lab".into(),
            cluster_uid: "uid".into(),
            policy_digest: [0; 32],
            quota: Arc::new(Quota::default()),
        });
        let told = feed.discovery();
        let outdated = || told.borrow().outdated;
        let kinds = v1::Discovery::default;
        let asked = || *feed.definitions().borrow();

        feed.set_discovery(kinds(), asked());
        assert!(!outdated());
        feed.definition_changes();
        assert!(outdated());
        let before_the_next = asked();
        feed.definition_changes();
        feed.set_discovery(kinds(), before_the_next);
        assert!(outdated(), "one change is newer than the question");
        feed.set_discovery(kinds(), asked());
        assert!(!outdated());

        feed.definition_changes();
        feed.keep_discovery(asked());
        assert!(!outdated(), "there is no answer, and nobody waits for one");
        feed.definitions_unsure();
        assert!(!outdated(), "what may have changed holds nobody up");
    }
}
