//! A kubeconfig for one account and one client, whose key is made here and goes nowhere else.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret as _;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Answer, AskError, Request, ask};
use crate::clock::from_unix_seconds;
use crate::identity::csr::{self, CsrError};
use crate::identity::{KeyError, KeyPair};
use crate::secret::SecretBytes;

/// Characters in a line of PEM (RFC 7468 §2).
const PEM_LINE: usize = 64;

/// Why there is no kubeconfig.
#[derive(Debug, Error)]
pub enum KubeconfigError {
    /// The hub could not be asked.
    #[error("cannot ask the hub for a certificate")]
    Ask(#[source] AskError),
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

/// A kubeconfig, and until when its certificate is good.
#[derive(Debug)]
pub struct Granted {
    /// The document, with the key in it.
    pub document: SecretBytes,
    /// End of the certificate.
    pub not_after: SystemTime,
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
) -> Result<Granted, KubeconfigError> {
    let key = KeyPair::generate()?;
    // The key stays here; the hub sees the request only.
    let csr = csr::make(&key)?;
    let request = Request::CertifyClient {
        name: client.to_owned(),
        account: account.to_owned(),
        csr: hex::encode(&*csr),
        ttl_seconds: ttl.map(|ttl| ttl.as_secs()),
    };
    let (chain, roots, server, not_after) = match ask(socket, &request).await {
        Ok(Answer::Certificate {
            chain,
            roots,
            server,
            not_after,
        }) => (chain, roots, server, not_after),
        Ok(Answer::Error { message }) => return Err(KubeconfigError::Refused(message)),
        Ok(
            Answer::Done { .. }
            | Answer::List { .. }
            | Answer::Changes { .. }
            | Answer::Token { .. },
        ) => {
            let message = "the hub gave another answer than asked for";
            return Err(KubeconfigError::Refused(message.to_owned()));
        }
        Err(error) => return Err(KubeconfigError::Ask(error)),
    };
    let text = document(&Parts {
        account,
        client,
        server: &server,
        roots: &roots,
        chain: &chain,
        key: &key_pem(&key.to_pkcs8()?),
    });
    Ok(Granted {
        document: SecretBytes::new(text.as_bytes().to_vec()),
        not_after: from_unix_seconds(not_after),
    })
}

/// What a kubeconfig is made of; certificates and key as PEM.
struct Parts<'a> {
    account: &'a str,
    client: &'a str,
    server: &'a str,
    roots: &'a str,
    chain: &'a str,
    key: &'a str,
}

/// A kubeconfig (`v1.Config`) with everything inside. The names cannot need quotes to be text,
/// and have them to stay text.
fn document(parts: &Parts<'_>) -> Zeroizing<String> {
    let key = Zeroizing::new(STANDARD.encode(parts.key));
    let (roots, chain) = (STANDARD.encode(parts.roots), STANDARD.encode(parts.chain));
    // Reserved whole, so that no piece of the key is left behind.
    let size = key.len() + roots.len() + chain.len() + 2 * parts.server.len() + 4096;
    let mut out = Zeroizing::new(String::with_capacity(size));
    let Parts {
        account,
        client,
        server,
        ..
    } = parts;
    let _fits = write!(
        out,
        "apiVersion: v1\nkind: Config\n\
         clusters:\n- name: \"{account}\"\n  cluster:\n    server: \"{server}\"\n    \
         certificate-authority-data: {roots}\n\
         users:\n- name: \"{client}\"\n  user:\n    \
         client-certificate-data: {chain}\n    client-key-data: {}\n\
         contexts:\n- name: \"{account}\"\n  context:\n    cluster: \"{account}\"\n    \
         user: \"{client}\"\ncurrent-context: \"{account}\"\n",
        key.as_str()
    );
    out
}

/// A private key in PKCS#8 as PEM.
fn key_pem(private: &SecretBytes) -> Zeroizing<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "written to where the user asked for"
    )]
    let body = Zeroizing::new(STANDARD.encode(private.expose_secret()));
    let mut out = Zeroizing::new(String::with_capacity(2 * body.len() + 128));
    out.push_str("-----BEGIN PRIVATE KEY-----\n");
    let mut rest: &str = &body;
    while !rest.is_empty() {
        let (line, later) = rest.split_at_checked(PEM_LINE).unwrap_or((rest, ""));
        out.push_str(line);
        out.push('\n');
        rest = later;
    }
    out.push_str("-----END PRIVATE KEY-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn a_kubeconfig_holds_the_key_that_was_made() {
        use rustls_pki_types::PrivatePkcs8KeyDer;
        use rustls_pki_types::pem::PemObject as _;

        let key = KeyPair::generate().unwrap();
        let pem = key_pem(&key.to_pkcs8().unwrap());
        let text = document(&Parts {
            account: "123",
            client: "clouddriver",
            server: "https://[::1]:7443/accounts/ab",
            roots: "roots",
            chain: "chain",
            key: &pem,
        });
        let root = yaml::parse(&text).unwrap();
        let of = |list: &str, map: &str, key: &str| {
            let item = &root.get(list).unwrap().as_list().unwrap()[0];
            item.get(map)
                .unwrap()
                .get(key)
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(root.get("current-context").unwrap().as_str(), Some("123"));
        assert_eq!(of("contexts", "context", "cluster"), "123");
        assert_eq!(of("contexts", "context", "user"), "clouddriver");
        assert_eq!(
            of("clusters", "cluster", "server"),
            "https://[::1]:7443/accounts/ab"
        );
        let held = STANDARD
            .decode(of("users", "user", "client-key-data"))
            .unwrap();
        let held = PrivatePkcs8KeyDer::from_pem_slice(&held).unwrap();
        let held = SecretBytes::new(held.secret_pkcs8_der().to_vec());
        assert_eq!(
            KeyPair::from_pkcs8(&held).unwrap().spki_der(),
            key.spki_der()
        );
    }
}
