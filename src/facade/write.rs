//! Writes: sent once, and fenced so that the next read sees them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use serde::Deserialize;

use super::ANSWER_READ_BYTES;
use super::body::{self, Body};
use super::live;
use super::port::{CloseConnection, Level, LiveAnswer, LiveBody, Served, Upstream, UpstreamError};
use super::query::essence;
use super::service::{Answer, Asked, Facade};
use super::status::Failure;
use crate::limits::ANSWER_TIMEOUT;
use crate::resource::{Gvr, ResourceVersion, Verb};
use crate::view::View;

impl<U: Upstream> Facade<U> {
    /// Every verb that is not a read.
    pub(super) async fn write<B>(&self, asked: &Asked<'_>, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send,
    {
        let answer = self.send_write(asked, body).await;
        if !asked.kind.masked {
            return answer;
        }
        let (mut response, served) =
            answer.unwrap_or_else(|failure| (failure.response(), Served::Facade));
        response.extensions_mut().insert(CloseConnection);
        Ok((response, served))
    }

    async fn send_write<B>(&self, asked: &Asked<'_>, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send,
    {
        if !asked.account.is_connected() {
            return Err(UpstreamError::Away.into());
        }
        let body = body::collect(body).await?;
        let is_dry_run = !asked.query.get("dryRun").is_empty() || deletes_dry(asked, &body);
        let mut pending = Pending::new(asked);
        if is_dry_run {
            pending.settle();
        }
        let request = live::request(
            asked.method,
            asked.live_target(),
            asked.headers,
            body,
            ANSWER_TIMEOUT,
        );
        let sent = self.upstream.send(asked.account, asked.client, request);
        let answer = match tokio::time::timeout(ANSWER_TIMEOUT, sent).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(UpstreamError::OutcomeUnknown),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if was_not_sent(&error) {
                    pending.settle();
                }
                return Err(error.into());
            }
        };
        if answer.status == StatusCode::UNAUTHORIZED {
            pending.settle();
            let message = "the cluster answered 401 to the agent";
            return Err(Failure::unavailable(message));
        }
        if answer.status.is_success() && pending.is_open() {
            return Ok((fenced(asked, answer, &mut pending).await, Served::Live));
        }
        if !answer.status.is_server_error() {
            pending.settle();
        }
        Ok((live::response(answer), Served::Live))
    }
}

/// A write whose effect is not known. Unless it is settled, its collection is fenced when this is
/// dropped: also when the client goes away while the write is under way.
struct Pending {
    view: Arc<View>,
    /// The versions of the resource that the view has: what is written in one is seen in all.
    resources: Vec<Gvr>,
    place: Option<String>,
    open: bool,
}

impl Pending {
    fn new(asked: &Asked<'_>) -> Self {
        let written = &asked.target.gvr;
        let is_same = |gvr: &Gvr| gvr.group == written.group && gvr.resource == written.resource;
        let kinds = asked.account.discovery.iter();
        let cached = kinds.filter(|kind| kind.level == Level::Cached);
        let resources: Vec<Gvr> = cached
            .map(|kind| kind.resource.gvr.clone())
            .filter(is_same)
            .collect();
        Self {
            view: Arc::clone(&asked.account.view),
            open: !resources.is_empty(),
            resources,
            place: asked.place().map(str::to_owned),
        }
    }

    const fn settle(&mut self) {
        self.open = false;
    }

    const fn is_open(&self) -> bool {
        self.open
    }

    fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    fn fence_collection(&self) {
        for gvr in &self.resources {
            self.view.fence_collection(gvr, self.place());
        }
    }

    fn fence(&self, version: ResourceVersion) {
        for gvr in &self.resources {
            self.view.fence(gvr, self.place(), version);
        }
    }

    fn fence_delete(&self, name: &str, uid: &str) {
        for gvr in &self.resources {
            // Namespaces themselves are in none.
            let space = self.place().filter(|_| !gvr.is_namespaces());
            self.view.fence_delete(gvr, space, name, uid);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.open {
            self.fence_collection();
        }
    }
}

fn was_not_sent(error: &UpstreamError) -> bool {
    matches!(
        error,
        UpstreamError::Away | UpstreamError::Busy | UpstreamError::Refused { .. }
    )
}

/// Whether the options in the body of a deletion say that nothing is to be done.
fn deletes_dry(asked: &Asked<'_>, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Options {
        #[serde(rename = "dryRun", default)]
        dry_run: Vec<String>,
    }
    matches!(asked.target.verb, Verb::Delete | Verb::DeleteCollection)
        && serde_json::from_slice(body).is_ok_and(|options: Options| !options.dry_run.is_empty())
}

/// What is read from the answer to a write: an object, or a `Status` about one.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    metadata: WrittenMetadata,
    #[serde(default)]
    details: Option<WrittenDetails>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMetadata {
    resource_version: Option<String>,
    uid: Option<String>,
}

#[derive(Deserialize)]
struct WrittenDetails {
    uid: Option<String>,
}

/// Reads what the answer says about its effect, fences it, and passes the answer on. The fence is
/// set before the client can know that the write is done.
async fn fenced(asked: &Asked<'_>, answer: LiveAnswer, pending: &mut Pending) -> Response<Body> {
    let is_json = answer
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| essence(kind) == "application/json");
    let LiveAnswer {
        status,
        headers,
        body,
    } = answer;
    let (read, body) = read_whole(body).await;
    let written = read
        .filter(|_| is_json)
        .and_then(|bytes| serde_json::from_slice::<Written>(&bytes).ok());
    if !written.is_some_and(|written| fence(asked, pending, written)) {
        // Now, and not with the drop: the client must not read before the fence stands.
        pending.fence_collection();
    }
    pending.settle();
    live::response(LiveAnswer {
        status,
        headers,
        body,
    })
}

/// Fences what was written; false if the answer does not say what that was.
fn fence(asked: &Asked<'_>, pending: &Pending, written: Written) -> bool {
    let version = written.metadata.resource_version;
    let version = version.as_deref().and_then(ResourceVersion::parse);
    match (asked.target.verb, &asked.target.name) {
        // The version of a deleted collection's list is that before the deletion.
        (Verb::DeleteCollection, _) => false,
        (Verb::Delete, Some(name)) => {
            let details = written.details.and_then(|details| details.uid);
            let Some(uid) = written.metadata.uid.or(details) else {
                return false;
            };
            if let Some(version) = version {
                pending.fence(version);
            }
            pending.fence_delete(name, &uid);
            true
        }
        _ => version.is_some_and(|version| {
            pending.fence(version);
            true
        }),
    }
}

/// Reads a body up to [`ANSWER_READ_BYTES`]; `None` if it is larger or broke off. The body that
/// comes back is whole either way.
async fn read_whole(mut body: LiveBody) -> (Option<Bytes>, LiveBody) {
    let mut read = BytesMut::new();
    while let Some(piece) = body.next().await {
        match piece {
            Ok(bytes) => read.extend_from_slice(&bytes),
            Err(error) => {
                let pieces = stream::iter([Ok(read.freeze()), Err(error)]);
                return (None, pieces.boxed());
            }
        }
        if read.len() > ANSWER_READ_BYTES {
            let first = stream::iter([Ok(read.freeze())]);
            return (None, first.chain(body).boxed());
        }
    }
    let read = read.freeze();
    let whole = stream::iter([Ok(read.clone())]);
    (Some(read), whole.boxed())
}
