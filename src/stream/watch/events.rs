//! Watches a resource from a version on, and takes what the watch tells, one event after another.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::watch;

use super::lines::{find_newline, skip_line};
use super::turn::Turn;
use super::{Failure, Watcher};
use crate::cluster::{ApiBody, Cluster};
use crate::limits;
use crate::resource::{Identity, ResourceVersion};
use crate::scrub::{Object, Refused, WatchEvent};
use crate::secret::Buffer;
use crate::stream::feed::Reading;
use crate::stream::queue::Item;

/// Lines in a row that name no object and cannot be read, after which an answer counts as broken:
/// each is told in the log, and a server that sends nothing else would fill it.
const UNREADABLE: u32 = 16;

impl Watcher {
    /// Watches from the last version until the watch ends.
    pub(super) async fn watch(&mut self) -> Result<(), Failure> {
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
    pub(super) async fn events(
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
                if !skip_line(body, &mut buffer, self.pulse.silence()).await? {
                    return ended(initial.is_some());
                }
                // What came behind it may be whole already.
                continue;
            }
            let reading = tokio::time::timeout(self.pulse.silence(), body.read(&mut buffer));
            let read = tokio::select! {
                read = reading => read,
                // The next one begins where this one ends: nothing is listed again.
                () = &mut moved, if initial.is_none() => return Ok(()),
            };
            let Ok(read) = read else {
                self.silent();
                return ended(initial.is_some());
            };
            if read? == 0 {
                return ended(initial.is_some());
            }
        }
    }

    /// Nothing came for too long, not even a bookmark: what the watch would have told since is
    /// told by the next one.
    fn silent(&mut self) {
        self.stream.count(|counts| counts.silent += 1);
        tracing::info!(
            account = self.shared.feed.account(),
            stream = %self.stream.gvr,
            scope = %self.stream.scope,
            after = ?self.pulse.silence(),
            "watch fell silent; it is opened again"
        );
        self.pulse.unlearn();
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

    pub(super) async fn upsert(&mut self, object: Object) -> Result<(), Failure> {
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
        if !touched && self.complete && self.tells_definitions() {
            self.shared.feed.definition_changes();
        }
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
        self.seen(version);
        Ok(())
    }

    async fn delete(&mut self, identity: Identity) -> Result<(), Failure> {
        let version = identity.resource_version;
        self.index.remove(&identity.uid);
        if self.tells_definitions() {
            self.shared.feed.definition_changes();
        }
        self.push(Item::Delete(identity)).await?;
        self.stream.count(|counts| {
            counts.received += 1;
            counts.deletes += 1;
        });
        self.seen(version);
        Ok(())
    }

    /// An object that could not be filtered is replaced by its identity, if that is known.
    pub(super) async fn refuse(&mut self, refused: Refused) -> Result<(), Failure> {
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

    /// Whether the stream's objects say which kinds there are.
    pub(super) fn tells_definitions(&self) -> bool {
        self.stream.gvr.resource == "customresourcedefinitions"
    }

    /// Outside snapshots the stream has reached `version`.
    fn seen(&mut self, version: ResourceVersion) {
        if self.complete {
            self.version = self.version.max(version);
        }
    }
}

/// A watch that ended: normal, unless its snapshot was not complete.
fn ended(initial: bool) -> Result<(), Failure> {
    if initial {
        return Err(Failure::Broken(
            "the streaming list was ended before it was complete".into(),
        ));
    }
    Ok(())
}

/// Waits until the next request goes over another connection, with another credential.
pub(super) async fn moved(mut cluster: watch::Receiver<Arc<Cluster>>) {
    if cluster.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
