//! How speaking to an API server fails.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};
use thiserror::Error;

use crate::credential::AuthorizationError;
use crate::fault::Advised;
use crate::retry::Retry;

/// Why an account cannot be served; printed as its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The credential is not accepted.
    ApiUnauthorized,
    /// The API server cannot be reached or does not answer as one.
    ApiUnreachable,
    /// The API server's certificate is not trusted.
    ApiUntrusted,
}

impl Reason {
    /// The name, as account states and metrics show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiUnauthorized => "ApiUnauthorized",
            Self::ApiUnreachable => "ApiUnreachable",
            Self::ApiUntrusted => "ApiUntrusted",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request that got no usable answer. Never holds a body.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The connection ended while it was used.
    #[error("connection to the API server broke")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    /// More streams than the pool may hold.
    #[error("all connections to the API server are in use")]
    Exhausted,
    /// Status 403 to a request of our own.
    #[error("API server refuses us `{0}`")]
    Forbidden(&'static str),
    /// Not HTTP, or not the HTTP that is accepted.
    #[error("API server {0}")]
    Protocol(&'static str),
    /// A request that cannot be sent.
    #[error("request {0}")]
    Request(&'static str),
    /// Another status than is needed, to a request of our own.
    #[error("API server answered `{what}` with status {status}")]
    Status {
        /// What was asked for.
        what: &'static str,
        /// The status code.
        status: u16,
    },
    /// No progress in time.
    #[error(
        "API server did not give {what} within {after:?}; is it overloaded, or the way to it blocked?"
    )]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// Neither a token nor a client certificate can be had.
    #[error("cannot prove who we are to the API server")]
    Token(#[source] AuthorizationError),
    /// More than is read.
    #[error("{what} is larger than {max} bytes")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// The limit, in bytes.
        max: usize,
    },
    /// Status 401, or a client certificate that was refused.
    #[error(
        "API server does not accept the credential; has the token or the certificate in it expired?"
    )]
    Unauthorized,
    /// Name, address or port that leads nowhere.
    #[error("cannot reach the API server at {server}")]
    Unreachable {
        /// Its address.
        server: String,
        /// Why.
        #[source]
        source: Advised,
    },
    /// Its certificate does not end at the credential's authorities, or not in its name.
    #[error("certificate of the API server at {server} is not trusted")]
    Untrusted {
        /// Its address.
        server: String,
        /// Why.
        #[source]
        source: Advised<&'static str>,
    },
}

impl ClusterError {
    /// What the account's state says about it.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Forbidden(_) | Self::Token(_) | Self::Unauthorized => Reason::ApiUnauthorized,
            Self::Untrusted { .. } => Reason::ApiUntrusted,
            Self::Broken(_)
            | Self::Exhausted
            | Self::Protocol(_)
            | Self::Request(_)
            | Self::Status { .. }
            | Self::TimedOut { .. }
            | Self::TooLarge { .. }
            | Self::Unreachable { .. } => Reason::ApiUnreachable,
        }
    }

    /// Whether the same request may succeed later.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Request(_) | Self::TooLarge { .. } => Retry::Never,
            _ => Retry::Backoff,
        }
    }

    /// A failure while connecting: tells certificates that are not trusted, ours and theirs, from
    /// everything else.
    pub(super) fn connecting(server: &str, error: io::Error) -> Self {
        let server = server.to_owned();
        match tls_cause(&error) {
            Some(rustls::Error::InvalidCertificate(certificate)) => Self::Untrusted {
                server,
                source: distrusted(certificate),
            },
            Some(rustls::Error::AlertReceived(alert)) if blames_us(*alert) => Self::Unauthorized,
            _ => Self::Unreachable {
                server,
                source: unreached(error),
            },
        }
    }

    /// A failure on an open connection. In TLS 1.3 the server judges our certificate only now.
    pub(super) fn broken(error: impl Error + Send + Sync + 'static) -> Self {
        match tls_cause(&error) {
            Some(rustls::Error::AlertReceived(alert)) if blames_us(*alert) => Self::Unauthorized,
            _ => Self::Broken(Box::new(error)),
        }
    }
}

/// What is wrong with the API server's certificate, for the owner of the kubeconfig.
const fn distrusted(error: &CertificateError) -> Advised<&'static str> {
    use CertificateError as E;
    match error {
        E::UnknownIssuer | E::BadSignature => Advised::new(
            "it does not end in the authority that the credential names",
            "is `certificate-authority-data` that of this cluster, and does nothing in between end TLS?",
        ),
        E::NotValidForName | E::NotValidForNameContext { .. } => Advised::new(
            "it is for another name",
            "dial one of its names, or set `tls-server-name` in the kubeconfig",
        ),
        E::Expired | E::ExpiredContext { .. } => {
            Advised::new("it has expired", "is this machine's clock right?")
        }
        E::NotValidYet | E::NotValidYetContext { .. } => {
            Advised::new("it is not valid yet", "is this machine's clock right?")
        }
        _ => Advised::new("it is not accepted", ""),
    }
}

fn unreached(error: io::Error) -> Advised {
    let advice = match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there",
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::TimedOut => "is a firewall or a NetworkPolicy in between?",
        _ => "",
    };
    Advised::new(error, advice)
}

const fn blames_us(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

/// The TLS error among the causes. An `io::Error` hides what it wraps from `source`.
fn tls_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        next = match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}
