//! From a request to an answer: path, client, authorization, then the part that answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::time::Instant;

use super::body::{self, Body};
use super::port::{Account, AuditRecord, Client, CloseConnection, Kind, Served, Upstream};
use super::query::Query;
use super::status::{Failure, respond};
use super::{discovery, openapi};
use crate::clock::SharedClock;
use crate::resource::{Target, TargetError, Verb};

/// Longest id of an account, in hex digits.
const ACCOUNT_ID_DIGITS: usize = 64;

/// Audited status of a request that had no answer when its client went away; no client sees it.
const CLIENT_WENT_AWAY: u16 = 499;

/// Subresources that are connections, not requests.
const TUNNELS: [&str; 4] = ["attach", "exec", "portforward", "proxy"];

/// Answers requests for the accounts of an [`Upstream`].
pub struct Facade<U> {
    pub(super) upstream: Arc<U>,
    pub(super) clock: SharedClock,
}

/// A request for a resource, as far as it is understood.
pub(super) struct Asked<'a> {
    pub(super) client: &'a str,
    pub(super) account: &'a Account,
    pub(super) kind: &'a Kind,
    pub(super) target: &'a Target,
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) raw_query: &'a str,
    pub(super) query: Query,
}

impl Asked<'_> {
    /// Path and query for the cluster.
    pub(super) fn live_target(&self) -> String {
        if self.raw_query.is_empty() {
            self.target.path()
        } else {
            format!("{}?{}", self.target.path(), self.raw_query)
        }
    }

    /// The namespace that reads and fences of the view are about.
    pub(super) fn place(&self) -> Option<&str> {
        if self.kind.resource.namespaced || self.target.gvr.is_namespaces() {
            self.target.namespace.as_deref()
        } else {
            None
        }
    }
}

/// An answer, and where it came from.
pub(super) type Answer = Result<(Response<Body>, Served), Failure>;

impl<U: Upstream> Facade<U> {
    /// Offers the accounts of `upstream`.
    pub fn new(upstream: Arc<U>, clock: SharedClock) -> Self {
        Self { upstream, clock }
    }

    /// Answers one request. The listener has put [`Client`] into its extensions, and obeys
    /// [`CloseConnection`] in those of the answer.
    ///
    /// Dropping the future cancels what was sent for it.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
    {
        let mut audit = Audit::begin(Arc::clone(&self.upstream));
        let version = request.version();
        let is_text = is_read_raw(request.uri().path());
        let answer = self.serve(request, &mut audit.record).await;
        let (mut response, served) =
            answer.unwrap_or_else(|failure| (told(&failure, is_text), Served::Facade));
        let closes = response.extensions().get::<CloseConnection>().is_some();
        if closes && version <= Version::HTTP_11 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        audit.record.status = response.status();
        audit.record.served = served;
        response
    }

    async fn serve<B>(&self, request: Request<B>, record: &mut AuditRecord) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send,
    {
        let (parts, body) = request.into_parts();
        if let Some(Client(name)) = parts.extensions.get() {
            record.client.clone_from(name);
        }
        let path = parts.uri.path();
        let (id, path) = split(path)?;
        if record.client.is_empty() {
            return Err(Failure::unauthorized());
        }
        let client = record.client.clone();
        let account = self.upstream.account(id).ok_or_else(Failure::no_account)?;
        record.account.clone_from(&account.name);
        if let Some(header) = impersonation(&parts.headers) {
            return Err(Failure::forbidden(format!(
                "impersonation (`{header}`) is not available through Sortie"
            )));
        }
        let raw_query = parts.uri.query().unwrap_or_default();
        let account = if wants_newer_kinds(&account, &parts.method, path) {
            let newer = self.upstream.newer_kinds(id).await;
            newer.ok_or_else(Failure::no_account)?
        } else {
            account
        };
        if let Some(response) = self.answer_from_memory(&client, &account, path, &parts)? {
            return Ok((response, Served::Facade));
        }
        let target = parse_target(&parts.method, path, raw_query)?;
        record.verb = Some(target.verb);
        record.gvr = Some(target.gvr.clone());
        record.namespace.clone_from(&target.namespace);
        record.name.clone_from(&target.name);
        record.subresource.clone_from(&target.subresource);
        let kind = allowed(&*self.upstream, &client, &account, &target)?;
        let asked = Asked {
            client: &client,
            account: &account,
            kind,
            target: &target,
            method: &parts.method,
            headers: &parts.headers,
            raw_query,
            query: Query::parse(raw_query),
        };
        let answer = match (target.verb, &target.subresource) {
            (Verb::Get | Verb::List | Verb::Watch, Some(_)) => self.forward_read(&asked).await,
            (Verb::Get, None) => self.get(&asked).await,
            (Verb::List, None) => self.list(&asked).await,
            (Verb::Watch, None) => self.watch(&asked).await,
            _ => self.write(&asked, body).await,
        };
        let drain = parts.extensions.get().cloned();
        Ok(self.lasting(&asked, answer?, drain))
    }

    /// Discovery, OpenAPI, version and health, for every client that is bound to the account.
    fn answer_from_memory(
        &self,
        client: &str,
        account: &Account,
        path: &str,
        parts: &http::request::Parts,
    ) -> Result<Option<Response<Body>>, Failure> {
        let headers = &parts.headers;
        let response = match path {
            "/version" | "/version/" if account.version_json.is_empty() => {
                Failure::unavailable("the cluster's version is not known yet").response()
            }
            "/version" | "/version/" => {
                let document = body::whole(account.version_json.clone());
                respond(StatusCode::OK, "application/json", document)
            }
            "/healthz" | "/livez" | "/readyz" => {
                respond(StatusCode::OK, "text/plain", body::whole("ok"))
            }
            _ => {
                let found = openapi::answer(account, path, headers)
                    .or_else(|| discovery::answer(account, path, headers));
                match found {
                    Some(response) => response,
                    None => return Ok(None),
                }
            }
        };
        if parts.method != Method::GET {
            return Err(Failure::method_not_allowed());
        }
        if !self
            .upstream
            .authorize(client, &account.name, Verb::Get, "", None)
        {
            return Err(unbound(client, &account.name));
        }
        Ok(Some(response))
    }
}

/// Whether the answer depends on kinds that the account is about to learn: who has just seen a
/// definition asks for discovery, or for an object of the kind, next.
fn wants_newer_kinds(account: &Account, method: &Method, path: &str) -> bool {
    account.outdated
        && match parse_target(method, path, "") {
            Ok(target) => kind_of(account, &target).is_none(),
            Err(_) => path.starts_with("/api") || path.starts_with("/openapi/"),
        }
}

/// The record of a request, handed over when the request ends: answered, refused, or dropped
/// because its client went away, in which case what was sent for it may have been done.
struct Audit<U: Upstream> {
    upstream: Arc<U>,
    started: Instant,
    record: AuditRecord,
}

impl<U: Upstream> Audit<U> {
    fn begin(upstream: Arc<U>) -> Self {
        Self {
            upstream,
            started: Instant::now(),
            record: AuditRecord {
                client: String::new(),
                account: String::new(),
                verb: None,
                gvr: None,
                namespace: None,
                name: None,
                subresource: None,
                status: StatusCode::from_u16(CLIENT_WENT_AWAY).unwrap_or_default(),
                served: Served::Facade,
                duration: Duration::ZERO,
            },
        }
    }
}

impl<U: Upstream> Drop for Audit<U> {
    fn drop(&mut self) {
        // Discovery that was answered is no operation; everything else is one.
        if self.record.gvr.is_some() || !self.record.status.is_success() {
            self.record.duration = self.started.elapsed();
            self.upstream.audit(self.record.clone());
        }
    }
}

impl<U> fmt::Debug for Facade<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facade").finish_non_exhaustive()
    }
}

/// Whether kubectl reads this path without looking into a `Status`.
///
/// Of a refusal there it shows the text of a `text/plain` answer, and otherwise "unknown" (client-go,
/// `Result.Raw`; test: `tests/path/mistakes/facade.rs`).
fn is_read_raw(path: &str) -> bool {
    let inner = split(path).map_or("", |(_id, inner)| inner);
    matches!(inner.trim_end_matches('/'), "/api" | "/apis" | "/version")
}

fn told(failure: &Failure, is_text: bool) -> Response<Body> {
    if is_text && failure.code == StatusCode::FORBIDDEN {
        failure.text_response()
    } else {
        failure.response()
    }
}

fn unbound(client: &str, account: &str) -> Failure {
    Failure::forbidden(format!(
        "client `{client}` is not bound to account `{account}`; \
         `sortie client create` binds clients to accounts"
    ))
}

/// Splits `/accounts/<id>/…` into the id and the path within the account.
///
/// An id has one spelling. Another one is refused rather than understood, so that no two paths
/// mean the same account to different readers.
fn split(path: &str) -> Result<(&str, &str), Failure> {
    let rest = path
        .strip_prefix("/accounts/")
        .ok_or_else(Failure::unknown_path)?;
    let (id, inner) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if id.is_empty() || id.len() > ACCOUNT_ID_DIGITS || !id.bytes().all(is_hex) {
        let message = "the id of an account is lower-case hexadecimal";
        return Err(Failure::bad_request(message));
    }
    Ok((id, inner))
}

fn impersonation(headers: &HeaderMap) -> Option<&str> {
    let mut names = headers.keys().map(http::HeaderName::as_str);
    names.find(|name| name.starts_with("impersonate-"))
}

fn parse_target(method: &Method, path: &str, query: &str) -> Result<Target, Failure> {
    if asks_for_tunnel(path) {
        return Err(Failure::forbidden(
            "exec, attach, port-forward and proxy are not available through Sortie",
        ));
    }
    Target::parse(method.as_str(), &format!("{path}?{query}")).map_err(|error| match error {
        TargetError::Method(_) => Failure::method_not_allowed(),
        TargetError::NotAResource => Failure::unknown_path(),
        TargetError::NotCanonical => Failure::bad_request(error.to_string()),
    })
}

/// Whether a path goes to or through one of [`TUNNELS`], whatever comes after it.
fn asks_for_tunnel(path: &str) -> bool {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let after_version = match segments.first() {
        Some(&"api") => segments.get(2..),
        Some(&"apis") => segments.get(3..),
        _ => None,
    };
    let Some(["namespaces", _, _, _, part, ..] | [_, _, part, ..]) = after_version else {
        return false;
    };
    TUNNELS.contains(part)
}

/// The kind that is asked for, if the account offers it so and the client may have it.
pub(super) fn allowed<'a, U: Upstream>(
    upstream: &U,
    client: &str,
    account: &'a Account,
    target: &Target,
) -> Result<&'a Kind, Failure> {
    let kind = offered(account, target)?;
    let (name, namespace) = (kind.full_name(), target.namespace.as_deref());
    if !upstream.authorize(client, &account.name, target.verb, &name, namespace) {
        return Err(unbound(client, &account.name));
    }
    Ok(kind)
}

/// The kind that is asked for, if the account has it.
fn kind_of<'a>(account: &'a Account, target: &Target) -> Option<&'a Kind> {
    let mut kinds = account.discovery.iter();
    kinds.find(|kind| kind.resource.gvr == target.gvr)
}

/// The kind that is asked for, if the account offers it with this verb and part.
fn offered<'a>(account: &'a Account, target: &Target) -> Result<&'a Kind, Failure> {
    let kind = kind_of(account, target).ok_or_else(Failure::unknown_path)?;
    if target.is_misplaced(kind.resource.namespaced) {
        return Err(Failure::unknown_path());
    }
    let verbs = match &target.subresource {
        None => &kind.resource.verbs,
        Some(wanted) => {
            let mut parts = kind.resource.subresources.iter();
            let part = parts.find(|part| part.name == *wanted);
            &part.ok_or_else(Failure::unknown_path)?.verbs
        }
    };
    if verbs.iter().any(|verb| verb == target.verb.as_str()) {
        Ok(kind)
    } else {
        Err(Failure::method_not_allowed())
    }
}
