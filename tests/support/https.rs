//! A plain HTTPS client for the tests: one connection per request, nothing kept.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use sortie::tasks::Tasks;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::eventually::bounded;

/// Asks one server.
#[derive(Clone, Debug)]
pub(crate) struct Https {
    authority: String,
    tls: Arc<ClientConfig>,
    header: (&'static str, String),
    more: Option<(&'static str, String)>,
    tasks: Tasks,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// The body, complete.
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON; null when it is empty.
    pub(crate) fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!(
                "{}: {error}: {}",
                self.status,
                String::from_utf8_lossy(&self.body)
            )
        })
    }

    /// The body as JSON, of an answer that has to be a success.
    pub(crate) fn success(&self) -> Value {
        let status = self.status;
        assert!(
            status.is_success(),
            "{status}: {}",
            String::from_utf8_lossy(&self.body)
        );
        self.json()
    }
}

impl Https {
    /// A client of `https://HOST:PORT` that sends `header` with each request.
    pub(crate) fn new(url: &str, tls: Arc<ClientConfig>, header: (&'static str, String)) -> Self {
        let authority = url
            .strip_prefix("https://")
            .expect("an https URL")
            .to_owned();
        Self {
            authority,
            tls,
            header,
            more: None,
            tasks: Tasks::new(),
        }
    }

    /// The same server, asked with another header.
    pub(crate) fn with_header(&self, header: (&'static str, String)) -> Self {
        Self {
            header,
            ..self.clone()
        }
    }

    /// The same server, asked with a further header.
    pub(crate) fn and_header(&self, header: (&'static str, String)) -> Self {
        Self {
            more: Some(header),
            ..self.clone()
        }
    }

    /// Sends a request and reads the whole answer; an error is a connection that failed.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        bounded(path, async {
            let response = self.open(method, path, content_type, body).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok(Answer { status, body })
        })
        .await
    }

    /// Sends a request; the body of the answer is still to be read.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        let tcp = TcpStream::connect(&self.authority).await?;
        let host = self
            .authority
            .rsplit_once(':')
            .map_or("", |(host, _port)| host);
        let tls = TlsConnector::from(Arc::clone(&self.tls))
            .connect(ServerName::try_from(host.to_owned())?, tcp)
            .await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        self.tasks.spawn("https-connection", |_stop| async move {
            let _seen_by_the_request = connection.await;
        });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.authority)
            .header("content-type", content_type)
            .header(self.header.0, &self.header.1);
        if let Some((name, value)) = &self.more {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body))?;
        Ok(sender.send_request(request).await?)
    }
}

/// Reads a body line by line.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    /// Over the body of `response`.
    pub(crate) fn of(response: Response<Incoming>) -> Self {
        Self {
            body: response.into_body(),
            buffer: BytesMut::new(),
        }
    }

    /// The next line without its end; none once the body has ended or broken off.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[searched..]) {
                let mut line = self.buffer.split_to(searched + end + 1).freeze();
                line.truncate(searched + end);
                return Some(line);
            }
            searched = self.buffer.len();
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}
