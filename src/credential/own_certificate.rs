//! The certificate of the agent itself, for engines that know it by that.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::fetch::Failure;

/// The certificate that the process has at the moment, with its key; it changes while it runs.
#[derive(Clone, Default)]
pub struct OwnCertificate(Option<watch::Receiver<Option<Arc<CertifiedKey>>>>);

impl OwnCertificate {
    /// The one that is told here, each time it is needed; none until the first is there.
    pub const fn told_by(told: watch::Receiver<Option<Arc<CertifiedKey>>>) -> Self {
        Self(Some(told))
    }

    /// The one of the moment; waits for the first, as long as its caller does.
    ///
    /// # Errors
    /// A process that has none.
    pub(super) async fn current(&self) -> Result<Arc<CertifiedKey>, Failure> {
        let none = Failure::local(
            "it is logged in to with the certificate of the agent itself, which only the running agent has, or its `state-dir`",
        );
        let Some(told) = &self.0 else {
            return Err(none);
        };
        let mut told = told.clone();
        let current = told.wait_for(Option::is_some).await;
        current.ok().and_then(|current| current.clone()).ok_or(none)
    }
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnCertificate")
    }
}
