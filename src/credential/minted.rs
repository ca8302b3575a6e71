//! Tokens that are made when they are needed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::fetch::{Asking, Failure};
use crate::clock::SharedClock;
use crate::secret::SecretBytes;

/// Time that one token may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// Pause after a failure, while which nobody asks again.
const PAUSE: Duration = Duration::from_secs(5);

/// Part of its life after which a token is renewed, in percent.
const RENEW_AFTER_PERCENT: u32 = 80;

/// Longest time after which a token is renewed that says that it lives longer.
const LONGEST: Duration = Duration::from_hours(24);

/// Makes tokens for one API server.
pub trait TokenSource: fmt::Debug + Send + Sync {
    /// A new token, and when it ends.
    fn token(&self) -> Asking<'_, (SecretBytes, SystemTime)>;

    /// The kind of user, for logs.
    fn kind(&self) -> &'static str;

    /// Gives to `add` what tells it from another source.
    fn identity(&self, add: &mut dyn FnMut(&[u8]));
}

/// The token of a source: renewed before its end by one request at a time, the last good one kept
/// until its end.
pub struct Minted {
    source: Arc<dyn TokenSource>,
    clock: SharedClock,
    held: Mutex<Held>,
    /// Held while a token is made.
    minting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    /// Not to be asked again before this, and why.
    failed: Option<(SystemTime, Failure)>,
}

struct Token {
    bytes: Arc<SecretBytes>,
    renew_at: SystemTime,
    ends_at: SystemTime,
}

impl Held {
    /// The token, if it need not be renewed yet, or cannot be at the moment.
    fn good(&self, now: SystemTime) -> Option<Arc<SecretBytes>> {
        let may_ask = self.failed.as_ref().is_none_or(|(until, _)| now >= *until);
        let token = self.token.as_ref()?;
        let good_until = if may_ask {
            token.renew_at
        } else {
            token.ends_at
        };
        (now < good_until).then(|| Arc::clone(&token.bytes))
    }

    /// The token, if it has not ended.
    fn usable(&self, now: SystemTime) -> Option<Arc<SecretBytes>> {
        let token = self.token.as_ref()?;
        (now < token.ends_at).then(|| Arc::clone(&token.bytes))
    }

    fn failure(&self, now: SystemTime) -> Option<Failure> {
        let (until, failure) = self.failed.as_ref()?;
        (now < *until).then(|| failure.clone())
    }
}

impl Minted {
    /// The tokens of `source`; none is made yet.
    pub fn new(source: Arc<dyn TokenSource>, clock: SharedClock) -> Self {
        Self {
            source,
            clock,
            held: Mutex::default(),
            minting: tokio::sync::Mutex::default(),
        }
    }

    /// What makes them.
    pub fn source(&self) -> &dyn TokenSource {
        &*self.source
    }

    /// A token that has not ended. Cancel-safe.
    pub(super) async fn current(&self) -> Result<Arc<SecretBytes>, Failure> {
        let now = self.clock.now();
        let (good, usable) = {
            let held = self.held();
            (held.good(now), held.usable(now))
        };
        if let Some(token) = good {
            return Ok(token);
        }
        let _minting = match usable {
            // Somebody else renews it meanwhile.
            Some(token) => match self.minting.try_lock() {
                Ok(guard) => guard,
                Err(_taken) => return Ok(token),
            },
            None => self.minting.lock().await,
        };
        let now = self.clock.now();
        {
            let held = self.held();
            if let Some(token) = held.good(now) {
                return Ok(token);
            }
            if let Some(failure) = held.failure(now) {
                return Err(failure);
            }
        }
        let made = tokio::time::timeout(DEADLINE, self.source.token()).await;
        let made =
            made.unwrap_or_else(|_elapsed| Err(Failure::unavailable("no token was made in time")));
        self.keep(made)
    }

    fn keep(
        &self,
        made: Result<(SecretBytes, SystemTime), Failure>,
    ) -> Result<Arc<SecretBytes>, Failure> {
        let now = self.clock.now();
        let mut held = self.held();
        let made = made.and_then(|(token, ends_at)| match ends_at.duration_since(now) {
            Ok(life) if !life.is_zero() => Ok((token, ends_at, life)),
            _ => Err(Failure::corrupt("a token was made that has already ended")),
        });
        match made {
            Ok((token, ends_at, life)) => {
                let bytes = Arc::new(token);
                held.token = Some(Token {
                    bytes: Arc::clone(&bytes),
                    renew_at: now + life.min(LONGEST) * RENEW_AFTER_PERCENT / 100,
                    ends_at,
                });
                held.failed = None;
                Ok(bytes)
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

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted")
            .field("source", &self.source.kind())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::clock::{Clock as _, ManualClock};

    #[derive(Debug)]
    struct Counted {
        clock: Arc<ManualClock>,
        made: AtomicUsize,
        fails: AtomicUsize,
    }

    const LIFE: Duration = Duration::from_secs(100);

    impl TokenSource for Counted {
        fn token(&self) -> Asking<'_, (SecretBytes, SystemTime)> {
            Box::pin(async {
                let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
                tokio::task::yield_now().await;
                if self.fails.load(Ordering::Relaxed) > 0 {
                    return Err(Failure::unavailable("away"));
                }
                let token = format!("token-{number}").into_bytes();
                Ok((SecretBytes::new(token), self.clock.now() + LIFE))
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
        });
        let minted = Minted::new(
            Arc::<Counted>::clone(&source),
            Arc::<ManualClock>::clone(&clock),
        );
        (clock, source, minted)
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
            .keep(Ok((SecretBytes::new(b"t".to_vec()), ages)))
            .unwrap();
        minted.current().await.unwrap();
        assert_eq!(source.made.load(Ordering::Relaxed), 0);
        clock.advance(LONGEST);
        minted.current().await.unwrap();
        assert_eq!(source.made.load(Ordering::Relaxed), 1);
    }
}
