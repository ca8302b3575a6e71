//! Tokens with which a user of a GKE cluster logs in.

use std::time::{Duration, SystemTime};

use super::AuthMethod;
use super::login::Login;
use crate::clock::SharedClock;
use crate::credential::fetch::Failure;
use crate::secret::SecretBytes;

/// As `gke-gcloud-auth-plugin` asks for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// For how long a token is said to be good.
///
/// The library does not tell when a token expires; it renews one four minutes before that, and
/// gives the new one from then on.
const GOOD_FOR: Duration = Duration::from_mins(2);

/// Mints tokens for GKE.
#[derive(Debug)]
pub struct Tokens {
    login: Login,
    clock: SharedClock,
}

impl Tokens {
    /// Nothing is dialled yet.
    pub fn new(auth: AuthMethod, clock: SharedClock) -> Self {
        Self {
            login: Login::new(auth, SCOPE),
            clock,
        }
    }

    /// A token, and until when to use it before asking again; asking is cheap while the login has
    /// one.
    ///
    /// # Errors
    /// `Unauthenticated` where the login is refused, `Unavailable` where it does not answer.
    pub async fn token(&self) -> Result<(SecretBytes, SystemTime), Failure> {
        let token = self.login.token().await?;
        Ok((token, self.clock.now() + GOOD_FOR))
    }

    /// Drops the login: the next token comes from a new one. For a token that a cluster refused.
    pub async fn forget(&self) {
        self.login.forget().await;
    }
}
