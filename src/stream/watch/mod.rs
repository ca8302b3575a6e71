//! Follows one resource of an API server and tells its feed what changed.
//!
//! ```text
//! resume from the hub's version ─▶ streaming list ─▶ list at resourceVersion=0 ─▶ paged list
//!                   410 ──────────────▲     4xx, or broken off twice ─▲──────────────▲
//! ```
//! A watch that ends is normal: it is opened again at the last version, which costs the API server
//! nothing. Only 410 leads back to a snapshot.

mod again;
mod events;
mod index;
mod lines;
mod pulse;
mod snapshot;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::again::Again;
use self::events::moved;
use self::index::Index;
use self::pulse::Pulse;
use super::feed::{Reading, Resume, Stream};
use super::queue::{Item, Refusal};
use super::{Feed, Outage};
use crate::cluster::{ApiBody, ApiRequest, Cluster, ClusterError, Reason, RequestBody, Transport};
use crate::entropy::{self, SharedEntropy};
use crate::fault::Chain;
use crate::limits;
use crate::policy::AllowedKind;
use crate::resource::{ResourceVersion, Verb};
use crate::retry::pause_unless;
use crate::scrub::Filter;
use crate::wire::v1::StreamCondition;

/// How often a kind is asked for again whose list was forbidden.
const ABSENT_PAUSE: Duration = Duration::from_mins(5);

/// Longest life of a watch, chosen between half of it and all of it.
///
/// kube-apiserver itself ends watches after 30 to 60 minutes; ours end a little earlier and not
/// all together.
const WATCH_SECONDS: f64 = 1800.0;

/// Objects per page of the last rung of the ladder.
const PAGE: usize = 500;

/// Lists that broke off, in a row, after which the next way of listing is tried.
const FORCED_ENDS: u32 = 2;

/// A watch that ends sooner than this and told nothing new has not worked: the next one waits.
const SHORT_WATCH: Duration = Duration::from_secs(1);

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
    /// Whether the API server has begun to answer the present attempt.
    answered: bool,
    /// Snapshots in a row that were answered and not completed.
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
            answered: false,
            forced_ends: 0,
            unreadable: 0,
            rung,
            condition: StreamCondition::Unspecified,
            pulse: Pulse::new(),
        }
    }

    /// Follows the stream until told to stop or until the stream is removed.
    pub(super) async fn run(self, stop: CancellationToken) {
        let removed = self.stream.removed.clone();
        let _removed = removed.run_until_cancelled(self.follow_epochs(stop)).await;
    }

    async fn follow_epochs(mut self, stop: CancellationToken) {
        let mut resume = self.stream.resume.subscribe();
        loop {
            let now = tokio::select! {
                () = stop.cancelled() => return,
                now = resume.wait_for(|resume| resume.epoch != 0) => match now {
                    Ok(now) => *now,
                    Err(_) => return,
                },
            };
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
        if self.tells_definitions() {
            self.doubt_kinds();
        }
    }

    /// Another instance may have told the hub of definitions, and of kinds, since this one asked.
    fn doubt_kinds(&self) {
        if self.complete {
            self.shared.feed.definition_changes();
        } else {
            self.shared.feed.definitions_unsure();
        }
    }

    /// Runs within one epoch; ends only when the epoch has.
    async fn follow(&mut self, stop: &CancellationToken) {
        let entropy = Arc::clone(&self.shared.entropy);
        let mut again = Again::new(self.shared.feed.returns(), entropy);
        loop {
            again.begin();
            self.answered = false;
            let (since, version, lists) = (Instant::now(), self.version, self.needs_snapshot);
            let step = if lists {
                self.snapshot().await
            } else {
                self.watch().await
            };
            let short = since.elapsed() < SHORT_WATCH && self.version == version;
            // However it ended: a watch that was cut after hours has worked.
            if self.answered && !self.needs_snapshot && !short {
                again.succeeded();
            }
            match step {
                Ok(()) => {
                    self.stream.count(|counts| counts.resumed += 1);
                    if short && !lists && !again.wait(stop).await {
                        return;
                    }
                }
                Err(Failure::OtherEpoch) => return,
                Err(_) if stop.is_cancelled() => return,
                Err(Failure::Expired) => {
                    self.stream.count(|counts| counts.expired += 1);
                    self.needs_snapshot = true;
                    self.rung = Rung::StreamingList;
                    if short && !again.wait(stop).await {
                        return;
                    }
                }
                Err(Failure::Unsupported(status)) if self.rung != Rung::PagedList => {
                    self.descend(&format!("the API server answered {status}"));
                    if !again.wait(stop).await {
                        return;
                    }
                }
                Err(failure) => {
                    if self.report(&failure).await.is_err() {
                        return;
                    }
                    let forbidden = matches!(failure, Failure::Forbidden) && !self.complete;
                    if !self.pause(stop, forbidden, &mut again).await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits before the next attempt, but not for one with another credential; false once stopped.
    async fn pause(&self, stop: &CancellationToken, forbidden: bool, again: &mut Again) -> bool {
        let waiting = async {
            if forbidden {
                pause_unless(stop, ABSENT_PAUSE).await
            } else {
                again.wait(stop).await
            }
        };
        tokio::select! {
            waited = waiting => waited,
            () = moved(self.shared.cluster.clone()) => true,
        }
    }

    /// Goes one rung down the ladder.
    fn descend(&mut self, why: &str) {
        let next = match self.rung {
            Rung::StreamingList => Rung::List,
            Rung::List | Rung::PagedList => Rung::PagedList,
        };
        tracing::debug!(stream = %self.stream.gvr, why, rung = ?next, "snapshot goes down a rung");
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

    /// The body of an answer; its headers say nothing that is used, and a watch lasts for long.
    async fn get(&mut self, query: &str, long_running: bool) -> Result<ApiBody, Failure> {
        let collection = self.stream.gvr.collection(&self.stream.scope);
        let selector = self.stream.gvr.selects_by_name(&self.stream.scope);
        let selector = selector.map_or_else(String::new, |name| {
            format!("&fieldSelector=metadata.name%3D{name}")
        });
        let cluster = Arc::clone(&self.shared.cluster.borrow_and_update());
        let asking = cluster.send(ApiRequest {
            method: "GET".into(),
            target: format!("{collection}?{query}{selector}"),
            headers: vec![("accept".into(), "application/json".into())],
            body: RequestBody::None,
            transport: self.transport,
            long_running,
        });
        // What is long about a watch is its body: an API server tells at once that it has begun.
        let Ok(answer) = tokio::time::timeout(limits::ANSWER_TIMEOUT, asking).await else {
            return Err(Failure::Broken("the API server does not answer".into()));
        };
        let answer = answer?;
        self.answered = answer.status == 200;
        match answer.status {
            200 => Ok(answer.body),
            401 => Err(Failure::Cluster(ClusterError::Unauthorized)),
            403 => Err(Failure::Forbidden),
            410 => Err(Failure::Expired),
            // Asked for too much at the moment, whatever the way of asking.
            429 => Err(Failure::Broken("the API server answered 429".into())),
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
}
