//! The built-in issuer: a root and an intermediate in the hub's state folder.
//!
//! `root.pem` and `intermediate.pem` each hold a certificate and its key. A root without its key
//! is fine: the intermediate is then not renewed here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use futures_util::FutureExt as _;
use futures_util::future::{self, BoxFuture};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::files::{self, FileError};
use super::id::TrustDomain;
use super::issue::{IssueError, Issued, Issuer, Order};
use super::key::{KeyError, KeyPair};
use super::profile::{BACKDATE, INTERMEDIATE_TTL, ROOT_TTL};
use super::trust::{TrustBundle, TrustError};
use super::verify::rules;
use super::{leaf, pem_pair};
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;

/// Why the built-in issuer does not open.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// A file could not be used.
    #[error("could not use the certificate authority's state folder")]
    File(#[from] FileError),
    /// A file does not hold what it should.
    #[error(
        "`{}` {reason}: restore it from a backup; nothing is made anew over an existing file",
        path.display()
    )]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key provider failed.
    #[error("could not make the certificate authority's key")]
    Key(#[from] KeyError),
    /// A certificate could not be signed.
    #[error("could not sign the certificate authority's certificate")]
    Sign(#[from] rcgen::Error),
    /// The random number generator gave nothing.
    #[error("could not draw a serial number")]
    Entropy,
    /// The root is refused by our own checks.
    #[error("the certificate authority's root cannot be trusted")]
    Trust(#[from] TrustError),
    /// The intermediate has ended and the root's key is not here.
    #[error(
        "`{}` has ended and there is no root key to renew it: replace it",
        path.display()
    )]
    Expired {
        /// Which file.
        path: PathBuf,
    },
}

/// A CA certificate with the key to sign with.
pub(super) struct Signer {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) issuer: rcgen::Issuer<'static, KeyPair>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Signer {
    fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, &'static str> {
        let (rest, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|_detail| "does not hold a well-formed certificate")?;
        if !rest.is_empty() {
            return Err("holds a certificate followed by other bytes");
        }
        rules::authority(&parsed)?;
        if parsed.public_key().raw != key.spki_der() {
            return Err("holds a key that does not fit its certificate");
        }
        let (not_before, not_after) = rules::validity(&parsed);
        let issuer = rcgen::Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|_detail| "holds a certificate that cannot issue others")?;
        Ok(Self {
            certificate,
            issuer,
            not_before,
            not_after,
        })
    }

    /// Half of the life is over.
    fn is_due(&self, now: SystemTime) -> bool {
        let life = self
            .not_after
            .duration_since(self.not_before)
            .unwrap_or_default();
        now >= self.not_before + life / 2
    }
}

/// The built-in issuer.
pub struct Authority {
    folder: PathBuf,
    trust_domain: TrustDomain,
    clock: SharedClock,
    entropy: SharedEntropy,
    trust: TrustBundle,
    root: Option<Signer>,
    intermediate: Mutex<Arc<Signer>>,
}

impl Authority {
    /// Opens the authority kept in `folder`, and makes it there at the first start.
    pub fn open(
        folder: &Path,
        trust_domain: TrustDomain,
        clock: SharedClock,
        entropy: SharedEntropy,
    ) -> Result<Self, AuthorityError> {
        files::open_folder(folder)?;
        let maker = Maker {
            trust_domain: &trust_domain,
            now: clock.now(),
            entropy: &entropy,
        };
        let (certificate, root) = open_root(&folder.join("root.pem"), folder, &maker)?;
        let trust = TrustBundle::new(1, std::slice::from_ref(&certificate))?;
        let intermediate = open_intermediate(folder, root.as_ref(), &certificate, &maker)?;
        Ok(Self {
            folder: folder.to_owned(),
            trust,
            root,
            intermediate: Mutex::new(Arc::new(intermediate)),
            trust_domain,
            clock,
            entropy,
        })
    }

    /// The intermediate to sign with at `now`, renewed if half of its life is over.
    fn signer(&self, now: SystemTime) -> Result<Arc<Signer>, IssueError> {
        let mut current = self
            .intermediate
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if current.is_due(now)
            && let Some(root) = &self.root
        {
            let maker = Maker {
                trust_domain: &self.trust_domain,
                now,
                entropy: &self.entropy,
            };
            match maker.intermediate(root, &self.folder.join(INTERMEDIATE)) {
                Ok(renewed) => {
                    tracing::info!("intermediate certificate renewed");
                    *current = Arc::new(renewed);
                }
                // Half of its life is left: the next issue tries again.
                Err(error) => tracing::warn!(
                    error = %crate::fault::Chain(&error),
                    "intermediate certificate not renewed"
                ),
            }
        }
        if now >= current.not_after {
            return Err(IssueError::IssuerExpired);
        }
        Ok(Arc::clone(&current))
    }

    fn issue_now(&self, order: &Order) -> Result<Issued, IssueError> {
        order.check()?;
        if order.id.trust_domain != self.trust_domain {
            let reason = "is for another trust domain";
            return Err(IssueError::Order {
                id: Box::new(order.id.clone()),
                reason,
            });
        }
        let now = self.clock.now();
        leaf::issue(order, &*self.signer(now)?, now, &*self.entropy)
    }
}

impl Issuer for Authority {
    fn issue<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Issued, IssueError>> {
        // Signing takes some 50 µs; only the intermediate's renewal, every 45 days, touches a disk.
        future::lazy(|_context| self.issue_now(order)).boxed()
    }

    fn roots(&self) -> TrustBundle {
        self.trust.clone()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("folder", &self.folder)
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

const INTERMEDIATE: &str = "intermediate.pem";

fn open_root(
    path: &Path,
    folder: &Path,
    maker: &Maker<'_>,
) -> Result<(CertificateDer<'static>, Option<Signer>), AuthorityError> {
    let content = |reason| AuthorityError::Content {
        path: path.to_owned(),
        reason,
    };
    let Some(text) = files::read(path)? else {
        if files::read(&folder.join(INTERMEDIATE))?.is_some() {
            return Err(content("is missing, but there is an intermediate"));
        }
        let root = maker.root(path)?;
        return Ok((root.certificate.clone(), Some(root)));
    };
    let (certificate, key) = pem_pair::read(&text).map_err(content)?;
    let root = key
        .map(|key| Signer::new(certificate.clone(), key))
        .transpose()
        .map_err(content)?;
    Ok((certificate, root))
}

fn open_intermediate(
    folder: &Path,
    root: Option<&Signer>,
    root_certificate: &CertificateDer<'_>,
    maker: &Maker<'_>,
) -> Result<Signer, AuthorityError> {
    let path = folder.join(INTERMEDIATE);
    let content = |reason| AuthorityError::Content {
        path: path.clone(),
        reason,
    };
    let current = match files::read(&path)? {
        None => None,
        Some(text) => {
            let (certificate, key) = pem_pair::read(&text).map_err(content)?;
            let key = key.ok_or(content("holds no private key"))?;
            if !leaf::is_signed_by(&certificate, root_certificate) {
                return Err(content("is not signed by the root"));
            }
            Some(Signer::new(certificate, key).map_err(content)?)
        }
    };
    match (current, root) {
        (Some(current), _) if !current.is_due(maker.now) => Ok(current),
        (_, Some(root)) => maker.intermediate(root, &path),
        (Some(current), None) if current.not_after > maker.now => Ok(current),
        (Some(_), None) => Err(AuthorityError::Expired { path }),
        (None, None) => Err(content("is missing, and there is no root key to make it")),
    }
}

/// Makes CA certificates.
struct Maker<'a> {
    trust_domain: &'a TrustDomain,
    now: SystemTime,
    entropy: &'a SharedEntropy,
}

impl Maker<'_> {
    fn root(&self, path: &Path) -> Result<Signer, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = self.params("root", BasicConstraints::Unconstrained)?;
        params.not_after = (self.now + ROOT_TTL).into();
        let certificate = params.self_signed(&key)?.der().clone();
        keep(path, certificate, key)
    }

    fn intermediate(&self, root: &Signer, path: &Path) -> Result<Signer, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = self.params("intermediate", BasicConstraints::Constrained(0))?;
        params.not_after = (self.now + INTERMEDIATE_TTL).min(root.not_after).into();
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &root.issuer)?.der().clone();
        keep(path, certificate, key)
    }

    fn params(
        &self,
        kind: &str,
        constraints: BasicConstraints,
    ) -> Result<CertificateParams, AuthorityError> {
        let serial = leaf::serial(&**self.entropy).ok_or(AuthorityError::Entropy)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // The serial's start keeps successive intermediates apart, so that a path has one way.
        let mark = hex::encode(serial.to_bytes().get(1..5).unwrap_or_default());
        let name = format!("{} {kind} {mark}", self.trust_domain);
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(serial);
        params.is_ca = IsCa::Ca(constraints);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = self.now.checked_sub(BACKDATE).unwrap_or(self.now).into();
        Ok(params)
    }
}

/// Writes the file first: what is not kept is not used.
fn keep(
    path: &Path,
    certificate: CertificateDer<'static>,
    key: KeyPair,
) -> Result<Signer, AuthorityError> {
    files::replace(path, &pem_pair::write(&certificate, &key)?)?;
    Signer::new(certificate, key).map_err(|reason| AuthorityError::Content {
        path: path.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests;
