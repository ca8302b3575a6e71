//! Where a Kubernetes API is, what opens it, and what can go wrong on the way.

use std::io;
use std::sync::Arc;

use http::{HeaderValue, Method};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret as _;

use crate::secret::SecretBytes;

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

/// TLS as the endpoint wants it: its roots, our certificate, no resumption.
pub(super) fn tls(endpoint: &Endpoint) -> Result<ClientConfig, ReadError> {
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

/// The header that carries a token.
pub(super) fn authorization(credential: &Credential) -> Result<Option<HeaderValue>, ReadError> {
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
