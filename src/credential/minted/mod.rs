//! Tokens and client certificates that are made when they are needed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};
use tokio_util::sync::DropGuard;

use super::fetch::{Asking, Failure, Waiting};
use crate::clock::SharedClock;
use crate::retry;
use crate::secret::SecretBytes;
use crate::tasks::Tasks;

/// Time that making one may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// Pause after a failure, while which nobody asks again.
const PAUSE: Duration = Duration::from_secs(5);

/// How often the time doubles in which what has only just been made is not made anew, while one
/// after the other is refused: up to about five minutes.
const REFUSED_DOUBLINGS: u32 = 6;

/// Part of its life after which it is renewed, in percent.
const RENEW_AFTER_PERCENT: u32 = 80;

/// Longest time after which is renewed what says that it lives longer.
const LONGEST: Duration = Duration::from_hours(24);

/// Shortest such time, except by its end: a command may keep what it has made, and give the same
/// until it ends.
const SHORTEST: Duration = Duration::from_secs(1);

/// Makes what tells one API server who is asking.
pub trait Minter: fmt::Debug + Send + Sync {
    /// Makes a new one.
    fn mint(&self) -> Asking<'_, Made>;

    /// For one that was made for a check and cannot mint, because that would use up what is good
    /// only once: goes as far as it can, and gives what was seen and what was not tried. None where
    /// minting uses up nothing.
    fn rehearse(&self) -> Option<Asking<'_, String>> {
        None
    }

    /// Forgets what the next one would be made of, if that may be why the last one was refused.
    fn forget(&self) -> Waiting<'_> {
        Box::pin(std::future::ready(()))
    }

    /// The kind of user, for logs.
    fn kind(&self) -> &'static str;

    /// Gives to `add` what tells it from another minter.
    fn identity(&self, add: &mut dyn FnMut(&[u8]));
}

/// What tells an API server who is asking, until it ends.
pub struct Made {
    /// Sent with each request.
    pub token: Option<SecretBytes>,
    /// Shown by each connection.
    pub certificate: Option<Arc<CertifiedKey>>,
    /// When the first of them ends.
    pub ends_at: SystemTime,
}

/// What a minter has made: renewed before its end by one request at a time, the last good one kept
/// until its end.
///
/// The making is a task of its own, which a request that goes away leaves running: what it was made
/// of may be good only once. It ends when this is dropped.
pub struct Minted {
    shared: Arc<Shared>,
    /// Held while one is made.
    turn: Arc<tokio::sync::Mutex<()>>,
    tasks: Tasks,
    _stop: DropGuard,
}

/// What the requests and the making share.
struct Shared {
    minter: Arc<dyn Minter>,
    clock: SharedClock,
    held: Mutex<Held>,
    /// Told when one was made.
    made: Notify,
}

#[derive(Default)]
struct Held {
    good: Option<Good>,
    /// Not to be asked again before this, and why.
    failed: Option<(SystemTime, Failure)>,
}

struct Good {
    made: Arc<Made>,
    made_at: SystemTime,
    renew_at: SystemTime,
    /// The API server has refused it.
    refused: bool,
    /// How many were made before it, each because the one before was refused.
    refusals: u32,
}

impl Good {
    /// Until when it has only just been made. What is refused again and again is not mended by
    /// making it.
    fn is_new_until(&self) -> SystemTime {
        self.made_at + PAUSE * (1 << self.refusals.min(REFUSED_DOUBLINGS))
    }
}

impl Held {
    /// What is held, if it need not be renewed yet, or cannot be at the moment.
    fn good(&self, now: SystemTime) -> Option<Arc<Made>> {
        let may_ask = self.failed.as_ref().is_none_or(|(until, _)| now >= *until);
        let good = self.good.as_ref()?;
        let good_until = if may_ask {
            good.renew_at
        } else {
            good.made.ends_at
        };
        (now < good_until).then(|| Arc::clone(&good.made))
    }

    /// What is held, if it has not ended.
    fn usable(&self, now: SystemTime) -> Option<Arc<Made>> {
        let good = self.good.as_ref()?;
        (now < good.made.ends_at).then(|| Arc::clone(&good.made))
    }

    fn failure(&self, now: SystemTime) -> Option<Failure> {
        let (until, failure) = self.failed.as_ref()?;
        (now < *until).then(|| failure.clone())
    }

    fn certificate(&self) -> Option<&Arc<CertifiedKey>> {
        self.good.as_ref()?.made.certificate.as_ref()
    }

    /// When it is to be renewed, the pause after a failure included.
    fn due(&self) -> Option<SystemTime> {
        let renew_at = self.good.as_ref()?.renew_at;
        let until = self.failed.as_ref().map(|(until, _)| *until);
        Some(until.map_or(renew_at, |until| until.max(renew_at)))
    }
}

impl Minted {
    /// What `minter` makes; nothing is made yet.
    pub fn new(minter: Arc<dyn Minter>, clock: SharedClock) -> Self {
        let tasks = Tasks::new();
        Self {
            shared: Arc::new(Shared {
                minter,
                clock,
                held: Mutex::default(),
                made: Notify::new(),
            }),
            turn: Arc::default(),
            _stop: tasks.stop_on_drop(),
            tasks,
        }
    }

    /// The API server does not accept what was made: the next request makes another one, unless
    /// this one has only just been made.
    pub(super) fn refused(&self) {
        let now = self.shared.clock.now();
        if let Some(good) = &mut self.shared.held().good
            && now >= good.is_new_until()
        {
            good.renew_at = now;
            good.refused = true;
        }
    }

    /// What makes them.
    pub fn minter(&self) -> &dyn Minter {
        &*self.shared.minter
    }

    /// The client certificate that was made last.
    pub(super) fn certificate(&self) -> Option<Arc<CertifiedKey>> {
        self.shared.held().certificate().cloned()
    }

    /// One that has not ended. Cancel-safe: what it began to make is made all the same.
    pub(super) async fn current(&self) -> Result<Arc<Made>, Failure> {
        let now = self.shared.clock.now();
        let (good, usable) = {
            let held = self.shared.held();
            (held.good(now), held.usable(now))
        };
        if let Some(made) = good {
            return Ok(made);
        }
        let turn = Arc::clone(&self.turn);
        let turn = match usable {
            // Somebody else renews it meanwhile.
            Some(made) => match turn.try_lock_owned() {
                Ok(turn) => turn,
                Err(_taken) => return Ok(made),
            },
            None => turn.lock_owned().await,
        };
        self.renewed(turn).await
    }

    /// One that need not be renewed yet, by whoever has the turn.
    async fn renewed(&self, turn: OwnedMutexGuard<()>) -> Result<Arc<Made>, Failure> {
        let now = self.shared.clock.now();
        {
            let held = self.shared.held();
            if let Some(made) = held.good(now) {
                return Ok(made);
            }
            if let Some(failure) = held.failure(now) {
                return Err(failure);
            }
        }
        let (tell, told) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        // A set of its own: one that panics does not keep the next one from being made.
        self.tasks.child().spawn("minting", |stop| async move {
            let _turn = turn;
            if let Some(made) = stop.run_until_cancelled(shared.mint()).await {
                // Who asked may be gone. Who waits for the turn finds what is kept.
                let _gone = tell.send(shared.keep(made));
            }
        });
        let broken = Failure::unavailable("what makes them broke down");
        told.await
            .unwrap_or_else(|_panicked| self.shared.keep(Err(broken)))
    }

    /// Waits until connections need another client certificate than `used`, which is renewed in
    /// time, whether or not anybody asks.
    pub(super) async fn replaced(&self, used: Option<&Arc<CertifiedKey>>) {
        loop {
            let made = self.shared.made.notified();
            let due = {
                let held = self.shared.held();
                if !is_same(held.certificate(), used) {
                    return;
                }
                held.due().filter(|_| used.is_some())
            };
            let renewing = async {
                let Some(due) = due else {
                    return std::future::pending().await;
                };
                let left = due.duration_since(self.shared.clock.now());
                retry::pause(left.unwrap_or_default()).await;
                let turn = Arc::clone(&self.turn).lock_owned().await;
                // A failure is told to the requests that meet it. Here it makes the next try due
                // later.
                drop(self.renewed(turn).await);
            };
            tokio::select! {
                () = made => {}
                () = renewing => {}
            }
        }
    }
}

impl Shared {
    /// Makes another one in place of what is held, within the time that this may take.
    async fn mint(&self) -> Result<Made, Failure> {
        let is_refused = self.held().good.as_ref().is_some_and(|good| good.refused);
        let minting = async {
            if is_refused {
                self.minter.forget().await;
            }
            self.minter.mint().await
        };
        let made = tokio::time::timeout(DEADLINE, minting).await;
        made.unwrap_or_else(|_elapsed| Err(Failure::unavailable("none was made in time")))
    }

    fn keep(&self, made: Result<Made, Failure>) -> Result<Arc<Made>, Failure> {
        let now = self.clock.now();
        let mut held = self.held();
        let made = made.and_then(|made| match made.ends_at.duration_since(now) {
            Ok(life) if !life.is_zero() => Ok((made, life)),
            _ => Err(Failure::corrupt("what was made has already ended")),
        });
        match made {
            Ok((made, life)) => {
                let made = Arc::new(made);
                let renew_after = life.min(LONGEST) * RENEW_AFTER_PERCENT / 100;
                let refused = held.good.as_ref().filter(|good| good.refused);
                let refusals = refused.map_or(0, |good| good.refusals.saturating_add(1));
                held.good = Some(Good {
                    made: Arc::clone(&made),
                    made_at: now,
                    refused: false,
                    refusals,
                    renew_at: (now + renew_after.max(SHORTEST)).min(made.ends_at),
                });
                held.failed = None;
                drop(held);
                self.made.notify_waiters();
                Ok(made)
            }
            Err(failure) => {
                held.failed = Some((now + PAUSE, failure.clone()));
                held.usable(now).ok_or(failure)
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether both are the same certificate, which binds its key.
fn is_same(one: Option<&Arc<CertifiedKey>>, other: Option<&Arc<CertifiedKey>>) -> bool {
    one.map(|key| &key.cert) == other.map(|key| &key.cert)
}

impl Made {
    /// A token alone.
    pub const fn token(token: SecretBytes, ends_at: SystemTime) -> Self {
        Self {
            token: Some(token),
            certificate: None,
            ends_at,
        }
    }
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made")
            .field("has_token", &self.token.is_some())
            .field("has_certificate", &self.certificate.is_some())
            .field("ends_at", &self.ends_at)
            .finish()
    }
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted")
            .field("minter", &self.minter().kind())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
