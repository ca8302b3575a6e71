//! The hub's side of a handshake: bounded in time, ALPN enforced, the peer or the reason told.

use std::io;

use rustls::ServerConfig;
use std::sync::Arc;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls::{ALPN_H2, ALPN_HTTP1};
use super::verify::{self, PeerError, VerifiedPeer};
use crate::limits::HANDSHAKE_TIMEOUT;

/// What the two sides agreed to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A finished handshake.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The connection.
    pub stream: TlsStream<IO>,
    /// Who is at the other end; `None` only where no certificate is asked for.
    pub peer: Option<VerifiedPeer>,
    /// What to speak.
    pub protocol: Protocol,
}

/// Why a handshake failed.
#[derive(Debug, Error)]
pub enum AcceptError {
    /// The peer offered no ALPN protocol where only HTTP/2 is spoken: rustls lets that through, we
    /// do not.
    #[error("the peer named no application protocol")]
    Alpn,
    /// The peer's certificate was refused.
    #[error("refused the peer's certificate")]
    Refused(#[source] PeerError),
    /// Not finished within [`HANDSHAKE_TIMEOUT`].
    #[error("the TLS handshake took longer than {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
    /// Failed before or beside the certificate.
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
}

impl AcceptError {
    /// Fixed label for logs, metrics and audit.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Alpn => "alpn",
            Self::Refused(error) => error.label(),
            Self::Timeout => "timeout",
            Self::Tls(_) => "tls",
        }
    }
}

/// Runs the handshake of one accepted socket.
pub async fn accept<IO>(config: Arc<ServerConfig>, io: IO) -> Result<Accepted<IO>, AcceptError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // Without ALPN, HTTPS means HTTP/1.1: kubectl connects so for exec, and has to read why not.
    let speaks_http1 = config.alpn_protocols.iter().any(|it| it == ALPN_HTTP1);
    let handshake = TlsAcceptor::from(config).accept(io);
    let (finished, verdict) =
        verify::observed(tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)).await;
    let stream = match (finished, &verdict) {
        (Err(_elapsed), _) => return Err(AcceptError::Timeout),
        (Ok(Err(_alert)), Some(Err(refused))) => {
            return Err(AcceptError::Refused(refused.clone()));
        }
        (Ok(Err(error)), _) => return Err(AcceptError::Tls(error)),
        (Ok(Ok(stream)), _) => stream,
    };
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(ALPN_H2) => Protocol::Http2,
        Some(ALPN_HTTP1) => Protocol::Http1,
        None if speaks_http1 => Protocol::Http1,
        Some(_) | None => return Err(AcceptError::Alpn),
    };
    let peer = verdict.and_then(Result::ok);
    Ok(Accepted {
        stream,
        peer,
        protocol,
    })
}
