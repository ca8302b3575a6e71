//! What is asked of an API server, and the check that it can be asked safely.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use zeroize::Zeroizing;

use super::ClusterError;
use crate::credential::Credential;
use crate::limits;

/// A request to an API server.
pub struct ApiRequest<'a> {
    /// E.g. `GET`.
    pub method: Cow<'a, str>,
    /// Path and query, from the root of the API, e.g. `/api/v1/pods?limit=500`.
    pub target: String,
    /// Headers besides those of the connection and of the credential, which are refused here.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: RequestBody,
    /// How the answer travels.
    pub transport: Transport,
    /// Whether the answer has no end of its own, as of a watch: no deadlines then.
    pub long_running: bool,
}

/// The body of a request.
#[derive(Default)]
pub enum RequestBody {
    /// None.
    #[default]
    None,
    /// These bytes, wiped when they have been sent.
    Bytes(Zeroizing<Vec<u8>>),
}

/// How an answer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// On a shared HTTP/2 connection.
    Pooled,
    /// On a connection of its own, through buffers that are wiped: for what holds secrets.
    Wiping,
}

impl<'a> ApiRequest<'a> {
    /// A GET without a body over the pool.
    pub fn get(target: impl Into<String>) -> Self {
        Self {
            method: Cow::Borrowed("GET"),
            target: target.into(),
            headers: Vec::new(),
            body: RequestBody::None,
            transport: Transport::Pooled,
            long_running: false,
        }
    }

    /// The same with one header more.
    #[must_use]
    pub fn header(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl fmt::Debug for ApiRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiRequest")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Bytes(_) => "[REDACTED]",
        })
    }
}

/// A request that can be written as it is.
pub(super) struct Checked {
    pub(super) method: Method,
    /// Base path of the server, path and query.
    pub(super) path: String,
    pub(super) authority: String,
    /// All but `host`, `connection` and the body's length.
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
    pub(super) transport: Transport,
    pub(super) long_running: bool,
}

impl Checked {
    pub(super) async fn new(
        request: ApiRequest<'_>,
        credential: &Credential,
    ) -> Result<Self, ClusterError> {
        let method = Method::from_bytes(request.method.as_bytes())
            .ok()
            .filter(|method| {
                [
                    Method::DELETE,
                    Method::GET,
                    Method::PATCH,
                    Method::POST,
                    Method::PUT,
                ]
                .contains(method)
            })
            .ok_or(ClusterError::Request("has a method that is not used here"))?;
        let target = &request.target;
        let is_clean = target
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !target.starts_with('/') || !is_clean {
            return Err(ClusterError::Request("target is not a path with a query"));
        }
        let mut headers = HeaderMap::with_capacity(request.headers.len() + 3);
        for (name, value) in &request.headers {
            let (name, value) = own_header(name, value)?;
            headers.append(name, value);
        }
        // Nothing here decompresses: compressed watches are cut into members, and a decompressor
        // keeps what it has seen.
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        headers
            .entry(header::USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!(
                "sortie/",
                env!("CARGO_PKG_VERSION")
            )));
        let authorization = credential.auth().header().await;
        if let Some(value) = authorization.map_err(ClusterError::Token)? {
            headers.insert(header::AUTHORIZATION, value);
        }
        for (name, value) in credential.impersonation() {
            headers.append(name.clone(), value.clone());
        }
        let body = match request.body {
            RequestBody::None => None,
            RequestBody::Bytes(bytes) => Some(bytes),
        };
        if body
            .as_ref()
            .is_some_and(|body| body.len() > limits::REQUEST_BODY_BYTES)
        {
            return Err(ClusterError::TooLarge {
                what: "the request's body",
                max: limits::REQUEST_BODY_BYTES,
            });
        }
        Ok(Self {
            path: format!("{}{target}", credential.server().base_path()),
            authority: credential.server().authority(),
            method,
            headers,
            body,
            transport: request.transport,
            long_running: request.long_running,
        })
    }

    /// The request for a general HTTP library; its body is wiped when the library drops it.
    pub(super) fn into_http(
        self,
        origin: &str,
    ) -> Result<http::Request<http_body_util::Full<Bytes>>, ClusterError> {
        let body = self.body.map(Bytes::from_owner).unwrap_or_default();
        let mut request = http::Request::builder()
            .method(self.method)
            .uri(format!("{origin}{}", self.path))
            .body(http_body_util::Full::new(body))
            .map_err(|_error| ClusterError::Request("target is not a path with a query"))?;
        *request.headers_mut() = self.headers;
        Ok(request)
    }
}

/// A header that the caller may choose.
fn own_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), ClusterError> {
    let malformed = ClusterError::Request("has a malformed header");
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        return Err(malformed);
    };
    let Ok(value) = HeaderValue::from_str(value) else {
        return Err(malformed);
    };
    let is_ours = [
        header::ACCEPT_ENCODING,
        header::AUTHORIZATION,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::HOST,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ]
    .contains(&name);
    // Impersonation would act for somebody whom no policy has seen.
    if is_ours || name.as_str().starts_with("impersonate-") {
        return Err(ClusterError::Request(
            "has a header that callers may not set",
        ));
    }
    Ok((name, value))
}
