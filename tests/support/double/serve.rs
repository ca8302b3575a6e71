//! The listener of the double, its routes and its faults.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use sortie::tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::discovery::{discovery, failure};
use super::object::{Instance, KINDS, Kind};
use super::store::{Change, Store};
use super::{Settings, TOKEN, watching};
use crate::support::flights::{Flight, Flights};
use crate::support::pki::{self, Identity};

/// Streams per HTTP/2 connection, as API servers allow.
const STREAMS: u32 = 100;

/// Objects rendered into one chunk of an answer.
const CHUNK_OBJECTS: usize = 16;

/// Bytes of one chunk of an endless or huge answer.
const CHUNK_BYTES: usize = 64 * 1024;

/// How a request is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Lists break off amid their items, except pages; streaming lists are not served.
    BrokenLists,
    /// Watches end as soon as they have begun.
    EmptyWatches,
    /// 200 and bytes that are no JSON.
    Garbage,
    /// 200 and lines that are no JSON, without an end.
    GarbageLines,
    /// No answer at all.
    Hang,
    /// One object, alone, in a list or in an event, with a string of so many bytes.
    Huge(usize),
    /// This status with a `Status` body; 429 and 503 with `Retry-After: 1`.
    Status(u16),
}

/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What requests and the handle share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) settings: Settings,
    /// Whether this is the door that lies on command.
    pub(crate) faulty: bool,
    /// While true, nothing is answered and no event is sent at this door.
    pub(crate) frozen: watch::Sender<bool>,
    pub(crate) faults: Mutex<Vec<(String, Fault)>>,
    /// Counts calls of `drive`; only the last one goes on.
    pub(crate) drives: AtomicU64,
    pub(crate) flights: Arc<Flights>,
}

impl Shared {
    pub(crate) fn new(settings: Settings, flights: Arc<Flights>) -> Self {
        Self {
            store: Arc::new(Store::new(&settings)),
            settings,
            faulty: false,
            frozen: watch::Sender::new(false),
            faults: Mutex::default(),
            drives: AtomicU64::new(0),
            flights,
        }
    }

    /// A second door to the same store.
    pub(crate) fn faulty(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            settings: self.settings.clone(),
            faulty: true,
            frozen: watch::Sender::new(false),
            faults: Mutex::default(),
            drives: AtomicU64::new(0),
            flights: Arc::clone(&self.flights),
        }
    }

    /// Waits until this door is not frozen, nor the store.
    pub(crate) async fn thawed(&self) {
        self.store.thawed().await;
        let mut frozen = self.frozen.subscribe();
        let seen = frozen.wait_for(|frozen| !frozen).await;
        seen.expect("the door has its own sender");
    }

    fn fault_of(&self, path: &str) -> Option<Fault> {
        let faults = self.faults.lock().expect("not poisoned");
        let found = faults
            .iter()
            .find(|(prefix, _)| path.starts_with(prefix.as_str()));
        found.map(|(_, fault)| *fault)
    }

    fn count(&self, verb: &str, resource: &str) {
        let key = (verb.to_owned(), resource.to_owned());
        *self.store.lock().counts.entry(key).or_default() += 1;
    }
}

/// Binds a port and serves on it until the tasks stop.
pub(crate) fn listen(tasks: &Tasks, identity: &Identity, shared: &Arc<Shared>) -> SocketAddr {
    let tls = TlsAcceptor::from(Arc::new(pki::server_config(
        identity,
        &[b"h2", b"http/1.1"],
    )));
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("it is bound");
    let listener = TcpListener::from_std(listener).expect("a runtime");
    let (owner, shared) = (tasks.clone(), Arc::clone(shared));
    tasks.spawn("double-accept", move |stop| async move {
        while let Some(Ok((tcp, _peer))) = stop.run_until_cancelled(listener.accept()).await {
            let (tls, shared) = (tls.clone(), Arc::clone(&shared));
            owner.spawn("double-connection", async move |stop| {
                stop.run_until_cancelled(connection(tcp, tls, shared)).await;
            });
        }
    });
    address
}

async fn connection(tcp: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    tcp.set_nodelay(true).expect("a socket");
    let Ok(stream) = tls.accept(tcp).await else {
        return; // a client that does not trust us is part of some tests
    };
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http2().max_concurrent_streams(STREAMS);
    let _seen_by_the_client = server.serve_connection(TokioIo::new(stream), service).await;
}

/// A request for objects, taken apart.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
    pub(crate) query: BTreeMap<String, String>,
}

impl Target {
    fn of(path: &str, query: &str) -> Option<Self> {
        let kind = |rest: &str, resource: &str| {
            KINDS
                .iter()
                .find(|kind| kind.root() == rest && kind.resource == resource)
        };
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let root_parts = if parts.first() == Some(&"api") { 2 } else { 3 };
        let (root, rest) = parts.split_at_checked(root_parts)?;
        let root = format!("/{}", root.join("/"));
        let (namespace, rest) = match rest {
            ["namespaces", namespace, resource, ..] if kind(&root, resource).is_some() => {
                (Some((*namespace).to_owned()), rest.get(2..)?)
            }
            rest => (None, rest),
        };
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        Some(Self {
            kind: kind(&root, rest.first()?)?,
            namespace,
            name: rest.get(1).map(ToString::to_string),
            subresource: rest.get(2).map(ToString::to_string),
            query: query
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        })
    }

    fn verb(&self, method: &Method) -> String {
        match (method, &self.name, &self.subresource) {
            (&Method::GET, _, Some(subresource)) => subresource.clone(),
            (&Method::GET, Some(_), None) => "get".to_owned(),
            (&Method::GET, None, None) if self.flag("watch") => "watch".to_owned(),
            (&Method::GET, None, None) => "list".to_owned(),
            (method, ..) => method.as_str().to_lowercase(),
        }
    }

    /// Whether the answer tells every object.
    fn lists(&self, verb: &str) -> bool {
        verb == "list" || verb == "watch" && self.flag("sendInitialEvents")
    }

    /// Whether a query parameter is set to true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.query
            .get(name)
            .is_some_and(|value| matches!(value.as_str(), "1" | "true"))
    }

    /// Whether the target takes in an object of this namespace.
    pub(crate) fn takes(&self, namespace: &str) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|wanted| wanted == namespace)
    }
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let target = Target::of(&path, request.uri().query().unwrap_or_default());
    let verb = target
        .as_ref()
        .map_or_else(|| "other".to_owned(), |t| t.verb(request.method()));
    shared.count(
        &verb,
        target.as_ref().map_or(path.as_str(), |t| t.kind.resource),
    );
    let lists = target.as_ref().is_some_and(|target| target.lists(&verb));
    let flight = lists.then(|| shared.flights.begin());
    if lists && verb == "watch" {
        shared.count("streaming-list", "all");
    }
    shared.thawed().await;
    if !authorized(request.headers()) {
        return status(StatusCode::UNAUTHORIZED);
    }
    match (shared.fault_of(&path), target) {
        (Some(Fault::Hang), _) => pending().await,
        (Some(Fault::Garbage), _) => json_body("{\"kind\":\"\u{1}<html>, not JSON"),
        (Some(Fault::GarbageLines), _) => stream_body(stream::repeat(Bytes::from_static(
            b"{\"type\":\"ADDED\",<html>, not JSON\n",
        ))),
        (Some(Fault::BrokenLists), Some(target)) if target.flag("sendInitialEvents") => {
            status(StatusCode::BAD_REQUEST)
        }
        (Some(Fault::BrokenLists), Some(target))
            if verb == "list" && !target.query.contains_key("limit") =>
        {
            json_body("{\"kind\":\"List\",\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[")
        }
        (Some(Fault::EmptyWatches), Some(_)) if verb == "watch" => json_body(""),
        (Some(Fault::Huge(bytes)), Some(target)) => huge(&target, &verb, bytes),
        (Some(Fault::Status(code)), _) => {
            status(StatusCode::from_u16(code).expect("a fault has a valid status"))
        }
        (_, Some(target)) => objects(shared, target, &verb, flight),
        (_, None) => discovery(&path).map_or_else(|| status(StatusCode::NOT_FOUND), json_body),
    }
}

fn authorized(headers: &HeaderMap) -> bool {
    let sent = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    sent.and_then(|value| value.strip_prefix("Bearer ")) == Some(TOKEN)
}

fn objects(
    shared: &Arc<Shared>,
    target: Target,
    verb: &str,
    flight: Option<Flight>,
) -> Response<Body> {
    match verb {
        "list" => list(shared, &target, flight),
        "watch" => stream_body(watching::events(Arc::clone(shared), target, flight)),
        "get" => get(shared, &target),
        "patch" => patch(shared, &target),
        "log" => log(target.flag("follow")),
        _ => status(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn get(shared: &Shared, target: &Target) -> Response<Body> {
    let name = target.name.as_deref().unwrap_or_default();
    if target.kind.resource == "namespaces" && name == "kube-system" {
        return json_body(
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": name, "uid": "d0000000-0000-4000-8000-000000000000", "resourceVersion": "1",
            }})
            .to_string(),
        );
    }
    let (found, template) = {
        let mut inner = shared.store.lock();
        let collection = inner.collection(target.kind.resource);
        let number = collection.template.number(name);
        let found = number.and_then(|number| collection.get(number));
        (found, Arc::clone(&collection.template))
    };
    let Some(instance) = found.filter(|found| target.takes(&template.namespace(found.number)))
    else {
        return status(StatusCode::NOT_FOUND);
    };
    let mut out = Vec::new();
    template.render(&mut out, instance, true);
    json_body(out)
}

/// Whatever the patch says, the object has a new version afterwards.
fn patch(shared: &Shared, target: &Target) -> Response<Body> {
    let resource = target.kind.resource;
    let number = {
        let mut inner = shared.store.lock();
        let template = &inner.collection(resource).template;
        template.number(target.name.as_deref().unwrap_or_default())
    };
    if let Some(number) = number {
        shared.store.change(resource, number, Change::Modified);
    }
    get(shared, target)
}

/// A page of a list, rendered while it is read.
fn list(shared: &Arc<Shared>, target: &Target, flight: Option<Flight>) -> Response<Body> {
    let number = |name: &str| {
        target
            .query
            .get(name)
            .and_then(|value| value.parse::<usize>().ok())
    };
    let limit = number("limit")
        .filter(|limit| *limit > 0)
        .unwrap_or(usize::MAX);
    let start = number("continue").unwrap_or(0);
    let version = *shared.store.version.borrow();
    let (mut page, template) = {
        let mut inner = shared.store.lock();
        let collection = inner.collection(target.kind.resource);
        let template = Arc::clone(&collection.template);
        let wanted = collection
            .from(start)
            .filter(|instance| target.takes(&template.namespace(instance.number)))
            .take(limit.saturating_add(1));
        (wanted.collect::<Vec<_>>(), template)
    };
    let next = page
        .get(limit)
        .map(|next| next.number.to_string())
        .unwrap_or_default();
    page.truncate(limit);
    let page: Arc<[Instance]> = page.into();
    let kind = target.kind;
    let head = format!(
        r#"{{"kind":"{}List","apiVersion":"{}","metadata":{{"resourceVersion":"{version}","continue":"{next}"}},"items":["#,
        kind.name,
        kind.api_version(),
    );
    let chunks = stream::unfold((0, Some(head), flight), move |(at, head, flight)| {
        let (page, template) = (Arc::clone(&page), Arc::clone(&template));
        async move {
            if at > page.len() {
                return None;
            }
            let mut out = head.map(String::into_bytes).unwrap_or_default();
            let end = page.len().min(at + CHUNK_OBJECTS);
            for (index, instance) in page.iter().enumerate().take(end).skip(at) {
                if index > 0 {
                    out.push(b',');
                }
                template.render(&mut out, *instance, false);
            }
            if end == page.len() {
                out.extend_from_slice(b"]}");
                return Some((Bytes::from(out), (end + 1, None, None)));
            }
            Some((Bytes::from(out), (end, None, flight)))
        }
    });
    stream_body(chunks)
}

/// Log lines; endless when they are followed.
fn log(follow: bool) -> Response<Body> {
    let line =
        "2026-01-01T00:00:00Z INFO shop: an order was taken and is on its way to the store\n";
    if !follow {
        return body("text/plain", line.repeat(10));
    }
    let chunk = Bytes::from(line.repeat(CHUNK_BYTES / line.len()));
    let chunks = stream::unfold(chunk, |chunk| async move { Some((chunk.clone(), chunk)) });
    stream_body_of("text/plain", chunks)
}

fn huge(target: &Target, verb: &str, bytes: usize) -> Response<Body> {
    let (open, close) = match verb {
        "watch" => (r#"{"type":"MODIFIED","object":"#, "}\n"),
        "list" => (
            r#"{"kind":"List","metadata":{"resourceVersion":"1"},"items":["#,
            "]}",
        ),
        _ => ("", ""),
    };
    let head = format!(
        r#"{open}{{"apiVersion":"{}","kind":"{}","metadata":{{"name":"huge","namespace":"ns-0","uid":"e0000000-0000-4000-8000-000000000000","resourceVersion":"2","annotations":{{"huge":""#,
        target.kind.api_version(),
        target.kind.name,
    );
    let filler = Bytes::from(vec![b'x'; CHUNK_BYTES]);
    let chunks = (0..bytes.div_ceil(CHUNK_BYTES))
        .map(move |number| filler.slice(..CHUNK_BYTES.min(bytes - number * CHUNK_BYTES)));
    let all = std::iter::once(Bytes::from(head))
        .chain(chunks)
        .chain(std::iter::once(Bytes::from(format!("\"}}}}}}{close}"))));
    stream_body(stream::iter(all))
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = json_body(failure(code).to_string());
    *response.status_mut() = code;
    if matches!(
        code,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    ) {
        response
            .headers_mut()
            .insert("retry-after", "1".parse().expect("a header value"));
    }
    response
}

fn json_body(bytes: impl Into<Bytes>) -> Response<Body> {
    body("application/json", bytes)
}

fn body(kind: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    respond(kind, Full::new(bytes.into()).boxed_unsync())
}

fn stream_body(chunks: impl stream::Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    stream_body_of("application/json", chunks)
}

fn stream_body_of(
    kind: &'static str,
    chunks: impl stream::Stream<Item = Bytes> + Send + 'static,
) -> Response<Body> {
    use futures_util::StreamExt as _;
    let frames = chunks.map(|chunk| Ok(Frame::data(chunk)));
    respond(kind, StreamBody::new(frames).boxed_unsync())
}

fn respond(kind: &'static str, body: Body) -> Response<Body> {
    Response::builder()
        .header("content-type", kind)
        .body(body)
        .expect("valid headers")
}
