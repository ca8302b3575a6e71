//! Watches from the view.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::body::{Body, streamed, whole};
use super::port::{Level, Served, Upstream};
use super::query::Accepts;
use super::read::{is_settled, tell_age, unavailable, unknown_namespaces};
use super::service::{Answer, Asked, Facade};
use super::status::{Failure, respond};
use super::{BOOKMARK_INTERVAL, FENCE_PATIENCE, WATCH_LIFETIME};
use crate::resource::{self, ResourceVersion};
use crate::view::{Event, From, Object, WatchError, Watcher};

/// Marks the bookmark after the initial events (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

impl<U: Upstream> Facade<U> {
    /// GET of a collection with `watch`.
    pub(super) async fn watch(&self, asked: &Asked<'_>) -> Answer {
        let account = asked.account;
        let connected = account.is_connected();
        let beyond = asked.is_beyond_namespaces();
        let is_plain = asked.is_for_view(Accepts::of(asked.headers));
        // A watch on one object's path is an old form that only the API server knows.
        let selector = asked.selector();
        let is_live = asked.kind.level == Level::Live || asked.only_cluster_selects(&selector);
        if is_live || !is_plain || asked.target.name.is_some() {
            return self.forward_read(asked).await;
        }
        let selector = selector?;
        if connected && !is_settled(asked, FENCE_PATIENCE).await {
            return if beyond {
                Err(unknown_namespaces())
            } else {
                self.forward_read(asked).await
            };
        }
        let gvr = &asked.target.gvr;
        let place = asked.list_place();
        let age = match account.view.age(gvr, place) {
            Ok(age) => account.age(self.clock.now(), age),
            Err(_) if connected && !beyond => return self.forward_read(asked).await,
            Err(error) => return Err(unavailable(error)),
        };
        if account.is_too_old(age) {
            return Err(Failure::unavailable("the last known state is too old"));
        }
        let watcher = account.view.watch(gvr, place, selector, asked.from());
        let body = match watcher {
            Ok(watcher) => Watching::new(asked, watcher).into_body(),
            // As the API server does: told as the first event.
            Err(error) => whole(error_line(&failure(error))),
        };
        let mut response = respond(StatusCode::OK, "application/json", body);
        tell_age(&mut response, age.unwrap_or_default());
        Ok((response, Served::View))
    }
}

impl Asked<'_> {
    fn from(&self) -> From {
        let version = ResourceVersion::parse(self.query.get("resourceVersion"));
        let version = version.filter(|version| *version != ResourceVersion::ZERO);
        let initial = self.query.get("sendInitialEvents");
        match (version, initial) {
            (None, "false" | "0") => From::Now,
            _ if self.query.flag("sendInitialEvents") => From::Start,
            (Some(version), _) => From::Version(version),
            (None, _) => From::Start,
        }
    }
}

/// A watch that is being written.
struct Watching {
    watcher: Watcher,
    kind: resource::Kind,
    bookmarks: bool,
    tells_initial_end: bool,
    next_bookmark: Instant,
    ends: Instant,
}

impl Watching {
    fn new(asked: &Asked<'_>, watcher: Watcher) -> Self {
        let lifetime = asked.query.get("timeoutSeconds").parse().ok();
        let lifetime = lifetime
            .filter(|seconds| *seconds > 0)
            .map_or(WATCH_LIFETIME, Duration::from_secs)
            .min(WATCH_LIFETIME);
        let now = Instant::now();
        Self {
            watcher,
            kind: asked.kind.resource.clone(),
            bookmarks: asked.query.flag("allowWatchBookmarks"),
            tells_initial_end: asked.query.flag("sendInitialEvents"),
            next_bookmark: now + BOOKMARK_INTERVAL,
            ends: now + lifetime,
        }
    }

    fn into_body(self) -> Body {
        streamed(stream::unfold(Some(self), |watching| async move {
            let mut watching = watching?;
            let (line, goes_on) = watching.line().await;
            Some((Ok(line), goes_on.then_some(watching)))
        }))
    }

    /// The next line, and whether another one follows.
    async fn line(&mut self) -> (Bytes, bool) {
        loop {
            let wake = if self.bookmarks {
                self.ends.min(self.next_bookmark)
            } else {
                self.ends
            };
            match timeout_at(wake, self.watcher.next()).await {
                Ok(Ok(Event::Added(object))) => return (object_line("ADDED", &object), true),
                Ok(Ok(Event::Modified(object))) => return (object_line("MODIFIED", &object), true),
                Ok(Ok(Event::Deleted(object))) => return (object_line("DELETED", &object), true),
                Ok(Ok(Event::Bookmark(version))) => {
                    if self.tells_initial_end {
                        return (self.bookmark_line(version, true), true);
                    }
                }
                Ok(Err(error)) => return (error_line(&failure(error)), false),
                Err(_elapsed) => {
                    let now = Instant::now();
                    self.next_bookmark = now + BOOKMARK_INTERVAL;
                    let goes_on = now < self.ends;
                    match self.watcher.bookmark() {
                        Ok(Some(version)) if self.bookmarks => {
                            return (self.bookmark_line(version, false), goes_on);
                        }
                        Ok(_) if goes_on => {}
                        Ok(_) => return (Bytes::new(), false),
                        Err(error) => return (error_line(&failure(error)), false),
                    }
                }
            }
        }
    }

    fn bookmark_line(&self, version: ResourceVersion, ends_initial: bool) -> Bytes {
        let mut metadata = json!({
            "resourceVersion": version.to_string(),
            "creationTimestamp": null,
        });
        if let (Value::Object(metadata), true) = (&mut metadata, ends_initial) {
            metadata.insert("annotations".into(), json!({ INITIAL_EVENTS_END: "true" }));
        }
        let bookmark = json!({
            "type": "BOOKMARK",
            "object": {
                "kind": self.kind.kind,
                "apiVersion": self.kind.gvr.api_version(),
                "metadata": metadata,
            },
        });
        Bytes::from(format!("{bookmark}\n"))
    }
}

fn object_line(kind: &str, object: &Object) -> Bytes {
    let mut line = BytesMut::with_capacity(object.json_bytes() + 64);
    line.put_slice(b"{\"type\":\"");
    line.put_slice(kind.as_bytes());
    line.put_slice(b"\",\"object\":");
    object.write_json(&mut line);
    line.put_slice(b"}\n");
    line.freeze()
}

fn failure(error: WatchError) -> Failure {
    match error {
        WatchError::Gone => Failure::expired(),
        WatchError::Unavailable(error) => unavailable(error),
    }
}

fn error_line(failure: &Failure) -> Bytes {
    let event = json!({ "type": "ERROR", "object": failure.status() });
    Bytes::from(format!("{event}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_version_is_an_error_event() {
        let line = error_line(&failure(WatchError::Gone));
        let event: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(event["type"], "ERROR");
        assert_eq!(event["object"]["code"], 410);
        assert_eq!(event["object"]["reason"], "Expired");
    }
}
