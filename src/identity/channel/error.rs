//! Why there is no connection.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::identity::proof;
use crate::identity::verify::PeerError;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The hub did not agree to HTTP/2.
    #[error("`{address}` does not speak HTTP/2 over TLS")]
    Alpn {
        /// The dialled address.
        address: String,
    },
    /// The handshake's keying material could not be exported.
    #[error("could not bind to the connection to `{address}`")]
    Export {
        /// The dialled address.
        address: String,
        /// Why.
        #[source]
        source: proof::ExportError,
    },
    /// HTTP/2 did not start.
    #[error("could not start HTTP/2 with `{address}`")]
    Http2 {
        /// The dialled address.
        address: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The hub's certificate was refused.
    #[error("refused the certificate of `{address}`")]
    Refused {
        /// The dialled address.
        address: String,
        /// Why.
        #[source]
        source: PeerError,
    },
    /// No TCP connection.
    #[error("could not connect to `{address}`")]
    Tcp {
        /// The dialled address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not connected in time.
    #[error("`{address}` was not connected within {deadline:?}")]
    Timeout {
        /// The dialled address.
        address: String,
        /// The time given.
        deadline: Duration,
    },
    /// The handshake failed beside the certificate.
    #[error("the TLS handshake with `{address}` failed")]
    Tls {
        /// The dialled address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ConnectError {
    /// Fixed label for logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Alpn { .. } => "alpn",
            Self::Export { .. } => "export",
            Self::Http2 { .. } => "http2",
            Self::Refused { source, .. } => source.label(),
            Self::Tcp { .. } => "tcp",
            Self::Timeout { .. } => "timeout",
            Self::Tls { .. } => "tls",
        }
    }
}
