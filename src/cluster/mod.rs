//! The connection to one API server: TLS from a credential, an HTTP/2 pool, the wiping HTTP/1.1
//! reader, discovery.
//!
//! ```text
//! ApiRequest ──▶ Cluster ─┬ Pooled ─▶ HTTP/2, ≤ 90 streams each (HTTP/1.1 if that is all) ─┬▶ ApiBody ──read──▶ secret::Buffer
//!                         └ Wiping ─▶ own HTTP/1.1, one connection per request ────────────┘
//! ```
//! Requests whose answers hold secrets go over [`Transport::Wiping`]: general HTTP libraries keep
//! decrypted bytes in live buffers that no allocator sees.
//!
//! # Invariants
//! - The server is trusted by the credential's own authorities only, unless the account allows
//!   another thing by name ([`crate::credential::Trust`]); TLS sessions are never
//!   resumed, because a resumed one skips the certificate check (enforced by: [`connect`]).
//! - An address that no API server has is not dialled, whatever its name resolves to
//!   ([`crate::credential::is_refused_address`]).
//! - Heads, chunks and discovery documents are bounded; bodies are read in steps into the caller's
//!   bounded buffer.
//! - Dropping a [`Cluster::send`] or an [`ApiBody`] closes its stream or connection; so does a
//!   deadline.
//! # Failure
//! - [`ClusterError`] never holds an answer's body; [`ClusterError::reason`] is what the account's
//!   state says. Nobody retries here, except a request that a closing connection gave back unsent.
//! # Sources
//! - RFC 9112 (HTTP/1.1), §6.3 message body length, §7.1 chunked coding; RFC 9113 (HTTP/2);
//!   RFC 1928 and 1929 (SOCKS 5); Kubernetes API concepts, "API discovery".

mod anybody;
mod body;
mod connect;
mod discovery;
mod error;
mod link;
mod pooled;
mod proxy;
mod queries;
mod request;
mod socks;
mod wiping;

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tokio::time::timeout;

pub use body::ApiBody;
pub use discovery::Discovery;
pub use error::{ClusterError, Reason};
pub use request::{ApiRequest, RequestBody, Transport};
/// The decoders of the wiping reader.
pub use wiping::{ChunkStep, Chunked, Framing, Head, parse_head};

use crate::credential::Credential;
use crate::limits;
use crate::tasks::Tasks;

/// The connection to one API server, with one credential.
///
/// A changed credential is a new `Cluster`, and so is a client certificate that was renewed; the
/// connections of the old one close when their last answer has been read or dropped.
#[derive(Debug)]
pub struct Cluster {
    credential: Arc<Credential>,
    /// Shown by all its connections.
    certificate: Option<Arc<CertifiedKey>>,
    tasks: Tasks,
    /// Short requests and watches do not share connections, so that neither waits for the other's
    /// windows.
    unary: pooled::Pool,
    watches: pooled::Pool,
    wiping: connect::Connector,
}

/// An answer whose head has been read.
#[derive(Debug)]
pub struct ApiAnswer {
    /// The status code; every code is an answer here.
    pub status: u16,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body, not yet read.
    pub body: ApiBody,
}

impl Cluster {
    /// Prepares connections; nothing is dialled yet, but a client certificate that has to be made is
    /// made. Their tasks belong to `tasks`.
    ///
    /// # Errors
    /// A credential whose certificates cannot be used for TLS, or cannot be made.
    pub async fn new(credential: Arc<Credential>, tasks: Tasks) -> Result<Self, ClusterError> {
        let certificate = credential.auth().certificate().await;
        let certificate = certificate.map_err(ClusterError::Token)?;
        let connector =
            |alpn| connect::Connector::new(Arc::clone(&credential), certificate.as_ref(), alpn);
        let both: &[&[u8]] = &[b"h2", b"http/1.1"];
        Ok(Self {
            unary: pooled::Pool::new(connector(both)?, tasks.clone()),
            watches: pooled::Pool::new(connector(both)?, tasks.clone()),
            wiping: connector(&[b"http/1.1"])?,
            credential,
            certificate,
            tasks,
        })
    }

    /// Opens a connection and closes it: whether the API server of `credential` can be reached and is
    /// trusted, without telling it who is asking.
    ///
    /// # Errors
    /// Everything that keeps a connection from being opened.
    pub async fn reach(credential: Arc<Credential>) -> Result<(), ClusterError> {
        let connector = connect::Connector::new(credential, None, &[b"http/1.1"])?;
        connector.connect(|socket| socket).await.map(drop)
    }

    /// Waits until its connections show a client certificate that has been replaced, and renews it
    /// in time; for ever where there is none to renew.
    pub async fn outlived(&self) {
        let auth = self.credential.auth();
        auth.certificate_replaced(self.certificate.as_ref()).await;
    }

    /// The same with the newest client certificate.
    ///
    /// # Errors
    /// As those of [`Cluster::new`].
    pub async fn renewed(&self) -> Result<Self, ClusterError> {
        Self::new(Arc::clone(&self.credential), self.tasks.clone()).await
    }

    /// The credential it was made with.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Sends a request and reads the head of its answer.
    ///
    /// Cancel-safe: dropping it closes the stream or connection; whether the server has acted on
    /// the request is then unknown.
    ///
    /// # Errors
    /// Everything that keeps an answer from being read, and no answer within
    /// [`limits::ANSWER_TIMEOUT`] unless the request is long-running. A status is not an error.
    pub async fn send(&self, request: ApiRequest<'_>) -> Result<ApiAnswer, ClusterError> {
        let is_long_running = request.long_running;
        // On the heap: two TLS sessions under construction would make every caller's future large.
        let answer = Box::pin(self.send_unbounded(request));
        if is_long_running {
            return answer.await;
        }
        timeout(limits::ANSWER_TIMEOUT, answer)
            .await
            .unwrap_or(Err(ClusterError::TimedOut {
                what: "an answer",
                after: limits::ANSWER_TIMEOUT,
            }))
    }

    async fn send_unbounded(&self, request: ApiRequest<'_>) -> Result<ApiAnswer, ClusterError> {
        let checked = request::Checked::new(request, &self.credential).await?;
        let answer = match checked.transport {
            Transport::Wiping => wiping::send(&self.wiping, checked).await,
            Transport::Pooled if checked.long_running => self.watches.send(checked).await,
            Transport::Pooled => self.unary.send(checked).await,
        };
        if answer.as_ref().is_ok_and(|answer| answer.status == 401) {
            self.credential.auth().refused();
        }
        answer
    }
}

#[cfg(test)]
mod tests;
