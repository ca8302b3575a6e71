//! The built-in issuer: a root and an intermediate in the hub's state folder.
//!
//! `root.pem` and `intermediate.pem` each hold a certificate and its key. A root without its key
//! is fine: the intermediate is then not renewed here.

mod ca;
mod leaf;
mod pem_pair;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use futures_util::FutureExt as _;
use futures_util::future::{self, BoxFuture};
use thiserror::Error;

use super::files::{self, FileError};
use super::id::TrustDomain;
use super::issue::{IssueError, Issued, Issuer, Order};
use super::key::KeyError;
use super::trust::{TrustBundle, TrustError};
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;

use ca::{INTERMEDIATE, Maker, Signer, open_intermediate, open_root};

/// Name of the root's file.
const ROOT: &str = "root.pem";

/// Why the built-in issuer does not open.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// A file could not be used.
    #[error(transparent)]
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

/// When the certificates of an authority end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The root.
    pub root: SystemTime,
    /// Whether the root's key is here, to renew the intermediate with.
    pub has_root_key: bool,
    /// The intermediate; none if it is missing.
    pub intermediate: Option<SystemTime>,
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
        let (certificate, root) = open_root(&folder.join(ROOT), folder, &maker)?;
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

    /// When the certificates kept in `folder` end; nothing is made or changed. None if the authority
    /// was not made yet.
    pub fn inspect(folder: &Path) -> Result<Option<Ends>, AuthorityError> {
        let root_file = folder.join(ROOT);
        let Some((root, has_key)) = inspect(&root_file)? else {
            return Ok(None);
        };
        let intermediate = inspect(&folder.join(INTERMEDIATE))?;
        Ok(Some(Ends {
            root,
            has_root_key: has_key,
            intermediate: intermediate.map(|(intermediate, _)| intermediate),
        }))
    }

    /// Copies the files of an authority to the new folder `to`, while it may be in use.
    ///
    /// # Errors
    /// A file cannot be read, or not be written.
    pub fn copy(from: &Path, to: &Path) -> Result<(), AuthorityError> {
        files::open_folder(to)?;
        for name in [ROOT, INTERMEDIATE] {
            if let Some(content) = files::read(&from.join(name))? {
                files::replace(&to.join(name), &content)?;
            }
        }
        Ok(())
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

/// The end of the certificate in a file, and whether its key is there; none without the file.
fn inspect(path: &Path) -> Result<Option<(SystemTime, bool)>, AuthorityError> {
    let content = |reason| AuthorityError::Content {
        path: path.to_owned(),
        reason,
    };
    let Some(text) = files::read(path)? else {
        return Ok(None);
    };
    let (certificate, key) = pem_pair::read(&text).map_err(content)?;
    let not_after = ca::not_after(&certificate).map_err(content)?;
    Ok(Some((not_after, key.is_some())))
}

impl Issuer for Authority {
    fn issue<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Issued, IssueError>> {
        // Signing takes some 50 µs; only the intermediate's renewal, every 45 days, touches a disk.
        future::lazy(|_context| self.issue_now(order)).boxed()
    }

    fn not_after(&self) -> SystemTime {
        let current = self.intermediate.lock();
        current.unwrap_or_else(PoisonError::into_inner).not_after
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
