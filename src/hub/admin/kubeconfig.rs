//! A kubeconfig for one account and one client, whose key is made here and goes nowhere else.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Answer, AskError, Request, ask};
use crate::identity::csr::{self, CsrError};
use crate::identity::{KeyError, KeyPair};
use crate::secret::SecretBytes;

/// Why there is no kubeconfig.
#[derive(Debug, Error)]
pub enum KubeconfigError {
    /// The hub could not be asked.
    #[error("cannot ask the hub for a certificate")]
    Ask(#[from] AskError),
    /// The request for a certificate could not be made.
    #[error("cannot make the request for a certificate")]
    Csr(#[from] CsrError),
    /// The key could not be made.
    #[error("cannot make a key")]
    Key(#[from] KeyError),
    /// The hub would not.
    #[error("{0}")]
    Refused(String),
}

/// Has the hub at `socket` certify a new key for `client`, and writes a kubeconfig for `account`.
///
/// # Errors
/// The hub cannot be reached, or does not allow it.
pub async fn kubeconfig(
    socket: &Path,
    account: &str,
    client: &str,
    ttl: Option<Duration>,
) -> Result<SecretBytes, KubeconfigError> {
    let key = KeyPair::generate()?;
    let csr = csr::make(&key)?;
    let request = Request::CertifyClient {
        name: client.to_owned(),
        account: account.to_owned(),
        csr: hex::encode(&*csr),
        ttl_seconds: ttl.map(|ttl| ttl.as_secs()),
    };
    match ask(socket, &request).await? {
        Answer::Certificate {
            chain,
            roots,
            server,
            ..
        } => Ok(document(
            account,
            client,
            &Granted {
                chain,
                roots,
                server,
            },
            &key.to_pkcs8()?,
        )),
        Answer::Error { message } => Err(KubeconfigError::Refused(message)),
        Answer::Done { .. } | Answer::List { .. } | Answer::Token { .. } => Err(
            KubeconfigError::Refused("the hub gave another answer than asked for".to_owned()),
        ),
    }
}

struct Granted {
    chain: String,
    roots: String,
    server: String,
}

fn document(account: &str, client: &str, granted: &Granted, key: &SecretBytes) -> SecretBytes {
    #[expect(
        clippy::disallowed_methods,
        reason = "a kubeconfig holds the client's key"
    )]
    let der = Zeroizing::new(STANDARD.encode(key.expose_secret()));
    let pem = Zeroizing::new(format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        &*der
    ));
    let key = Zeroizing::new(STANDARD.encode(&*pem));
    let (roots, chain) = (
        STANDARD.encode(&granted.roots),
        STANDARD.encode(&granted.chain),
    );
    let server = &granted.server;
    let text = format!(
        "apiVersion: v1\n\
         kind: Config\n\
         current-context: {account}\n\
         contexts:\n\
         - name: {account}\n  \
           context: {{cluster: {account}, user: {client}}}\n\
         clusters:\n\
         - name: {account}\n  \
           cluster:\n    \
             server: {server}\n    \
             certificate-authority-data: {roots}\n\
         users:\n\
         - name: {client}\n  \
           user:\n    \
             client-certificate-data: {chain}\n    \
             client-key-data: {}\n",
        &*key
    );
    SecretBytes::new(text.into_bytes())
}
