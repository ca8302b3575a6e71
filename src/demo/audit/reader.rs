//! A plain client of a Kubernetes endpoint: one connection per request, parsed answers.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::{Authority, Uri};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::canaries::{Canaries, Scan};
use crate::limits::{ANSWER_TIMEOUT, RAW_OBJECT_BYTES};
use crate::resource::{Gvr, Scope};
use crate::secret::SecretBytes;
use crate::tasks::Tasks;

/// How the reader names itself to API servers.
pub const AGENT: &str = "sortie-audit";

/// Largest answer that is read, in bytes.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Objects per page of a list.
const PAGE: usize = 500;

/// Pages of one list that are read: a server that never ends its list is not followed for ever.
const PAGES: usize = 2000;

/// What opens an endpoint.
#[derive(Debug)]
pub enum Credential {
    /// A client certificate chain and its key, in PEM.
    Certificate {
        /// The chain, leaf first.
        chain_pem: String,
        /// The key.
        key_pem: SecretBytes,
    },
    /// A bearer token.
    Token(SecretBytes),
}

/// A Kubernetes API: a cluster's own, or an account at the hub's facade.
#[derive(Debug)]
pub struct Endpoint {
    /// `https://host:port`, with a path below which the API lives if there is one.
    pub url: String,
    /// The roots that its certificate may come from.
    pub ca_pem: String,
    /// What opens it.
    pub credential: Credential,
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not `https://host:port/…`.
    #[error("`{0}` is not an https address with a host")]
    Address(String),
    /// The roots, the client certificate or its key are not PEM.
    #[error("certificate material of the endpoint could not be read")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// TLS refused its settings.
    #[error("TLS for the endpoint could not be set up")]
    Tls(#[source] rustls::Error),
    /// The token cannot stand in a header.
    #[error("the endpoint's token cannot be sent in a header")]
    Token(#[source] http::Error),
    /// No connection.
    #[error("could not connect to `{authority}`")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the system or TLS said.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer from `{0}` in time")]
    Timeout(String),
    /// The request was not carried to its end.
    #[error("the request to the endpoint failed")]
    Http(#[source] hyper::Error),
    /// An answer other than success.
    #[error("{method} `{path}` was answered with status {status}")]
    Status {
        /// The request's method.
        method: Method,
        /// The request's path, without the query.
        path: String,
        /// The answer's status code.
        status: u16,
    },
    /// More than is read.
    #[error("an answer or a line of a watch is longer than is read")]
    TooLong,
    /// Not JSON, or not the JSON that was asked for.
    #[error("an answer is not the JSON that was asked for")]
    Json(#[source] serde_json::Error),
}

impl ReadError {
    /// Whether the server no longer remembers the version that was asked for.
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Status { status: 410, .. })
    }
}

/// One answer, whatever its status.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The body as JSON; null if it is empty.
    pub body: Value,
}

/// A whole collection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// The version to watch from.
    pub version: String,
    /// The objects as the list shows them.
    pub items: Vec<Value>,
}

/// Reads one endpoint.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    pub what: String,
    /// The object, or a `Status`.
    pub object: Value,
}

/// The events of one watch.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    unread: Vec<u8>,
    scan: Option<Scan>,
}

impl Lines {
    /// The next event; none when the watch has ended. Not cancellation-safe between frames of
    /// one line only in that the line is kept: what was read is never lost.
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

fn tls(endpoint: &Endpoint) -> Result<ClientConfig, ReadError> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(endpoint.ca_pem.as_bytes()) {
        roots
            .add(root.map_err(ReadError::Pem)?)
            .map_err(ReadError::Tls)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ReadError::Tls)?
        .with_root_certificates(roots);
    let mut config = match &endpoint.credential {
        Credential::Token(_) => builder.with_no_client_auth(),
        Credential::Certificate { chain_pem, key_pem } => {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect();
            #[expect(clippy::disallowed_methods, reason = "the key is handed to TLS")]
            let key = PrivateKeyDer::from_pem_slice(key_pem.expose_secret());
            let (chain, key) = (chain.map_err(ReadError::Pem)?, key.map_err(ReadError::Pem)?);
            builder
                .with_client_auth_cert(chain, key)
                .map_err(ReadError::Tls)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn authorization(credential: &Credential) -> Result<Option<HeaderValue>, ReadError> {
    let Credential::Token(token) = credential else {
        return Ok(None);
    };
    #[expect(clippy::disallowed_methods, reason = "the token goes into its header")]
    let value = [b"Bearer ", token.expose_secret()].concat();
    let value = HeaderValue::try_from(value);
    let mut value = value.map_err(|error| ReadError::Token(error.into()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}
