//! One watch: which changes its reader is told, and how they look on the wire.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::kinds::Kind;
use super::refusal::Refusal;
use super::selector::Selector;
use super::store::{Change, Store, Watch};

/// How long a watch lasts when its reader does not say (the least that kube-apiserver draws).
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(30);

/// Longest watch a reader may ask for.
const LONGEST: Duration = Duration::from_hours(24);

/// What a reader asked for.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) kind: &'static Kind,
    pub(super) namespace: String,
    pub(super) selector: Selector,
    /// Start with the current state as ADDED events.
    pub(super) initial: bool,
    /// Mark the end of the initial events (`WatchList`).
    pub(super) mark_end: bool,
    pub(super) bookmarks: bool,
    pub(super) version: u64,
    pub(super) timeout: Option<Duration>,
}

/// Answers one watch until it times out, its reader goes, or it is too slow.
pub(super) struct Watching {
    store: Arc<Store>,
    wish: Wish,
    frames: mpsc::Sender<Bytes>,
    bookmark_every: Duration,
}

/// The reader has gone.
struct Gone;

impl Watching {
    pub(super) fn new(
        store: Arc<Store>,
        wish: Wish,
        frames: mpsc::Sender<Bytes>,
        bookmark_every: Duration,
    ) -> Self {
        Self {
            store,
            wish,
            frames,
            bookmark_every,
        }
    }

    /// Runs the watch.
    pub(super) async fn run(self, stop: CancellationToken) {
        // A reader that has gone is no failure: its watch simply ends.
        let _ended = stop.run_until_cancelled(self.tell_all()).await;
    }

    async fn tell_all(&self) -> Result<(), Gone> {
        let mut watch = match self.open().await? {
            Ok(watch) => watch,
            Err(refusal) => return self.send("ERROR", &refusal.to_status()).await,
        };
        for change in std::mem::take(&mut watch.missed) {
            self.tell(&change).await?;
        }
        let timeout = self.wish.timeout.unwrap_or(DEFAULT_TIMEOUT).min(LONGEST);
        let end = tokio::time::sleep_until(Instant::now() + timeout);
        tokio::pin!(end);
        let mut ticks = tokio::time::interval(self.bookmark_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            tokio::select! {
                () = &mut end => break,
                () = self.frames.closed() => return Err(Gone),
                _ = ticks.tick(), if self.wish.bookmarks => {
                    // Changes are queued under the lock that counts versions: with an empty
                    // queue all up to this version have been told.
                    let version = self.store.version();
                    if watch.coming.is_empty() {
                        self.bookmark(version, false).await?;
                    }
                }
                change = watch.coming.recv() => match change {
                    Some(change) => self.tell(&change).await?,
                    None => break,
                },
            }
        }
        Ok(())
    }

    /// Opens the watch and tells the initial events.
    async fn open(&self) -> Result<Result<Watch, Refusal>, Gone> {
        let wish = &self.wish;
        let mut version = wish.version;
        if wish.initial {
            let listed = match self.store.list(wish.kind, &wish.namespace, None) {
                Ok(listed) => listed,
                Err(refusal) => return Ok(Err(refusal)),
            };
            version = listed.version;
            for (_, object) in listed.objects {
                if wish.selector.matches(&object) {
                    self.send("ADDED", &object).await?;
                }
            }
            if wish.mark_end {
                self.bookmark(version, true).await?;
            }
        }
        Ok(self.store.watch(wish.kind, &wish.namespace, version))
    }

    /// Tells one change as the selector sees it: an object that no longer matches is DELETED.
    async fn tell(&self, change: &Change) -> Result<(), Gone> {
        let selected = |object: &&Arc<Value>| self.wish.selector.matches(object);
        let before = change.before.as_ref().filter(selected);
        let after = change.after.as_ref().filter(selected);
        match (before, after) {
            (None, Some(after)) => self.send("ADDED", after).await,
            (Some(_), Some(after)) => self.send("MODIFIED", after).await,
            (Some(before), None) => {
                let mut last = Value::clone(before);
                if let Some(version) = last.pointer_mut("/metadata/resourceVersion") {
                    *version = change.version.to_string().into();
                }
                self.send("DELETED", &last).await
            }
            (None, None) => Ok(()),
        }
    }

    async fn bookmark(&self, version: u64, end_of_initial: bool) -> Result<(), Gone> {
        let mut metadata =
            json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        if let (true, Some(metadata)) = (end_of_initial, metadata.as_object_mut()) {
            let mark = json!({"k8s.io/initial-events-end": "true"});
            metadata.insert("annotations".into(), mark);
        }
        let object = json!({
            "kind": self.wish.kind.name, "apiVersion": self.wish.kind.api_version(),
            "metadata": metadata,
        });
        self.send("BOOKMARK", &object).await
    }

    async fn send(&self, what: &str, object: &Value) -> Result<(), Gone> {
        let mut line = format!("{{\"type\":\"{what}\",\"object\":{object}}}");
        line.push('\n');
        let sent = self.frames.send(line.into()).await;
        sent.map_err(|_closed| Gone)
    }
}
