//! What engines take from the process that they serve.

use std::fmt;

use super::own_certificate::OwnCertificate;
use crate::clock::{self, SharedClock};
use crate::entropy::{self, SharedEntropy};

/// What engines take from the process that they serve.
#[derive(Clone)]
pub struct Surroundings {
    /// Tells when what they were given ends.
    pub clock: SharedClock,
    /// Spreads their pauses.
    pub entropy: SharedEntropy,
    /// What the process itself is known by.
    pub certificate: OwnCertificate,
}

impl Surroundings {
    /// Of a process that has no certificate: time and randomness of the system.
    pub fn of_system() -> Self {
        Self {
            clock: clock::system(),
            entropy: entropy::system(),
            certificate: OwnCertificate::default(),
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}
