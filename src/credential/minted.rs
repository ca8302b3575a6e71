//! Tokens and client certificates that are made when they are needed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;
use tokio::sync::Notify;

use super::fetch::{Asking, Failure, Waiting};
use crate::clock::SharedClock;
use crate::retry;
use crate::secret::SecretBytes;

/// Time that making one may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// Pause after a failure, while which nobody asks again.
const PAUSE: Duration = Duration::from_secs(5);

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
pub struct Minted {
    minter: Arc<dyn Minter>,
    clock: SharedClock,
    held: Mutex<Held>,
    /// Held while one is made.
    minting: tokio::sync::Mutex<()>,
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
        Self {
            minter,
            clock,
            held: Mutex::default(),
            minting: tokio::sync::Mutex::default(),
            made: Notify::new(),
        }
    }

    /// The API server does not accept what was made: the next request makes another one, unless
    /// this one has only just been made.
    pub(super) fn refused(&self) {
        let now = self.clock.now();
        if let Some(good) = &mut self.held().good
            && now >= good.made_at + PAUSE
        {
            good.renew_at = now;
            good.refused = true;
        }
    }

    /// What makes them.
    pub fn minter(&self) -> &dyn Minter {
        &*self.minter
    }

    /// The client certificate that was made last.
    pub(super) fn certificate(&self) -> Option<Arc<CertifiedKey>> {
        self.held().certificate().cloned()
    }

    /// One that has not ended. Cancel-safe.
    pub(super) async fn current(&self) -> Result<Arc<Made>, Failure> {
        let now = self.clock.now();
        let (good, usable) = {
            let held = self.held();
            (held.good(now), held.usable(now))
        };
        if let Some(made) = good {
            return Ok(made);
        }
        let turn = match usable {
            // Somebody else renews it meanwhile.
            Some(made) => match self.minting.try_lock() {
                Ok(turn) => turn,
                Err(_taken) => return Ok(made),
            },
            None => self.minting.lock().await,
        };
        self.renewed(turn).await
    }

    /// One that need not be renewed yet, by whoever has the turn.
    async fn renewed(&self, _turn: tokio::sync::MutexGuard<'_, ()>) -> Result<Arc<Made>, Failure> {
        let now = self.clock.now();
        {
            let held = self.held();
            if let Some(made) = held.good(now) {
                return Ok(made);
            }
            if let Some(failure) = held.failure(now) {
                return Err(failure);
            }
        }
        let is_refused = self.held().good.as_ref().is_some_and(|good| good.refused);
        let minting = async {
            if is_refused {
                self.minter.forget().await;
            }
            self.minter.mint().await
        };
        let made = tokio::time::timeout(DEADLINE, minting).await;
        let made =
            made.unwrap_or_else(|_elapsed| Err(Failure::unavailable("none was made in time")));
        self.keep(made)
    }

    /// Waits until connections need another client certificate than `used`, which is renewed in
    /// time, whether or not anybody asks.
    pub(super) async fn replaced(&self, used: Option<&Arc<CertifiedKey>>) {
        loop {
            let made = self.made.notified();
            let due = {
                let held = self.held();
                if !is_same(held.certificate(), used) {
                    return;
                }
                held.due().filter(|_| used.is_some())
            };
            let renewing = async {
                let Some(due) = due else {
                    return std::future::pending().await;
                };
                let left = due.duration_since(self.clock.now()).unwrap_or_default();
                retry::pause(left).await;
                // A failure is told to the requests that meet it. Here it makes the next try due
                // later.
                drop(self.renewed(self.minting.lock().await).await);
            };
            tokio::select! {
                () = made => {}
                () = renewing => {}
            }
        }
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
                held.good = Some(Good {
                    made: Arc::clone(&made),
                    made_at: now,
                    refused: false,
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
            .field("minter", &self.minter.kind())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::clock::{Clock as _, ManualClock};
    use crate::credential::testkit::Authority;

    #[derive(Debug)]
    struct Counted {
        clock: Arc<ManualClock>,
        made: AtomicUsize,
        fails: AtomicUsize,
        certificate: Mutex<Option<Arc<CertifiedKey>>>,
    }

    impl Counted {
        fn give(&self, chain_and_key: &(String, String)) {
            *self.certificate.lock().unwrap() = Some(certificate(chain_and_key));
        }
    }

    const LIFE: Duration = Duration::from_secs(100);

    impl Minter for Counted {
        fn mint(&self) -> Asking<'_, Made> {
            Box::pin(async {
                let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
                tokio::task::yield_now().await;
                if self.fails.load(Ordering::Relaxed) > 0 {
                    return Err(Failure::unavailable("away"));
                }
                let token = format!("token-{number}").into_bytes();
                Ok(Made {
                    token: Some(SecretBytes::new(token)),
                    certificate: self.certificate.lock().unwrap().clone(),
                    ends_at: self.clock.now() + LIFE,
                })
            })
        }

        fn kind(&self) -> &'static str {
            "counted"
        }

        fn identity(&self, _add: &mut dyn FnMut(&[u8])) {}
    }

    fn counted() -> (Arc<ManualClock>, Arc<Counted>, Minted) {
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + LIFE));
        let source = Arc::new(Counted {
            clock: Arc::clone(&clock),
            made: AtomicUsize::new(0),
            fails: AtomicUsize::new(0),
            certificate: Mutex::default(),
        });
        let minted = Minted::new(
            Arc::<Counted>::clone(&source),
            Arc::<ManualClock>::clone(&clock),
        );
        (clock, source, minted)
    }

    #[tokio::test]
    async fn what_an_api_server_refuses_is_made_anew_but_not_again_and_again() {
        let (clock, source, minted) = counted();
        let made = async || {
            minted.refused();
            minted.current().await.unwrap();
            source.made.load(Ordering::Relaxed)
        };
        assert_eq!(made().await, 1);
        assert_eq!(made().await, 1, "it has only just been made");
        clock.advance(PAUSE);
        assert_eq!(made().await, 2);
        clock.advance(PAUSE);
        source.fails.store(1, Ordering::Relaxed);
        assert_eq!(
            made().await,
            3,
            "the one before stays where none is to be had"
        );
        assert_eq!(made().await, 3, "nobody asks again at once");
    }

    #[tokio::test]
    async fn many_requests_make_one_token_and_it_is_renewed_before_its_end() {
        let (clock, source, minted) = counted();
        let asking: Vec<_> = (0..1000).map(|_| minted.current()).collect();
        let all = futures_util::future::join_all(asking).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(source.made.load(Ordering::Relaxed), 1);
        clock.advance(LIFE * 79 / 100);
        minted.current().await.unwrap();
        assert_eq!(source.made.load(Ordering::Relaxed), 1);
        clock.advance(LIFE / 100);
        minted.current().await.unwrap();
        assert_eq!(source.made.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn the_last_good_token_is_used_to_its_end_and_failures_are_not_hurried() {
        let (clock, source, minted) = counted();
        minted.current().await.unwrap();
        source.fails.store(1, Ordering::Relaxed);
        clock.advance(LIFE * 80 / 100);
        for _ in 0..10 {
            minted.current().await.unwrap();
        }
        assert_eq!(source.made.load(Ordering::Relaxed), 2);
        clock.advance(LIFE * 20 / 100);
        let asking: Vec<_> = (0..100).map(|_| minted.current()).collect();
        let all = futures_util::future::join_all(asking).await;
        assert!(all.iter().all(Result::is_err));
        assert_eq!(source.made.load(Ordering::Relaxed), 3);
        source.fails.store(0, Ordering::Relaxed);
        clock.advance(PAUSE);
        minted.current().await.unwrap();
    }

    #[tokio::test]
    async fn a_token_that_ends_in_ages_is_used_and_renewed_within_a_day() {
        let (clock, source, minted) = counted();
        let ages = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::MAX / 4);
        minted
            .keep(Ok(Made::token(SecretBytes::new(b"t".to_vec()), ages)))
            .unwrap();
        minted.current().await.unwrap();
        assert_eq!(source.made.load(Ordering::Relaxed), 0);
        clock.advance(LONGEST);
        minted.current().await.unwrap();
        assert_eq!(source.made.load(Ordering::Relaxed), 1);
    }

    fn certificate(chain_and_key: &(String, String)) -> Arc<CertifiedKey> {
        let (chain, key) = chain_and_key;
        let pair = super::super::certificate::pair(chain.as_bytes(), key.as_bytes());
        Arc::new(pair.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_is_renewed_although_nobody_asks_and_told_once_it_is_another() {
        let (clock, source, minted) = counted();
        let authority = Authority::new();
        let (one, other) = (authority.issue(&["one"]), authority.issue(&["other"]));
        source.give(&one);
        let used = minted.current().await.unwrap().certificate.clone();
        assert!(used.is_some());
        let replaced = async || minted.replaced(used.as_ref()).await;
        let made = async |number: usize| {
            while source.made.load(Ordering::Relaxed) < number {
                tokio::time::advance(LIFE / 100).await;
                clock.advance(LIFE / 100);
            }
        };
        // The second is the same: a command may give what it gave before until that ends.
        tokio::select! {
            () = replaced() => panic!("it is the same"),
            () = made(3) => {}
        }
        source.fails.store(1, Ordering::Relaxed);
        tokio::select! {
            () = replaced() => panic!("none was made"),
            () = made(6) => {}
        }
        source.fails.store(0, Ordering::Relaxed);
        source.give(&other);
        tokio::select! {
            () = replaced() => {}
            () = made(9) => panic!("the other one was not told"),
        }
        let now = minted.current().await.unwrap().certificate.clone();
        assert!(is_same(now.as_ref(), Some(&certificate(&other))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_not_renewed_until_somebody_asks() {
        let (clock, source, minted) = counted();
        minted.current().await.unwrap();
        clock.advance(LIFE);
        let waited = tokio::time::timeout(LIFE, minted.replaced(None)).await;
        assert!(waited.is_err());
        assert_eq!(source.made.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_ends_at_once_is_not_used_beyond_its_end() {
        let (clock, source, minted) = counted();
        let soon = clock.now() + SHORTEST / 2;
        let token = SecretBytes::new(b"t".to_vec());
        minted.keep(Ok(Made::token(token, soon))).unwrap();
        clock.advance(SHORTEST / 2);
        minted.current().await.unwrap();
        assert_eq!(source.made.load(Ordering::Relaxed), 1);
    }
}
