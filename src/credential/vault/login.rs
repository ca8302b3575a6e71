//! The one login of a connection: made when it is first needed, renewed, given back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use vaultrs::api::AuthInfo;
use vaultrs::api::token::requests::{
    LookupTokenSelfRequest, RenewTokenSelfRequest, RevokeTokenSelfRequest,
};

use super::client::Client;
use super::failure::passes;
use super::proof::Prover;
use super::{Access, AuthMethod};
use crate::credential::authorization::read_token;
use crate::credential::fetch::{Failure, FetchErrorKind};
use crate::secret::SecretBytes;

/// Most logins that were replaced and are kept because secrets were lent under them; the engine
/// ends what it lent under a login with it.
const FORMER: usize = 8;

/// A token that the engine accepts, or did.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) token: SecretBytes,
    /// Whether it was made for us, and is ours to renew and to give back.
    pub(super) ours: bool,
}

/// For how long a login is good.
#[derive(Clone, Copy, Debug)]
struct Term {
    since: Instant,
    /// None: it does not end.
    lease: Option<Duration>,
    renewable: bool,
}

impl Term {
    fn new(lease_seconds: u64, renewable: bool) -> Self {
        Self {
            since: Instant::now(),
            lease: (lease_seconds > 0).then(|| Duration::from_secs(lease_seconds)),
            renewable,
        }
    }

    /// Whether two thirds of it have passed.
    fn is_due(&self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        self.lease.is_some_and(|lease| passed >= lease * 2 / 3)
    }

    fn left(&self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.since);
        self.lease.map(|lease| lease.saturating_sub(passed))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.left(now) == Some(Duration::ZERO)
    }
}

/// A login that is in use.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) login: Arc<Login>,
    term: Term,
    /// Length of its first term.
    granted: Option<Duration>,
}

impl Session {
    /// How long it is still good; `None` where that is not known, or for ever.
    pub(super) fn left(&self) -> Option<Duration> {
        self.term.left(Instant::now())
    }
}

#[derive(Debug, Default)]
struct Held {
    current: Option<Session>,
    former: Vec<Session>,
}

/// The logins of a connection. One errand at a time logs in; the others wait and use its login.
#[derive(Debug, Default)]
pub(super) struct Logins {
    held: Mutex<Held>,
    prover: Prover,
}

impl Logins {
    /// The login in use, renewed at two thirds of its term; a new one where there is none, or it
    /// cannot be renewed. While the engine cannot be asked, one that is not over stays in use.
    pub(super) async fn current(&self, access: &Access) -> Result<Session, Failure> {
        let mut held = self.held.lock().await;
        let now = Instant::now();
        let Some(mut session) = held.current.clone() else {
            return self.replace(&mut held, access).await;
        };
        if !session.term.is_due(now) {
            return Ok(session);
        }
        if session.term.renewable && !session.term.is_over(now) {
            match renewed(access, &session).await {
                Ok(Some(term)) => {
                    session.term = term;
                    held.current = Some(session.clone());
                    return Ok(session);
                }
                Err(failure) if passes(&failure) => return Ok(session),
                Ok(None) | Err(_) => {}
            }
        }
        let is_over = session.term.is_over(now);
        drop(session); // so that it can be given back
        match self.replace(&mut held, access).await {
            Err(failure) if passes(&failure) && !is_over => held.current.clone().ok_or(failure),
            done => done,
        }
    }

    /// Another login than the one that was `refused`.
    pub(super) async fn instead_of(
        &self,
        refused: Session,
        access: &Access,
    ) -> Result<Session, Failure> {
        let mut held = self.held.lock().await;
        if let Some(session) = &held.current
            && !Arc::ptr_eq(&session.login, &refused.login)
        {
            return Ok(session.clone());
        }
        drop(refused); // the last use of it, so that it can be given back
        self.replace(&mut held, access).await
    }

    /// After a refusal: is it the token, or what it may do?
    pub(super) async fn blame(
        &self,
        session: &Session,
        denied: Failure,
        access: &Access,
    ) -> Failure {
        if session.login.ours {
            return denied; // the token is a moment old
        }
        let looked_up = async {
            let client = Client::build(access, Some(&session.login.token)).await?;
            client.tell(LookupTokenSelfRequest {}).await
        };
        match looked_up.await {
            Ok(()) => denied,
            Err(failure) if failure.kind == FetchErrorKind::Denied => Failure {
                kind: FetchErrorKind::Unauthenticated,
                hint: "the token in the configured file is expired or revoked",
                ..failure
            },
            Err(failure) => failure,
        }
    }

    /// Gives every login back that is ours, and what was lent under it.
    pub(super) async fn close(&self, access: &Access) {
        let held = std::mem::take(&mut *self.held.lock().await);
        for session in held.current.iter().chain(&held.former) {
            revoke(access, session).await;
        }
    }

    /// Logs in; the login before is given back once nothing can have been lent under it.
    async fn replace(&self, held: &mut Held, access: &Access) -> Result<Session, Failure> {
        let session = self.log_in(access).await?;
        let now = Instant::now();
        held.former.extend(held.current.replace(session.clone()));
        held.former
            .retain(|former| former.login.ours && !former.term.is_over(now));
        let lends_nothing = |former: &Session| Arc::strong_count(&former.login) == 1;
        while let Some(place) = held.former.iter().position(lends_nothing) {
            revoke(access, &held.former.swap_remove(place)).await;
        }
        // Not revoked: that would end what was lent under it, which may be in use. Both end by
        // themselves.
        let forgotten = held.former.len().saturating_sub(FORMER);
        held.former.drain(..forgotten);
        Ok(session)
    }

    async fn log_in(&self, access: &Access) -> Result<Session, Failure> {
        let (mount, proof) = match &access.settings.auth {
            AuthMethod::Login { mount, proof } => (mount, proof),
            AuthMethod::TokenFile(path) => {
                let read = read_token(path).await;
                let token = read.map_err(|_error| {
                    Failure::local("the configured token file cannot be read or holds no token")
                })?;
                return Ok(Session {
                    login: Arc::new(Login { token, ours: false }),
                    term: Term::new(0, false),
                    granted: None,
                });
            }
        };
        let auth = self.prover.log_in(access, mount, proof).await?;
        let term = term(&auth);
        let token = auth.client_token;
        // The library would panic on a token that a header cannot carry.
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::local("the login gave no usable token"));
        }
        let token = SecretBytes::new(token.into_bytes());
        Ok(Session {
            login: Arc::new(Login { token, ours: true }),
            granted: term.lease,
            term,
        })
    }
}

fn term(auth: &AuthInfo) -> Term {
    Term::new(auth.lease_duration, auth.renewable)
}

/// The new term; none if what is left of the login's longest life is short.
async fn renewed(access: &Access, session: &Session) -> Result<Option<Term>, Failure> {
    let client = Client::build(access, Some(&session.login.token)).await?;
    let request = RenewTokenSelfRequest { increment: None };
    let Some(auth) = client.ask(request).await?.auth else {
        return Ok(None);
    };
    let term = term(&auth);
    let is_short = |granted: Duration| term.lease.is_some_and(|lease| lease < granted / 2);
    Ok((!session.granted.is_some_and(is_short)).then_some(term))
}

/// Best effort: a token that is not taken back ends with its term.
async fn revoke(access: &Access, session: &Session) {
    if !session.login.ours {
        return;
    }
    let revoked = async {
        let client = Client::build(access, Some(&session.login.token)).await?;
        client.tell(RevokeTokenSelfRequest {}).await
    };
    if let Err(failure) = revoked.await {
        tracing::debug!(status = failure.status, "login could not be given back");
    }
}
