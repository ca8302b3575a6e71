//! The way to an engine: a client that can do only what is meant.
//!
//! Exactly the configured authorities, no resumption, no redirects (a credential would go along),
//! no proxy, no idle connections (they keep decrypted answers), a bounded body and a deadline.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use super::authorization::read_file;
use super::fetch::Failure;
use super::kubeconfig::parse_roots;
use crate::limits;

/// Largest answer that is read, in bytes: a document of [`limits::YAML_BYTES`], escaped, among
/// other fields.
pub(super) const ANSWER_BYTES: usize = 4 * limits::YAML_BYTES;

/// A client for one errand. The authority file is read each time, so that a renewed one is seen.
///
/// # Errors
/// A file that cannot be read or holds no certificate.
pub(super) async fn client(ca_file: &Path, deadline: Duration) -> Result<reqwest::Client, Failure> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls(ca_file).await?)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .https_only(true)
        .pool_max_idle_per_host(0)
        .connect_timeout(deadline)
        .timeout(deadline)
        .build()
        .map_err(|_error| Failure::unavailable("its TLS settings cannot be used"))
}

/// A body that could not be read to its end.
#[derive(Debug)]
pub(super) enum BodyError {
    /// It broke off.
    Broken(reqwest::Error),
    /// It has more than [`ANSWER_BYTES`].
    TooLarge,
}

/// Reads a body to its end, into memory that is wiped.
pub(super) async fn body(mut response: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    let announced = response.content_length().unwrap_or_default();
    let capacity = usize::try_from(announced)
        .unwrap_or(usize::MAX)
        .min(ANSWER_BYTES);
    let mut body = Zeroizing::new(Vec::with_capacity(capacity));
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? {
        if body.len() + chunk.len() > ANSWER_BYTES {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

async fn tls(ca_file: &Path) -> Result<ClientConfig, Failure> {
    let unusable = Failure::unavailable("the configured `ca-file` cannot be read");
    let Ok(pem) = read_file(ca_file, limits::YAML_BYTES).await else {
        return Err(unusable);
    };
    let mut roots = RootCertStore::empty();
    let Ok(certificates) = parse_roots(&pem) else {
        return Err(unusable);
    };
    for certificate in certificates {
        roots.add(certificate).map_err(|_error| unusable.clone())?;
    }
    let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|_error| Failure::unavailable("its TLS settings cannot be used"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(tls)
}

/// Whether a refused certificate is among the causes. An `io::Error` hides what it wraps from
/// `source`.
pub(super) fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return matches!(tls, rustls::Error::InvalidCertificate(_));
        }
        next = match error.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    false
}
