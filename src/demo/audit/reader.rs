//! A plain client of a Kubernetes endpoint: one connection per request, parsed answers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::{Authority, Uri};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::canaries::{Canaries, Scan};
use super::endpoint::{Endpoint, ReadError, authorization, tls};
use crate::limits::{ANSWER_TIMEOUT, RAW_OBJECT_BYTES};
use crate::resource::{Gvr, Scope};
use crate::tasks::Tasks;

/// How the reader names itself to API servers.
pub const AGENT: &str = "sortie-audit";

/// Largest answer that is read, in bytes.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Objects per page of a list.
const PAGE: usize = 500;

/// Pages of one list that are read: a server that never ends its list is not followed for ever.
const PAGES: usize = 2000;

/// One answer, whatever its status.
#[derive(Clone, PartialEq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The body as JSON; null if it is empty.
    pub body: Value,
}

/// A whole collection.
#[derive(Clone, Default, PartialEq)]
pub struct Listing {
    /// The version to watch from.
    pub version: String,
    /// The objects as the list shows them.
    pub items: Vec<Value>,
}

// What a cluster answers may hold secret values: of answers, events and lists only the outside is
// printed.

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.status).finish()
    }
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("version", &self.version)
            .field("items", &self.items.len())
            .finish()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Event").field(&self.what).finish()
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("authority", &self.authority)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Reads one endpoint.
#[derive(Clone)]
pub struct Reader {
    authority: Authority,
    prefix: String,
    host: ServerName<'static>,
    tls: Arc<ClientConfig>,
    authorization: Option<HeaderValue>,
    tasks: Tasks,
    tap: Option<(Canaries, &'static str)>,
}

impl Reader {
    /// A reader of `endpoint`; its connections are tasks of `tasks`.
    pub fn new(endpoint: &Endpoint, tasks: &Tasks) -> Result<Self, ReadError> {
        let bad = || ReadError::Address(endpoint.url.clone());
        let uri: Uri = endpoint.url.parse().ok().ok_or_else(bad)?;
        if uri.scheme_str() != Some("https") {
            return Err(bad());
        }
        let authority = uri.authority().ok_or_else(bad)?.clone();
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let host = ServerName::try_from(host).ok().ok_or_else(bad)?;
        Ok(Self {
            prefix: uri.path().trim_end_matches('/').to_owned(),
            authority,
            host,
            tls: Arc::new(tls(endpoint)?),
            authorization: authorization(&endpoint.credential)?,
            tasks: tasks.clone(),
            tap: None,
        })
    }

    /// Has every byte of every answer looked through for `canaries`.
    #[must_use]
    pub fn tapped(self, canaries: Canaries, source: &'static str) -> Self {
        Self {
            tap: Some((canaries, source)),
            ..self
        }
    }

    fn scan(&self) -> Option<Scan> {
        self.tap
            .as_ref()
            .map(|(canaries, source)| canaries.scan(source))
    }

    /// Sends one request and reads its answer to the end.
    ///
    /// `path` starts with `/` and may have a query; `body` comes with its content type.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, &Value)>,
    ) -> Result<Answer, ReadError> {
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, async {
            let mut response = self.open(method, path, body).await?;
            let status = response.status().as_u16();
            let text = read_all(response.body_mut(), self.scan()).await?;
            let body = if text.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(&text).map_err(ReadError::Json)?
            };
            Ok(Answer { status, body })
        });
        let timeout = |_elapsed| ReadError::Timeout(self.authority.to_string());
        answered.await.map_err(timeout)?
    }

    /// Lists a collection, page by page.
    pub async fn list(&self, gvr: &Gvr, scope: &Scope) -> Result<Listing, ReadError> {
        let path = gvr.collection(scope);
        let mut listing = Listing::default();
        let mut token = String::new();
        for _ in 0..PAGES {
            let mut query = query_of(gvr, scope, &format!("limit={PAGE}"));
            if !token.is_empty() {
                query = format!("{query}&continue={token}");
            }
            let answer = self
                .send(Method::GET, &format!("{path}?{query}"), None)
                .await?;
            let mut body = expect_ok(&Method::GET, &path, answer)?;
            if let Some(Value::Array(items)) = body.get_mut("items").map(Value::take) {
                listing.items.extend(items);
            }
            let text = |pointer| body.pointer(pointer).and_then(Value::as_str);
            text("/metadata/resourceVersion")
                .unwrap_or_default()
                .clone_into(&mut listing.version);
            token = percent(text("/metadata/continue").unwrap_or_default());
            if token.is_empty() {
                return Ok(listing);
            }
        }
        Err(ReadError::TooLong)
    }

    /// Watches a collection from `version` on.
    pub async fn watch(&self, gvr: &Gvr, scope: &Scope, version: &str) -> Result<Lines, ReadError> {
        let path = gvr.collection(scope);
        let wish = format!("watch=true&allowWatchBookmarks=true&resourceVersion={version}");
        let query = query_of(gvr, scope, &wish);
        let target = format!("{path}?{query}");
        let opened = tokio::time::timeout(ANSWER_TIMEOUT, self.open(Method::GET, &target, None));
        let timeout = |_elapsed| ReadError::Timeout(self.authority.to_string());
        let response = opened.await.map_err(timeout)??;
        if !response.status().is_success() {
            return Err(ReadError::Status {
                method: Method::GET,
                path,
                status: response.status().as_u16(),
            });
        }
        Ok(Lines {
            body: response.into_body(),
            unread: Vec::new(),
            scan: self.scan(),
        })
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, &Value)>,
    ) -> Result<Response<Incoming>, ReadError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header(HOST, self.authority.as_str())
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let bytes = body.map(|(media, value)| (media, Bytes::from(value.to_string())));
        if let Some((media, _)) = &bytes {
            request = request.header(CONTENT_TYPE, *media);
        }
        let bytes = bytes.map(|(_, bytes)| bytes).unwrap_or_default();
        let request = request.body(Full::new(bytes)).map_err(ReadError::Token)?;
        let mut sender = self.connect().await?;
        sender.send_request(request).await.map_err(ReadError::Http)
    }

    async fn connect(&self) -> Result<http1::SendRequest<Full<Bytes>>, ReadError> {
        let authority = self.authority.to_string();
        let address = match self.authority.port_u16() {
            Some(_) => authority.clone(),
            None => format!("{authority}:443"),
        };
        let failed = |source| ReadError::Connect { authority, source };
        let connected = async {
            let socket = TcpStream::connect(address).await?;
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            connector.connect(self.host.clone(), socket).await
        };
        let stream = connected.await.map_err(failed)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(ReadError::Http)?;
        self.tasks.spawn("audit-connection", |stop| async move {
            if let Some(Err(error)) = stop.run_until_cancelled(connection).await {
                tracing::debug!(%error, "audit connection ended");
            }
        });
        Ok(sender)
    }
}

/// The object in a successful answer.
pub(super) fn expect_ok(method: &Method, path: &str, answer: Answer) -> Result<Value, ReadError> {
    if (200..300).contains(&answer.status) {
        return Ok(answer.body);
    }
    Err(ReadError::Status {
        method: method.clone(),
        path: path.to_owned(),
        status: answer.status,
    })
}

/// One event of a watch.
#[derive(Clone, PartialEq)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    pub what: String,
    /// The object, or a `Status`.
    pub object: Value,
}

/// The events of one watch.
pub struct Lines {
    body: Incoming,
    unread: Vec<u8>,
    scan: Option<Scan>,
}

impl Lines {
    /// The next event; none when the watch has ended. Cancellation-safe: what has been read of a
    /// line is kept.
    pub async fn next(&mut self) -> Result<Option<Event>, ReadError> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line: Value = serde_json::from_slice(&line).map_err(ReadError::Json)?;
                let what = line.get("type").and_then(Value::as_str).unwrap_or_default();
                return Ok(Some(Event {
                    what: what.to_owned(),
                    object: line.get("object").cloned().unwrap_or_default(),
                }));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(ReadError::Http)?;
            if let Some(data) = frame.data_ref() {
                if let Some(scan) = &mut self.scan {
                    scan.feed(data);
                }
                self.unread.extend_from_slice(data);
            }
            if self.unread.len() > RAW_OBJECT_BYTES {
                return Err(ReadError::TooLong);
            }
        }
    }
}

async fn read_all(body: &mut Incoming, mut scan: Option<Scan>) -> Result<Vec<u8>, ReadError> {
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(ReadError::Http)?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if let Some(scan) = &mut scan {
            scan.feed(data);
        }
        text.extend_from_slice(data);
        if text.len() > ANSWER_BYTES {
            return Err(ReadError::TooLong);
        }
    }
    Ok(text)
}

fn query_of(gvr: &Gvr, scope: &Scope, wish: &str) -> String {
    match gvr.selects_by_name(scope) {
        Some(name) => format!("{wish}&fieldSelector=metadata.name%3D{name}"),
        None => wish.to_owned(),
    }
}

/// Continue tokens are base64 of some kind; these are their characters with a meaning in queries.
fn percent(token: &str) -> String {
    token
        .replace('%', "%25")
        .replace('+', "%2B")
        .replace('&', "%26")
        .replace('=', "%3D")
}
