//! The hub's side of a handshake: bounded in time, ALPN enforced, the peer or the reason told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls::{ALPN_H2, ALPN_HTTP1};
use super::verify::{self, PeerError, VerifiedPeer};
use crate::limits::HANDSHAKE_TIMEOUT;

/// How long a refused peer may take to read why, and how much of what it sends meanwhile is read.
const PARTING_TIME: Duration = Duration::from_secs(1);
const PARTING_BYTES: usize = 64 * 1024;

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
    let handshake = TlsAcceptor::from(config).accept(io).into_fallible();
    let (finished, verdict) =
        verify::observed(tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)).await;
    let stream = match (finished, &verdict) {
        (Err(_elapsed), _) => return Err(AcceptError::Timeout),
        (Ok(Err((error, io))), verdict) => {
            part(io).await;
            return Err(match verdict {
                Some(Err(refused)) => AcceptError::Refused(refused.clone()),
                Some(Ok(_)) | None => AcceptError::Tls(error),
            });
        }
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

/// Lets a peer that was sent an alert read it.
///
/// In TLS 1.3 a client has finished, and writes its request, before its certificate is looked at. A
/// socket that is closed then answers with a reset, and kubectl was seen to show `broken pipe` where
/// the alert says that its certificate has expired.
async fn part<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO) {
    let parting = async {
        io.shutdown().await?;
        let (mut unread, mut piece) = (PARTING_BYTES, [0; 1024]);
        while unread > 0 {
            let read = io.read(&mut piece).await?;
            if read == 0 {
                break;
            }
            unread = unread.saturating_sub(read);
        }
        io::Result::Ok(())
    };
    let _gone = tokio::time::timeout(PARTING_TIME, parting).await;
}
