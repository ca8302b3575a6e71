//! Reads: one object live if it can be had, lists from the view once it has seen every write.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream;
use http::header::{AGE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use zeroize::Zeroizing;

use super::FENCE_PATIENCE;
use super::body::{self, Body, Written};
use super::live;
use super::namespaces::namespace;
use super::port::{
    Account, Freshness, Level, LiveAnswer, LiveBody, Served, Upstream, UpstreamError,
};
use super::query::Accepts;
use super::service::{Answer, Asked, Facade};
use super::status::{Failure, respond};
use crate::limits::{ANSWER_TIMEOUT, LIVE_READ_TIMEOUT};
use crate::resource::ResourceVersion;
use crate::view::{Listing, Object, Selector, SelectorError, Settled, Unavailable};

/// Bytes of a live list in which the version of the collection is looked for.
const LIST_HEAD_BYTES: usize = 4096;

impl Account {
    pub(super) fn is_connected(&self) -> bool {
        self.freshness == Freshness::Connected
    }

    /// How old at `now` what the view knows is; `None` if nobody can tell.
    pub(super) fn age(&self, now: SystemTime, known: Duration) -> Option<Duration> {
        match self.freshness {
            Freshness::Connected => Some(known),
            Freshness::Away { since } => {
                let away = now.duration_since(since).unwrap_or_default();
                Some(away.max(known))
            }
            Freshness::Unknown => None,
        }
    }

    /// Whether a state of this age is too old to be told.
    pub(super) fn is_too_old(&self, age: Option<Duration>) -> bool {
        age.is_none_or(|age| age > self.max_stale)
    }
}

impl<U: Upstream> Facade<U> {
    /// Sends a read to the cluster.
    pub(super) async fn send_read(
        &self,
        asked: &Asked<'_>,
        timeout: Duration,
    ) -> Result<LiveAnswer, UpstreamError> {
        if !asked.account.is_connected() {
            return Err(UpstreamError::Away);
        }
        let request = live::request(
            asked.method,
            asked.live_target(),
            asked.headers,
            Zeroizing::default(),
            timeout,
        );
        let sent = self.upstream.send(asked.account, asked.client, request);
        match tokio::time::timeout(timeout, sent).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(UpstreamError::TimedOut),
        }
    }

    /// A read that only the cluster can answer: live kinds, subresources, tables.
    pub(super) async fn forward_read(&self, asked: &Asked<'_>) -> Answer {
        let answer = self.send_read(asked, ANSWER_TIMEOUT).await?;
        let is_cached = asked.kind.level == Level::Cached && asked.target.subresource.is_none();
        // The agent's own credential is not the client's business; that of a watched kind is an
        // outage of it.
        let refused = answer.status == StatusCode::UNAUTHORIZED
            || (is_cached && answer.status == StatusCode::FORBIDDEN);
        if refused {
            return Err(refused_by_cluster(answer.status));
        }
        Ok((read_response(answer), Served::Live))
    }

    /// GET of one object.
    pub(super) async fn get(&self, asked: &Asked<'_>) -> Answer {
        if asked.kind.level == Level::Live {
            return self.forward_read(asked).await;
        }
        let failure = match self.send_read(asked, asked.patience()).await {
            Ok(answer) if !live::is_outage(answer.status) => {
                return Ok((read_response(answer), Served::Live));
            }
            Ok(answer) => refused_by_cluster(answer.status),
            Err(error) if is_answer(&error) => return Err(error.into()),
            Err(error) => Failure::from(error),
        };
        if !Accepts::of(asked.headers).plain_json {
            return Err(failure);
        }
        self.get_from_view(asked, failure).await
    }

    async fn get_from_view(&self, asked: &Asked<'_>, failure: Failure) -> Answer {
        let account = asked.account;
        let gvr = &asked.target.gvr;
        let view = &account.view;
        // A namespace of a limited account is known by its name, whatever else is.
        let named = asked.target.name.as_deref().unwrap_or_default();
        let limited = gvr.is_namespaces() && account.namespaces.iter().any(|it| it == named);
        let known = view.age(gvr, asked.place());
        let age = match known {
            Ok(age) => account.age(self.clock.now(), age),
            Err(_) if limited => return Ok((object_response(&namespace(named)), Served::Facade)),
            Err(_) => return Err(failure),
        };
        let waits = account.is_connected() && !is_settled(asked, Duration::ZERO).await;
        if waits || (account.is_too_old(age) && !limited) {
            return Err(failure);
        }
        let space = if gvr.is_namespaces() {
            None
        } else {
            asked.place()
        };
        match view.get(gvr, space.unwrap_or_default(), named) {
            Some(object) => {
                let mut response = object_response(&object);
                tell_age(&mut response, age.unwrap_or_default());
                Ok((response, Served::View))
            }
            None => Err(Failure::no_object(&gvr.resource, &gvr.group, named)),
        }
    }

    /// GET of a collection.
    pub(super) async fn list(&self, asked: &Asked<'_>) -> Answer {
        // Only who began a list in pieces, which is the cluster, knows how it goes on.
        let begun = !asked.query.get("continue").is_empty();
        let selector = asked.selector();
        if asked.kind.level == Level::Live || begun || asked.only_cluster_selects(&selector) {
            return self.forward_read(asked).await;
        }
        let accepts = Accepts::of(asked.headers);
        let account = asked.account;
        let limited = asked.is_limited();
        let beyond = asked.is_beyond_namespaces();
        if asked.is_for_view(accepts) || limited {
            if !accepts.plain_json {
                return Err(Failure::not_acceptable());
            }
            let selector = selector.clone()?;
            if limited {
                return Ok(self.limited_namespaces(asked, &selector));
            }
            let settled = !account.is_connected() || is_settled(asked, FENCE_PATIENCE).await;
            if settled && let Some(answer) = self.list_from_view(asked, &selector) {
                return Ok(answer);
            }
        }
        if beyond {
            return Err(unknown_namespaces());
        }
        let fences = account.view.collection_fences(&asked.target.gvr);
        let failure = match self.send_read(asked, ANSWER_TIMEOUT).await {
            Ok(answer) if !live::is_outage(answer.status) => {
                return Ok((live_list(asked, answer, fences).await, Served::Live));
            }
            Ok(answer) => refused_by_cluster(answer.status),
            Err(error) if is_answer(&error) => return Err(error.into()),
            Err(error) => Failure::from(error),
        };
        // A table could not be had; what is known in plain form can.
        let settled = !account.is_connected() || is_settled(asked, Duration::ZERO).await;
        if accepts.plain_json
            && settled
            && let Some(answer) = self.list_from_view(asked, &selector?)
        {
            return Ok(answer);
        }
        Err(failure)
    }

    /// The list as the view has it; `None` if it has none, or none that is new enough.
    fn list_from_view(
        &self,
        asked: &Asked<'_>,
        selector: &Selector,
    ) -> Option<(Response<Body>, Served)> {
        let account = asked.account;
        let gvr = &asked.target.gvr;
        let listing = account.view.list(gvr, asked.list_place(), selector).ok()?;
        let age = account.age(self.clock.now(), listing.age);
        // Without its namespaces Clouddriver evicts all it knows, so these have no limit of age.
        if !gvr.is_namespaces() && account.is_too_old(age) {
            return None;
        }
        if account.is_connected() && !asked.is_new_enough(listing.version) {
            return None;
        }
        let mut response = list_response(asked, listing);
        tell_age(&mut response, age.unwrap_or_default());
        Some((response, Served::View))
    }
}

impl Asked<'_> {
    /// How long a live read of one object may take: not long, if the view has it otherwise.
    fn patience(&self) -> Duration {
        let view = &self.account.view;
        match view.age(&self.target.gvr, self.place()) {
            Ok(_known) => LIVE_READ_TIMEOUT,
            Err(_unavailable) => ANSWER_TIMEOUT,
        }
    }

    pub(super) fn selector(&self) -> Result<Selector, SelectorError> {
        let (labels, fields) = (
            self.query.get("labelSelector"),
            self.query.get("fieldSelector"),
        );
        Selector::parse(&self.target.gvr, labels, fields)
    }

    /// Whether only the cluster selects so: by a field that the view does not know, such as one of
    /// a custom resource.
    pub(super) fn only_cluster_selects(&self, selector: &Result<Selector, SelectorError>) -> bool {
        matches!(selector, Err(SelectorError::Unsupported(_))) && !self.is_limited()
    }

    /// Whether namespaces are asked for that the agent's configuration names, one by one.
    fn is_limited(&self) -> bool {
        self.target.gvr.is_namespaces() && !self.account.namespaces.is_empty()
    }

    /// Whether all namespaces are asked for of an account that has some only: the view answers for
    /// these, and the cluster must not be asked for more.
    pub(super) fn is_beyond_namespaces(&self) -> bool {
        self.kind.resource.namespaced
            && self.target.namespace.is_none()
            && !self.account.namespaces.is_empty()
    }

    /// Whether the client takes a list or watch as the view writes it, rather than what only the
    /// cluster can make of it.
    pub(super) fn is_for_view(&self, accepts: Accepts) -> bool {
        let transformed = accepts.transformed && self.account.is_connected();
        accepts.plain_json && (!transformed || self.is_beyond_namespaces())
    }

    /// The namespace whose objects are listed; a list of `namespaces` is not within one.
    pub(super) fn list_place(&self) -> Option<&str> {
        if self.target.gvr.is_namespaces() {
            None
        } else {
            self.place()
        }
    }

    /// Whether a list at `version` is what the query's `resourceVersion` asks for.
    fn is_new_enough(&self, version: ResourceVersion) -> bool {
        let wanted = ResourceVersion::parse(self.query.get("resourceVersion")).unwrap_or_default();
        match self.query.get("resourceVersionMatch") {
            "Exact" => version == wanted,
            _ => version >= wanted,
        }
    }
}

/// Whether an error is what the agent says about the request itself, and not an outage.
fn is_answer(error: &UpstreamError) -> bool {
    matches!(
        error,
        UpstreamError::Refused { .. } | UpstreamError::Unfilterable
    )
}

/// Of the namespaces of a limited account, the view does not know all yet, or not any more.
pub(super) fn unknown_namespaces() -> Failure {
    Failure::unavailable(
        "the objects of this account's namespaces are not known at the moment; \
         `sortie get accounts` tells why",
    )
}

fn refused_by_cluster(status: StatusCode) -> Failure {
    Failure::unavailable(format!(
        "the cluster answered {} to the agent",
        status.as_u16()
    ))
}

pub(super) async fn is_settled(asked: &Asked<'_>, patience: Duration) -> bool {
    let view = &asked.account.view;
    view.settled(&asked.target.gvr, asked.list_place(), patience)
        .await
        == Settled::Yes
}

/// A live answer to a read. kubectl repeats a read that it is told to come back for ten times.
fn read_response(answer: LiveAnswer) -> Response<Body> {
    let mut response = live::response(answer);
    response.headers_mut().remove(RETRY_AFTER);
    response
}

/// Passes a live list on, and tells the view at which version it was, and which of its fences
/// stood when the list was asked for.
async fn live_list(asked: &Asked<'_>, answer: LiveAnswer, fences: u64) -> Response<Body> {
    let LiveAnswer {
        status,
        headers,
        body,
    } = answer;
    let (head, body) = peek(body).await;
    // With another resourceVersion the API server may answer from its own cache.
    if status == StatusCode::OK
        && asked.query.get("resourceVersion").is_empty()
        && let Some(version) = list_version(&head)
    {
        let view = &asked.account.view;
        view.collection_seen(&asked.target.gvr, asked.list_place(), version, fences);
    }
    read_response(LiveAnswer {
        status,
        headers,
        body,
    })
}

/// The first bytes of a body, and the whole body.
async fn peek(mut body: LiveBody) -> (Vec<u8>, LiveBody) {
    let mut pieces = Vec::new();
    let mut head = Vec::new();
    while head.len() < LIST_HEAD_BYTES {
        let Some(piece) = body.next().await else {
            break;
        };
        let failed = piece.is_err();
        if let Ok(bytes) = &piece {
            head.extend_from_slice(bytes);
        }
        pieces.push(piece);
        if failed {
            break;
        }
    }
    (head, stream::iter(pieces).chain(body).boxed())
}

/// `metadata.resourceVersion` of a list whose head this is, where it comes before the items.
fn list_version(head: &[u8]) -> Option<ResourceVersion> {
    const FIELD: &[u8] = b"\"resourceVersion\":\"";
    let items = memchr::memmem::find(head, b"\"items\"").or_else(|| {
        // A table's columns come after its metadata.
        memchr::memmem::find(head, b"\"columnDefinitions\"")
    });
    let own = head.get(..items?)?;
    let rest = own.get(memchr::memmem::find(own, FIELD)? + FIELD.len()..)?;
    let digits = rest.split(|byte| *byte == b'"').next()?;
    ResourceVersion::parse(std::str::from_utf8(digits).ok()?)
}

fn object_response(object: &Object) -> Response<Body> {
    respond(
        StatusCode::OK,
        "application/json",
        body::whole(object.json()),
    )
}

/// A list of stored objects, written as the client reads it.
pub(super) fn list_response(asked: &Asked<'_>, listing: Listing) -> Response<Body> {
    let resource = &asked.kind.resource;
    let head = serde_json::json!({
        "kind": format!("{}List", resource.kind),
        "apiVersion": resource.gvr.api_version(),
        "metadata": { "resourceVersion": listing.version.to_string() },
    });
    let mut head = head.to_string();
    head.pop();
    head.push_str(",\"items\":[");
    let mut head = Some(head);
    let mut objects = listing.objects.into_iter().peekable();
    let body = body::written(move |piece| {
        if let Some(head) = head.take() {
            piece.extend_from_slice(head.as_bytes());
        }
        if let Some(object) = objects.next() {
            object.write_json(piece);
        }
        if objects.peek().is_some() {
            piece.extend_from_slice(b",");
            return Written::More;
        }
        piece.extend_from_slice(b"]}\n");
        Written::Everything
    });
    respond(StatusCode::OK, "application/json", body)
}

/// Tells how old an answer from memory is; nothing if it is up to date.
pub(super) fn tell_age(response: &mut Response<Body>, age: Duration) {
    if age.is_zero() {
        return;
    }
    let seconds = age.as_secs();
    response
        .headers_mut()
        .insert(AGE, HeaderValue::from(seconds));
    let warning =
        format!("299 sortie \"the cluster cannot be reached: last known state, {seconds} s old\"");
    if let Ok(warning) = HeaderValue::from_str(&warning) {
        response.headers_mut().insert(WARNING, warning);
    }
}

/// Why a read of the view cannot be answered, to a client that cannot be sent on.
pub(super) fn unavailable(error: Unavailable) -> Failure {
    Failure::unavailable(error.to_string())
}
