//! The built-in issuer: a root and an intermediate in the hub's state folder.
//!
//! `root.pem` and `intermediate.pem` each hold a certificate and its key. A root without its key
//! is fine: the intermediate is then not renewed here, and a successor is taken up from its file.

mod ca;
mod leaf;
mod pem_pair;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::{self, BoxFuture};
use thiserror::Error;

use super::files::{self, FileError};
use super::id::TrustDomain;
use super::issue::{IssueError, Issued, Issuer, Order};
use super::key::KeyError;
use super::trust::{TrustBundle, TrustError};
use crate::clock::{SharedClock, rfc3339};
use crate::entropy::SharedEntropy;

use ca::{Found, INTERMEDIATE, Maker, ROOT, Signer};

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
    /// A certificate has ended, and nothing here can renew it.
    #[error("`{}` has ended and cannot be renewed here: replace it", path.display())]
    Ended {
        /// Which file.
        path: PathBuf,
    },
    /// A certificate begins in the future, and nothing here can make it anew.
    #[error(
        "`{}` is not valid before {}: set this machine's clock, or replace the file if the clock was ahead when it was made",
        path.display(),
        rfc3339(*begin)
    )]
    NotYetValid {
        /// Which file.
        path: PathBuf,
        /// Start of its validity.
        begin: SystemTime,
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
    /// Whether less than a third of the intermediate's life is left.
    pub soon: bool,
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
        let found = match ca::read(folder)? {
            Some(found) => found,
            None => Found::made(folder, &maker)?,
        };
        let trust = found.trust.clone();
        let (root, intermediate) = found.signer(folder, &maker)?;
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
    ///
    /// # Errors
    /// Whatever [`Authority::open`] would not take at `now`.
    pub fn inspect(folder: &Path, now: SystemTime) -> Result<Option<Ends>, AuthorityError> {
        if !files::check_folder(folder)? {
            return Ok(None);
        }
        let Some(found) = ca::read(folder)? else {
            return Ok(None);
        };
        found.stays(folder, now)?;
        let intermediate = found.intermediate.as_ref();
        Ok(Some(Ends {
            root: found.root_validity().1,
            has_root_key: found.root.is_some(),
            intermediate: intermediate.map(|signer| signer.not_after),
            soon: intermediate.is_some_and(|signer| signer.ends_soon(now).is_some()),
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

    /// The intermediate to sign with at `now`, renewed if half of its life is over, or none has begun.
    fn signer(&self, now: SystemTime) -> Result<Arc<Signer>, IssueError> {
        let mut current = self
            .intermediate
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if current.is_due(now) {
            match self.next(&current, now) {
                Ok(Some(next)) => {
                    tracing::info!("intermediate certificate renewed");
                    *current = Arc::new(next);
                }
                Ok(None) => {}
                // It may have half of its life left: the next issue tries again.
                Err(error) => tracing::warn!(
                    error = %crate::fault::Chain(&error),
                    "intermediate certificate not renewed"
                ),
            }
        }
        if now < current.not_before {
            return Err(IssueError::IssuerNotYetValid);
        }
        if now >= current.not_after {
            return Err(IssueError::IssuerExpired);
        }
        Ok(Arc::clone(&current))
    }

    /// What follows `current`: one that the root makes, or without its key whatever was put into the
    /// folder meanwhile; none if that is `current` itself.
    fn next(&self, current: &Signer, now: SystemTime) -> Result<Option<Signer>, AuthorityError> {
        let maker = Maker {
            trust_domain: &self.trust_domain,
            now,
            entropy: &self.entropy,
        };
        if let Some(root) = &self.root {
            let path = self.folder.join(INTERMEDIATE);
            return maker.intermediate(root, &path).map(Some);
        }
        let Some(found) = ca::read(&self.folder)? else {
            return Ok(None);
        };
        // Another root would be another hub to its agents: that is for a start.
        if !found.trust.roots_der().eq(self.trust.roots_der()) {
            return Ok(None);
        }
        let (_, next) = found.signer(&self.folder, &maker)?;
        Ok((next.certificate != current.certificate).then_some(next))
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

    fn not_after(&self) -> SystemTime {
        let current = self.intermediate.lock();
        current.unwrap_or_else(PoisonError::into_inner).not_after
    }

    fn ends_soon(&self, now: SystemTime) -> Option<Duration> {
        let current = self.intermediate.lock();
        current
            .unwrap_or_else(PoisonError::into_inner)
            .ends_soon(now)
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
