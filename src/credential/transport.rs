//! The way to an engine: a client that can do only what is meant.
//!
//! Exactly the configured authorities, or those of the system where none is configured; no
//! resumption, no redirects (a credential would go along), no proxy, no idle connections (they keep
//! decrypted answers), a bounded body and a deadline.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use reqwest::redirect;
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::CertificateDer;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::authorization::read_file;
use super::certificate::{self, Unusable};
use super::fetch::{Failure, FetchErrorKind};
use super::kubeconfig::parse_roots;
use super::own_certificate::OwnCertificate;
use crate::limits;

/// Largest answer that is read, in bytes: a document of [`limits::YAML_BYTES`], escaped, among
/// other fields.
pub(super) const ANSWER_BYTES: usize = 4 * limits::YAML_BYTES;

/// Longest wait that is believed when an engine asks for one; after it we look ourselves.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// Certificates that TLS cannot work with.
const UNUSABLE: Failure = Failure::unavailable("its TLS settings cannot be used");

/// The certificate that is shown to an engine, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The agent's own.
    Own,
    /// One of these files, which are read each time.
    Files {
        /// The certificate, with those between it and its authority; PEM.
        certificate_file: PathBuf,
        /// The key, PEM.
        key_file: PathBuf,
    },
}

/// A client for one errand, which shows this certificate if it is asked for one. The authorities are
/// read each time, so that renewed ones are seen.
///
/// # Errors
/// A file that cannot be read or does not hold what it should; a system without authorities.
pub(super) async fn client_as(
    certificate: Option<Arc<CertifiedKey>>,
    ca_file: Option<&Path>,
    deadline: Duration,
) -> Result<reqwest::Client, Failure> {
    let roots = match ca_file {
        Some(path) => roots_of(path).await?,
        None => roots_of_system().await?,
    };
    build(tls(certificate, roots)?, true, deadline)
}

/// A client for services of the machine itself, which are spoken to without TLS; it trusts nobody
/// else. The caller has made sure of the address.
///
/// # Errors
/// None that is expected.
#[cfg(feature = "aws")]
pub(super) fn link_local_client(deadline: Duration) -> Result<reqwest::Client, Failure> {
    build(tls(None, RootCertStore::empty())?, false, deadline)
}

fn build(
    tls: ClientConfig,
    https_only: bool,
    deadline: Duration,
) -> Result<reqwest::Client, Failure> {
    contained(tls, deadline)
        .https_only(https_only)
        .timeout(deadline)
        .build()
        .map_err(|_error| UNUSABLE)
}

/// What every client is made of; whoever takes it bounds the time of an answer.
pub(super) fn contained(tls: ClientConfig, connect: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .https_only(true)
        .pool_max_idle_per_host(0)
        .connect_timeout(connect)
}

/// TLS that trusts exactly these authorities, and shows this certificate when it is asked for one.
///
/// # Errors
/// An authority that cannot be one.
pub(super) fn trusting(
    authorities: impl IntoIterator<Item = CertificateDer<'static>>,
    key: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|_error| UNUSABLE)?;
    }
    tls(key, roots)
}

fn verifying(
    roots: RootCertStore,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Failure> {
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|_error| UNUSABLE)?;
    Ok(tls.with_root_certificates(roots))
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

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        Self::unavailable(match error {
            BodyError::Broken(_) => "its answer broke off",
            BodyError::TooLarge => "its answer is too large",
        })
    }
}

/// When an engine asks to be left alone until: `Retry-After` in seconds, RFC 9110 §10.2.3.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    wait(headers.get(RETRY_AFTER)?.to_str().ok()?)
}

/// The seconds in the text of a `Retry-After`, [`LONGEST_WAIT`] at most; the other form, a date, is
/// not used by the engines.
pub(super) fn wait(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

fn tls(
    certificate: Option<Arc<CertifiedKey>>,
    roots: RootCertStore,
) -> Result<ClientConfig, Failure> {
    let tls = verifying(roots)?;
    let mut tls = match certificate {
        Some(shown) => tls.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown))),
        None => tls.with_no_client_auth(),
    };
    tls.resumption = Resumption::disabled();
    Ok(tls)
}

async fn roots_of(ca_file: &Path) -> Result<RootCertStore, Failure> {
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
    Ok(roots)
}

/// TLS that trusts the authorities of the system.
///
/// # Errors
/// A system that has none.
pub(super) async fn trusting_system() -> Result<ClientConfig, Failure> {
    tls(None, roots_of_system().await?)
}

/// Read once per process: a system's authorities change with its image.
async fn roots_of_system() -> Result<RootCertStore, Failure> {
    static ROOTS: OnceCell<RootCertStore> = OnceCell::const_new();
    let missing = "this system has no certificate authorities; name one as `ca-file`";
    let read = || async {
        let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
        let certificates = loaded.map_err(|_panic| Failure::unavailable(missing))?;
        let mut roots = RootCertStore::empty();
        // Systems carry some that no verifier can use.
        let (added, _ignored) = roots.add_parsable_certificates(certificates.certs);
        if added == 0 {
            return Err(Failure::unavailable(missing));
        }
        Ok(roots)
    };
    ROOTS.get_or_try_init(read).await.cloned()
}

impl Identity {
    /// The certificate of the moment, with its key.
    ///
    /// # Errors
    /// Files that cannot be read or do not fit; a process without a certificate.
    pub(super) async fn current(&self, own: &OwnCertificate) -> Result<Arc<CertifiedKey>, Failure> {
        match self {
            Self::Own => own.current().await,
            Self::Files {
                certificate_file,
                key_file,
            } => read(certificate_file, key_file).await.map(Arc::new),
        }
    }
}

async fn read(certificate_file: &Path, key_file: &Path) -> Result<CertifiedKey, Failure> {
    let chain = read_file(certificate_file, limits::YAML_BYTES).await;
    let key = read_file(key_file, limits::YAML_BYTES).await;
    let no_chain =
        Failure::local("the configured `certificate-file` cannot be read or holds no certificate");
    let no_key = Failure::local(
        "the configured `key-file` cannot be read or holds no key, or not that of `certificate-file`",
    );
    let chain = chain.map_err(|_error| no_chain.clone())?;
    let key = key.map_err(|_error| no_key.clone())?;
    certificate::pair(&chain, &key).map_err(|unusable| match unusable {
        Unusable::Chain(_) => no_chain,
        Unusable::Key(_) => no_key,
    })
}

/// Whether an engine refuses with this status: with it whatever stands before the engine does, too,
/// so that alone it says nothing about a secret.
pub(super) const fn is_refusal(status: u16) -> bool {
    matches!(status, 400 | 401 | 403..=405)
}

/// Whether a failure is a refusal that the engine itself did not write, and so an outage of it.
pub(super) fn is_foreign(failure: &Failure) -> bool {
    let is_down = matches!(failure.kind, FetchErrorKind::Unavailable { .. });
    is_down && failure.status.is_some_and(is_refusal)
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
