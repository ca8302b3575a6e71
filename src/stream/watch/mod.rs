//! Follows one resource of an API server and tells its feed what changed.
//!
//! ```text
//! resume from the hub's version ─▶ streaming list ─▶ list at resourceVersion=0 ─▶ paged list
//!        ▲  410 ──────────────────────▲   2 forced ends ──▲         4xx, 5xx ──────▲
//! ```
//! A watch that ends is normal: it is opened again at the last version, which costs the API server
//! nothing. Only 410 leads back to a snapshot.

mod index;
mod lines;
mod pulse;
mod snapshot;
mod turn;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::index::Index;
use self::lines::{find_newline, skip_line};
use self::pulse::Pulse;
use self::turn::Turn;
use super::feed::{Reading, Resume, Stream};
use super::queue::{Item, Refusal};
use super::{Feed, Outage};
use crate::cluster::{ApiBody, ApiRequest, Cluster, ClusterError, Reason, RequestBody, Transport};
use crate::entropy::{self, SharedEntropy};
use crate::fault::Chain;
use crate::limits;
use crate::policy::AllowedKind;
use crate::resource::{Identity, ResourceVersion, Verb};
use crate::retry::{Backoff, pause_unless};
use crate::scrub::{Filter, Object, Refused, WatchEvent};
use crate::secret::Buffer;
use crate::wire::v1::StreamCondition;

/// How often a kind is asked for again whose list was forbidden.
const ABSENT_PAUSE: Duration = Duration::from_mins(5);

/// First and longest pause before a stream that cannot be read is tried again.
///
/// The kinds of an account come back one by one after an outage: this is how far apart.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Longest life of a watch, chosen between half of it and all of it.
///
/// kube-apiserver itself ends watches after 30 to 60 minutes; ours end a little earlier and not
/// all together.
const WATCH_SECONDS: f64 = 1800.0;

/// Objects per page of the last rung of the ladder.
const PAGE: usize = 500;

/// Forced ends of a streaming list after which a plain list is tried.
const FORCED_ENDS: u32 = 2;

/// Lines in a row that name no object and cannot be read, after which an answer counts as broken:
/// each is told in the log, and a server that sends nothing else would fill it.
const UNREADABLE: u32 = 16;

/// Why a step ended without its result.
#[derive(Debug)]
enum Failure {
    /// The version is no longer known (410).
    Expired,
    /// The hub gave another epoch, or the stream is gone.
    OtherEpoch,
    /// The credential may not read the kind (403).
    Forbidden,
    /// This way of listing is not served.
    Unsupported(u16),
    /// The answer ended or could not be read.
    Broken(String),
    /// The API server could not be asked.
    Cluster(ClusterError),
}

impl From<Refusal> for Failure {
    fn from(_: Refusal) -> Self {
        Self::OtherEpoch
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

/// What a watcher shares with the account's other watchers.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) feed: Arc<Feed>,
    /// The connection to use for the next request.
    pub(super) cluster: watch::Receiver<Arc<Cluster>>,
    /// Snapshots under way at once.
    pub(super) snapshots: Arc<Semaphore>,
    pub(super) entropy: SharedEntropy,
}

/// Follows one stream.
pub(super) struct Watcher {
    shared: Shared,
    stream: Arc<Stream>,
    filter: Filter,
    transport: Transport,
    index: Index,
    epoch: u64,
    version: ResourceVersion,
    /// Whether the hub has, or had, a whole snapshot.
    complete: bool,
    /// Whether only a snapshot tells what there is: nothing is known, or the known version expired.
    needs_snapshot: bool,
    forced_ends: u32,
    /// Lines in a row that could not be read.
    unreadable: u32,
    /// How far down the ladder snapshots are taken.
    rung: Rung,
    condition: StreamCondition,
    pulse: Pulse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    StreamingList,
    List,
    PagedList,
}

impl Watcher {
    pub(super) fn new(
        shared: Shared,
        stream: Arc<Stream>,
        kind: &AllowedKind,
        filter: Filter,
    ) -> Self {
        let watched = |verb: Verb| kind.kind().verbs.iter().any(|known| known == verb.as_str());
        let rung = if watched(Verb::Watch) {
            Rung::StreamingList
        } else {
            Rung::List
        };
        Self {
            transport: if filter.masks() {
                Transport::Wiping
            } else {
                Transport::Pooled
            },
            shared,
            stream,
            filter,
            index: Index::default(),
            epoch: 0,
            version: ResourceVersion::ZERO,
            complete: false,
            needs_snapshot: true,
            forced_ends: 0,
            unreadable: 0,
            rung,
            condition: StreamCondition::Unspecified,
            pulse: Pulse::new(),
        }
    }

    /// Follows the stream until told to stop or until the stream is removed.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut resume = self.stream.resume.subscribe();
        loop {
            let now = tokio::select! {
                () = stop.cancelled() => return,
                now = resume.wait_for(|resume| resume.epoch != 0) => match now {
                    Ok(now) => *now,
                    Err(_) => return,
                },
            };
            resume.mark_unchanged();
            self.begin(now);
            tokio::select! {
                // First: what fails because everything stops is no failure.
                biased;
                () = stop.cancelled() => return,
                // Another epoch: what is under way belongs to the past.
                changed = resume.changed() => if changed.is_err() { return },
                () = self.follow(&stop) => {
                    // The stream was removed, or its new epoch is about to be told.
                    tokio::select! {
                        () = stop.cancelled() => return,
                        changed = resume.changed() => if changed.is_err() { return },
                    }
                }
            }
        }
    }

    fn begin(&mut self, resume: Resume) {
        // An epoch without a version asks for a snapshot, as a new stream does.
        let asked = u64::from(resume.version == ResourceVersion::ZERO);
        self.stream.count(|counts| counts.streams += asked);
        self.index = Index::default();
        self.epoch = resume.epoch;
        self.version = resume.version;
        self.complete = resume.version > ResourceVersion::ZERO;
        self.needs_snapshot = !self.complete;
        self.condition = StreamCondition::Unspecified;
    }

    /// Runs within one epoch; ends only when the epoch has.
    async fn follow(&mut self, stop: &CancellationToken) {
        let entropy = Arc::clone(&self.shared.entropy);
        let mut backoff = Backoff::new(RETRY.0, RETRY.1, entropy);
        loop {
            let step = if self.needs_snapshot {
                self.snapshot().await
            } else {
                self.watch().await
            };
            match step {
                Ok(()) => {
                    backoff.reset();
                    self.stream.count(|counts| counts.resumed += 1);
                }
                Err(Failure::OtherEpoch) => return,
                Err(_) if stop.is_cancelled() => return,
                Err(Failure::Expired) => {
                    self.stream.count(|counts| counts.expired += 1);
                    self.needs_snapshot = true;
                    self.rung = Rung::StreamingList;
                }
                Err(Failure::Unsupported(status)) => {
                    self.descend(status);
                    if !backoff.wait(stop).await {
                        return;
                    }
                }
                Err(failure) => {
                    if self.report(&failure).await.is_err() {
                        return;
                    }
                    let forbidden = matches!(failure, Failure::Forbidden) && !self.complete;
                    let pause = if forbidden {
                        ABSENT_PAUSE
                    } else {
                        backoff.next_pause()
                    };
                    if !self.pause(stop, pause).await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits before the next attempt, but not for one with another credential; false once stopped.
    async fn pause(&self, stop: &CancellationToken, pause: Duration) -> bool {
        tokio::select! {
            waited = pause_unless(stop, pause) => waited,
            () = moved(self.shared.cluster.clone()) => true,
        }
    }

    /// Goes one rung down the ladder.
    fn descend(&mut self, status: u16) {
        let next = match self.rung {
            Rung::StreamingList => Rung::List,
            Rung::List | Rung::PagedList => Rung::PagedList,
        };
        tracing::debug!(stream = %self.stream.gvr, status, rung = ?next, "snapshot goes down a rung");
        self.rung = next;
    }

    /// Tells hub and log, once per change, that the stream cannot be read.
    async fn report(&mut self, failure: &Failure) -> Result<(), Failure> {
        let (reason, message) = match failure {
            Failure::Forbidden => (
                Reason::ApiUnauthorized,
                "the API server answered 403".to_owned(),
            ),
            Failure::Broken(why) => (Reason::ApiUnreachable, why.clone()),
            Failure::Cluster(error) => (error.reason(), Chain(error).to_string()),
            Failure::Unsupported(status) => (
                Reason::ApiUnreachable,
                format!("the API server answered {status}"),
            ),
            Failure::Expired | Failure::OtherEpoch => return Ok(()),
        };
        let outage = Outage { reason, message };
        let absent = matches!(failure, Failure::Forbidden) && !self.complete;
        self.tell_reading(if absent {
            Reading::Absent(outage)
        } else {
            Reading::Interrupted(outage)
        })
        .await
    }

    async fn tell_reading(&mut self, reading: Reading) -> Result<(), Failure> {
        let (condition, message) = match &reading {
            Reading::Unknown => return Ok(()),
            Reading::Live => (StreamCondition::Live, String::new()),
            Reading::Absent(outage) => (StreamCondition::Absent, outage.message.clone()),
            Reading::Interrupted(outage) => (StreamCondition::Interrupted, outage.message.clone()),
        };
        // Before the condition is compared: the account tells each new reason, the stream does not.
        self.shared.feed.set_reading(&self.stream, &reading);
        if self.condition == condition {
            return Ok(());
        }
        let (account, stream) = (self.shared.feed.account(), &self.stream.gvr);
        if condition == StreamCondition::Live {
            tracing::debug!(account, %stream, scope = %self.stream.scope, "stream is live");
        } else {
            tracing::warn!(account, %stream, scope = %self.stream.scope, error = message, "stream cannot be read");
        }
        self.condition = condition;
        self.push(Item::Status(condition, message)).await
    }

    async fn push(&self, item: Item) -> Result<(), Failure> {
        let queue = &self.shared.feed.queue;
        let instead = queue.push(self.stream.number, self.epoch, item).await?;
        self.stream
            .count(|counts| counts.coalesced += u64::from(instead));
        Ok(())
    }

    // ------------------------------------------------------------ requests

    /// The body of an answer; its headers say nothing that is used, and a watch lasts for long.
    async fn get(&mut self, query: &str, long_running: bool) -> Result<ApiBody, Failure> {
        let collection = self.stream.gvr.collection(&self.stream.scope);
        let selector = self.stream.gvr.selects_by_name(&self.stream.scope);
        let selector = selector.map_or_else(String::new, |name| {
            format!("&fieldSelector=metadata.name%3D{name}")
        });
        let cluster = Arc::clone(&self.shared.cluster.borrow_and_update());
        let answer = cluster
            .send(ApiRequest {
                method: "GET".into(),
                target: format!("{collection}?{query}{selector}"),
                headers: vec![("accept".into(), "application/json".into())],
                body: RequestBody::None,
                transport: self.transport,
                long_running,
            })
            .await?;
        match answer.status {
            200 => Ok(answer.body),
            401 => Err(Failure::Cluster(ClusterError::Unauthorized)),
            403 => Err(Failure::Forbidden),
            410 => Err(Failure::Expired),
            400..=499 => Err(Failure::Unsupported(answer.status)),
            status => Err(Failure::Broken(format!("the API server answered {status}"))),
        }
    }

    fn watch_seconds(&self) -> u64 {
        let share = 0.5 + entropy::unit(&*self.shared.entropy) / 2.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 900 and 1800"
        )]
        let seconds = (WATCH_SECONDS * share) as u64;
        seconds
    }

    // ------------------------------------------------------------ watch

    /// Watches from the last version until the watch ends.
    async fn watch(&mut self) -> Result<(), Failure> {
        let query = format!(
            "watch=true&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={}",
            self.version,
            self.watch_seconds(),
        );
        let mut body = match self.get(&query, true).await {
            Err(Failure::Unsupported(status)) => {
                let why = format!("the API server answered a watch with {status}");
                return Err(Failure::Broken(why));
            }
            body => body?,
        };
        self.tell_reading(Reading::Live).await?;
        self.events(&mut body, None).await
    }

    /// Reads watch events until the answer ends; with `initial`, the first part is a snapshot.
    async fn events(
        &mut self,
        body: &mut ApiBody,
        mut initial: Option<Turn>,
    ) -> Result<(), Failure> {
        let mut buffer = Buffer::new(limits::RAW_OBJECT_BYTES);
        let mut searched = 0;
        let mut moved = pin!(moved(self.shared.cluster.clone()));
        self.pulse.begin();
        loop {
            while let Some(end) = find_newline(buffer.filled(), searched) {
                searched = 0;
                let line = buffer.filled().get(..end).unwrap_or_default();
                let event = self.filter.watch_event(line);
                buffer.consume(end + 1);
                if self.event(event, initial.is_some()).await? {
                    initial = None;
                }
            }
            searched = buffer.len();
            if buffer.space().is_empty() {
                let refused = self.filter.watch_event(buffer.filled());
                buffer.clear();
                searched = 0;
                self.event(refused, initial.is_some()).await?;
                if !skip_line(body, &mut buffer).await? {
                    return ended(initial.is_some(), &mut self.forced_ends);
                }
            }
            let reading = tokio::time::timeout(self.pulse.silence(), body.read(&mut buffer));
            let read = tokio::select! {
                read = reading => read,
                // The next one begins where this one ends: nothing is listed again.
                () = &mut moved, if initial.is_none() => return Ok(()),
            };
            let Ok(read) = read else {
                self.silent();
                return ended(initial.is_some(), &mut self.forced_ends);
            };
            if read? == 0 {
                return ended(initial.is_some(), &mut self.forced_ends);
            }
        }
    }

    /// Nothing came for too long, not even a bookmark: what the watch would have told since is
    /// told by the next one.
    fn silent(&self) {
        self.stream.count(|counts| counts.silent += 1);
        tracing::info!(
            account = self.shared.feed.account(),
            stream = %self.stream.gvr,
            scope = %self.stream.scope,
            after = ?self.pulse.silence(),
            "watch fell silent; it is opened again"
        );
    }

    /// Takes one event; true if it ended the initial part.
    async fn event(
        &mut self,
        event: Result<WatchEvent, Refused>,
        initial: bool,
    ) -> Result<bool, Failure> {
        match event {
            Ok(WatchEvent::Upsert(object)) => self.upsert(object).await?,
            Ok(WatchEvent::Delete(identity)) => self.delete(identity).await?,
            Ok(WatchEvent::Bookmark {
                version,
                initial_events_end,
            }) => {
                self.pulse.beat();
                let ends = initial && initial_events_end;
                if ends {
                    self.end_snapshot(version).await?;
                } else if !initial && version > self.version {
                    self.push(Item::Bookmark(version)).await?;
                    self.version = version;
                }
                return Ok(ends);
            }
            Ok(WatchEvent::Error { code: 410, .. }) => return Err(Failure::Expired),
            Ok(WatchEvent::Error { code, reason }) => {
                let why = format!("the API server ended the watch: {code} {reason}");
                return Err(Failure::Broken(why));
            }
            Err(refused) => self.refuse(refused).await?,
        }
        Ok(false)
    }

    async fn upsert(&mut self, object: Object) -> Result<(), Failure> {
        self.unreadable = 0;
        let version = object.identity.resource_version;
        let (key, hash) = (self.index.key(&object.identity.uid), object.content_hash);
        let item = match self.index.get(key) {
            Some((known, _)) if version <= known && self.complete => {
                self.stream.count(|counts| counts.repeated += 1);
                return Ok(());
            }
            Some((_, known)) if known == hash => Item::Touch(object.identity),
            _ if object.bytes.as_bytes().len() > limits::OBJECT_BYTES => {
                Item::Opaque(object.identity)
            }
            _ => Item::Upsert(object),
        };
        let touched = matches!(item, Item::Touch(_));
        self.push(item).await?;
        let masked = self.filter.trail().values_masked;
        self.stream.count(|counts| {
            counts.received += 1;
            counts.masked = masked;
            if touched {
                counts.touches += 1;
            } else {
                counts.upserts += 1;
            }
        });
        self.index.insert(key, (version, hash));
        if !touched && self.complete && self.stream.gvr.resource == "customresourcedefinitions" {
            self.shared.feed.definition_changed();
        }
        self.seen(version);
        Ok(())
    }

    async fn delete(&mut self, identity: Identity) -> Result<(), Failure> {
        let version = identity.resource_version;
        self.index.remove(&identity.uid);
        self.push(Item::Delete(identity)).await?;
        if self.stream.gvr.resource == "customresourcedefinitions" {
            self.shared.feed.definition_changed();
        }
        self.stream.count(|counts| {
            counts.received += 1;
            counts.deletes += 1;
        });
        self.seen(version);
        Ok(())
    }

    /// An object that could not be filtered is replaced by its identity, if that is known.
    async fn refuse(&mut self, refused: Refused) -> Result<(), Failure> {
        self.stream.count(|counts| counts.refused += 1);
        tracing::warn!(
            account = self.shared.feed.account(),
            stream = %self.stream.gvr,
            label = refused.label,
            name = refused.identity.as_ref().map(|identity| identity.name.as_str()),
            "object could not be filtered; its identity is sent instead"
        );
        let Some(identity) = refused.identity else {
            self.unreadable += 1;
            if self.unreadable < UNREADABLE {
                return Ok(());
            }
            self.unreadable = 0;
            return Err(Failure::Broken("its answer cannot be read".into()));
        };
        if refused.deleted {
            return self.delete(identity).await;
        }
        let version = identity.resource_version;
        self.index.remove(&identity.uid);
        self.push(Item::Opaque(identity)).await?;
        self.seen(version);
        Ok(())
    }

    /// Outside snapshots the stream has reached `version`.
    fn seen(&mut self, version: ResourceVersion) {
        if self.complete {
            self.version = self.version.max(version);
        }
    }
}

/// A watch that ended: normal, unless its snapshot was not complete.
fn ended(initial: bool, forced_ends: &mut u32) -> Result<(), Failure> {
    if initial {
        *forced_ends += 1;
        return Err(Failure::Broken(
            "the streaming list was ended before it was complete".into(),
        ));
    }
    Ok(())
}

/// Waits until the next request goes over another connection, with another credential.
async fn moved(mut cluster: watch::Receiver<Arc<Cluster>>) {
    if cluster.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
