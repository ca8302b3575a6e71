//! Tells all objects of a resource at once, and what came of it.

use std::fmt::Write as _;

use super::turn::Turn;
use super::{FORCED_ENDS, Failure, PAGE, Rung, Watcher};
use crate::cluster::ApiBody;
use crate::limits;
use crate::resource::ResourceVersion;
use crate::scrub::{ListEnd, ListScanner, ListStep};
use crate::secret::Buffer;
use crate::stream::feed::Reading;
use crate::stream::queue::Item;

impl Watcher {
    /// Tells the hub everything there is, by the way that this API server serves.
    pub(super) async fn snapshot(&mut self) -> Result<(), Failure> {
        let turn = Turn::wait(&self.shared.snapshots, self.shared.feed.quota()).await;
        let Some(turn) = turn else {
            return Err(Failure::OtherEpoch);
        };
        let watchdog = turn.watchdog(&self.shared.feed, &self.stream);
        if self.forced_ends >= FORCED_ENDS && self.rung != Rung::PagedList {
            self.descend("the list broke off again and again");
            self.forced_ends = 0;
        }
        self.stream.count(|counts| counts.snapshots += 1);
        // While a snapshot runs, versions of its objects are not what the stream has reached.
        self.complete = false;
        let had = self.version > ResourceVersion::ZERO;
        self.index.begin_snapshot();
        let step = tokio::select! {
            step = self.tell(turn) => step,
            () = watchdog.stalled() => {
                Err(Failure::Broken("the list stopped before it was complete".into()))
            }
        };
        self.complete |= had;
        let broke_off = matches!(step, Err(Failure::Broken(_) | Failure::Cluster(_)));
        self.forced_ends += u32::from(broke_off && self.answered && self.needs_snapshot);
        step
    }

    async fn tell(&mut self, turn: Turn) -> Result<(), Failure> {
        match self.rung {
            Rung::StreamingList => self.streaming_list(turn).await,
            Rung::List => self.list(None, turn).await,
            Rung::PagedList => self.list(Some(PAGE), turn).await,
        }
    }

    async fn streaming_list(&mut self, turn: Turn) -> Result<(), Failure> {
        let query = format!(
            "watch=true&allowWatchBookmarks=true&sendInitialEvents=true\
             &resourceVersionMatch=NotOlderThan&timeoutSeconds={}",
            self.watch_seconds(),
        );
        let mut body = self.get(&query, true).await?;
        self.push(Item::SnapshotBegin).await?;
        self.events(&mut body, Some(turn)).await
    }

    async fn list(&mut self, page: Option<usize>, _turn: Turn) -> Result<(), Failure> {
        self.push(Item::SnapshotBegin).await?;
        let mut continued: Option<String> = None;
        loop {
            let query = match (&continued, page) {
                (Some(token), Some(page)) => format!("limit={page}&continue={}", encode(token)),
                (_, Some(page)) => format!("limit={page}"),
                (_, None) => "resourceVersion=0".to_owned(),
            };
            let mut body = self.get(&query, false).await?;
            let end = self.items(&mut body).await?;
            match end.continue_token {
                Some(token) if page.is_some() => continued = Some(token),
                _ => {
                    let Some(version) = end.resource_version else {
                        return Err(Failure::Broken("the list tells no version".into()));
                    };
                    return self.end_snapshot(version).await;
                }
            }
        }
    }

    /// Reads a list item by item; no more than one item is ever held.
    async fn items(&mut self, body: &mut ApiBody) -> Result<ListEnd, Failure> {
        let mut buffer = Buffer::new(limits::RAW_OBJECT_BYTES);
        let mut scanner = ListScanner::new();
        loop {
            match scanner.step(buffer.filled()) {
                Ok(ListStep::Item { at, consume }) => {
                    let item = buffer.filled().get(at).unwrap_or_default();
                    let object = self.filter.item(item);
                    buffer.consume(consume);
                    match object {
                        Ok(object) => self.upsert(object).await?,
                        Err(refused) => self.refuse(refused).await?,
                    }
                }
                Ok(
                    ListStep::Progress { consume }
                    | ListStep::ItemsBegin { consume }
                    | ListStep::Member { consume, .. },
                ) => buffer.consume(consume),
                Ok(ListStep::End { list, .. }) => return Ok(list),
                Ok(ListStep::More) => {
                    let full = buffer.space().is_empty();
                    if full || body.read(&mut buffer).await? == 0 {
                        let why = if full {
                            "holds an object that is too large"
                        } else {
                            "broke off"
                        };
                        return Err(Failure::Broken(format!("the list {why}")));
                    }
                }
                Err(refused) => {
                    let why = format!("the list cannot be read: {}", refused.label);
                    return Err(Failure::Broken(why));
                }
            }
        }
    }

    pub(super) async fn end_snapshot(&mut self, version: ResourceVersion) -> Result<(), Failure> {
        self.push(Item::SnapshotEnd(version)).await?;
        self.version = version;
        self.complete = true;
        // Also when the same answer goes on as a watch, and breaks.
        self.needs_snapshot = false;
        self.forced_ends = 0;
        self.index.end_snapshot();
        self.tell_reading(Reading::Live).await
    }
}

/// Percent-encodes what is not unreserved (RFC 3986 §2.3).
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _fits = write!(out, "%{byte:02X}");
        }
    }
    out
}
