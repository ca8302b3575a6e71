//! Why there is no connection.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::fault::Advised;
use crate::identity::proof;
use crate::identity::verify::PeerError;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The hub did not agree to HTTP/2.
    #[error(
        "`{address}` does not speak HTTP/2; is it a port of the hub's, with nothing in between?"
    )]
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
        source: Advised,
    },
    /// Not connected in time.
    #[error("`{address}` did not answer within {deadline:?}; is a firewall in between?")]
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
        source: Advised,
    },
}

/// What to do about a TCP connection that did not come about.
pub(super) fn dialled(error: io::Error) -> Advised {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        let advice = "nothing listens there: is the hub running, and `hub` in agent.yaml right?";
        return Advised::new(error, advice);
    }
    // The standard library has no kind for a failed lookup, only a text of its own.
    if error.to_string().contains("lookup") {
        let advice =
            "is the name in `hub` of agent.yaml right, and known to the DNS of this machine?";
        return Advised::new(error, advice);
    }
    Advised::new(error, "is a firewall in between?")
}

/// What to do about a TLS handshake that failed beside the certificate.
pub(super) fn handshaken(error: io::Error) -> Advised {
    let told = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if matches!(told, Some(rustls::Error::InvalidMessage(_))) {
        let error = io::Error::other("the answer is not TLS");
        return Advised::new(
            error,
            "is an HTTP proxy in between, or `hub` in agent.yaml for another port?",
        );
    }
    Advised::new(error, "is a proxy or a firewall in between?")
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
