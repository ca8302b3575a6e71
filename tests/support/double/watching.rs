//! Watches of the double.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::StatusCode;
use tokio::time::{Instant, sleep_until};

use super::discovery::failure;
use super::object::{Instance, Template};
use super::serve::{Shared, Target};
use crate::support::flights::Flight;

/// Events rendered into one chunk.
const CHUNK_EVENTS: usize = 16;

/// Seconds after which a watch ends that does not say when.
const DEFAULT_TIMEOUT_SECONDS: u64 = 3600;

/// What a watch sends next.
enum Phase {
    /// The objects as they are, from this number on; then a bookmark if `bookmark`.
    Initial {
        number: usize,
        bookmark: bool,
        end: u64,
    },
    /// What happens, from this position on.
    Live {
        position: u64,
    },
    /// The version is too old.
    Expired,
    Over,
}

struct Watch {
    shared: Arc<Shared>,
    target: Target,
    template: Arc<Template>,
    phase: Phase,
    closes: u64,
    silences: u64,
    next_bookmark: Instant,
    ends: Instant,
    /// Until the initial objects have been told.
    flight: Option<Flight>,
}

/// The events of a watch, in chunks.
pub(crate) fn events(
    shared: Arc<Shared>,
    target: Target,
    flight: Option<Flight>,
) -> impl Stream<Item = Bytes> + Send {
    let mut inner = shared.store.lock();
    let collection = inner.collection(target.kind.resource);
    let version = target
        .query
        .get("resourceVersion")
        .and_then(|text| text.parse().ok());
    let initial = target.flag("sendInitialEvents");
    let phase = match version {
        Some(version) if version > 0 && !initial => match collection.after(version) {
            Some(position) => Phase::Live { position },
            None => Phase::Expired,
        },
        _ => Phase::Initial {
            number: 0,
            bookmark: initial,
            end: collection.end(),
        },
    };
    let template = Arc::clone(&collection.template);
    drop(inner);
    let seconds = target
        .query
        .get("timeoutSeconds")
        .and_then(|text| text.parse().ok());
    let now = Instant::now();
    let closes = *shared.store.closes.borrow();
    let silences = *shared.store.silences.borrow();
    let watch = Watch {
        template,
        phase,
        closes,
        silences,
        next_bookmark: now + shared.settings.bookmark_every,
        ends: now + std::time::Duration::from_secs(seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS)),
        shared,
        target,
        flight,
    };
    stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((Bytes::from(chunk), watch))
    })
}

impl Watch {
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            self.shared.thawed().await;
            if *self.shared.store.silences.borrow() != self.silences {
                std::future::pending::<()>().await;
            }
            if *self.shared.store.closes.borrow() != self.closes || Instant::now() >= self.ends {
                return None;
            }
            let chunk = match self.phase {
                Phase::Initial {
                    number,
                    bookmark,
                    end,
                } => self.initial(number, bookmark, end),
                Phase::Live { position } => self.live(position).await,
                Phase::Expired => {
                    self.phase = Phase::Over;
                    let status = failure(StatusCode::GONE);
                    format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n").into_bytes()
                }
                Phase::Over => return None,
            };
            if !chunk.is_empty() {
                return Some(chunk);
            }
        }
    }

    fn initial(&mut self, number: usize, bookmark: bool, end: u64) -> Vec<u8> {
        let found: Vec<Instance> = {
            let mut inner = self.shared.store.lock();
            let collection = inner.collection(self.target.kind.resource);
            collection.from(number).take(CHUNK_EVENTS).collect()
        };
        let mut out = Vec::new();
        for instance in &found {
            self.event(&mut out, "ADDED", *instance);
        }
        if let Some(last) = found.last() {
            self.phase = Phase::Initial {
                number: last.number + 1,
                bookmark,
                end,
            };
            return out;
        }
        // What changed while the objects were sent is told again rather than missed.
        self.phase = Phase::Live { position: end };
        self.flight = None;
        if bookmark {
            let annotations = r#","annotations":{"k8s.io/initial-events-end":"true"}"#;
            self.bookmark(&mut out, annotations);
        }
        out
    }

    async fn live(&mut self, position: u64) -> Vec<u8> {
        let store = &self.shared.store;
        let mut version = store.version.subscribe(); // before reading: no change is missed
        let read = store
            .lock()
            .collection(self.target.kind.resource)
            .read(position, CHUNK_EVENTS);
        let Some(entries) = read else {
            self.phase = Phase::Over; // too slow: the log has moved on
            return Vec::new();
        };
        let mut out = Vec::new();
        self.phase = Phase::Live {
            position: position + entries.len() as u64,
        };
        for entry in &entries {
            let times = if self.shared.faulty { entry.faulty } else { 1 };
            for _ in 0..times {
                self.event(&mut out, entry.change.event(), entry.instance);
            }
        }
        if !entries.is_empty() {
            return out;
        }
        let mut closes = store.closes.subscribe();
        let mut silences = store.silences.subscribe();
        let heard = self.silences;
        let mut frozen = store.frozen.subscribe();
        let mut shut = self.shared.frozen.subscribe();
        let opened = self.closes;
        tokio::select! {
            _ = version.changed() => {}
            _ = closes.wait_for(|closes| *closes != opened) => {}
            _ = silences.wait_for(|silences| *silences != heard) => {}
            _ = frozen.wait_for(|frozen| *frozen) => {}
            _ = shut.wait_for(|frozen| *frozen) => {}
            () = sleep_until(self.next_bookmark.min(self.ends)) => {
                self.next_bookmark = Instant::now() + self.shared.settings.bookmark_every;
                if self.target.flag("allowWatchBookmarks") {
                    self.bookmark(&mut out, "");
                }
            }
        }
        out
    }

    fn event(&self, out: &mut Vec<u8>, name: &str, instance: Instance) {
        if !self.target.takes(&self.template.namespace(instance.number)) {
            return;
        }
        out.extend_from_slice(format!("{{\"type\":\"{name}\",\"object\":").as_bytes());
        self.template.render(out, instance, true);
        out.extend_from_slice(b"}\n");
    }

    fn bookmark(&self, out: &mut Vec<u8>, annotations: &str) {
        let (kind, version) = (self.target.kind, *self.shared.store.version.borrow());
        let text = format!(
            r#"{{"type":"BOOKMARK","object":{{"kind":"{}","apiVersion":"{}","metadata":{{"resourceVersion":"{version}","creationTimestamp":null{annotations}}}}}}}"#,
            kind.name,
            kind.api_version(),
        );
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }
}
