//! Why a connection is gone, as its socket says it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Why a connection is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The hub sent a TLS alert.
    Alert(AlertDescription),
    /// The connection was cut or ended.
    Cut(io::ErrorKind),
    /// This side let go of it.
    Dropped,
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Alert(alert) => write!(f, "the hub refused the connection: {alert:?}"),
            Self::Cut(kind) => write!(f, "the connection to the hub was cut: {kind}"),
            Self::Dropped => f.write_str("the connection to the hub was let go"),
        }
    }
}

impl Closed {
    /// Whether the hub refused this agent's certificate, and only another one helps.
    ///
    /// A missing, expired or unknown certificate calls for enrolling anew; a revoked one for an
    /// operator.
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Alert(
                AlertDescription::AccessDenied
                    | AlertDescription::BadCertificate
                    | AlertDescription::CertificateExpired
                    | AlertDescription::CertificateRequired
                    | AlertDescription::CertificateRevoked
                    | AlertDescription::CertificateUnknown
                    | AlertDescription::DecryptError
                    | AlertDescription::UnknownCA
                    | AlertDescription::UnsupportedCertificate
            )
        )
    }

    /// Whether the hub has banned this agent.
    pub const fn is_ban(&self) -> bool {
        matches!(self, Self::Alert(AlertDescription::CertificateRevoked))
    }
}

/// Keeps what the socket said first: hyper and tonic replace it by their own words.
pub(super) struct Watched {
    pub(super) io: TlsStream<TcpStream>,
    pub(super) reason: Arc<OnceLock<Closed>>,
}

impl Watched {
    fn note(&self, error: &io::Error) {
        let told = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let closed = match told {
            Some(rustls::Error::AlertReceived(alert)) => Closed::Alert(*alert),
            Some(_) | None => Closed::Cut(error.kind()),
        };
        // The first reason is the one that is told.
        self.reason.get_or_init(|| closed);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_read(context, into);
        if let Poll::Ready(Err(error)) = &outcome {
            self.note(error);
        }
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
