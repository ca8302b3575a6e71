use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

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
    clock.advance(PAUSE * 2);
    source.fails.store(1, Ordering::Relaxed);
    assert_eq!(
        made().await,
        3,
        "the one before stays where none is to be had"
    );
    assert_eq!(made().await, 3, "nobody asks again at once");
}

#[tokio::test]
async fn what_is_refused_again_and_again_is_made_ever_more_seldom() {
    let (clock, source, minted) = counted();
    let refused_for = async |time: Duration| {
        let before = source.made.load(Ordering::Relaxed);
        for _ in 0..time.as_secs() {
            minted.current().await.unwrap();
            minted.refused();
            clock.advance(Duration::from_secs(1));
        }
        source.made.load(Ordering::Relaxed) - before
    };
    // At once, after 5 s, 10 s, 20 s and 40 s.
    assert_eq!(refused_for(LIFE * 8 / 10).await, 5);
    // One that was good until it was due makes that forgotten.
    clock.advance(LIFE);
    minted.current().await.unwrap();
    clock.advance(LIFE);
    assert_eq!(refused_for(PAUSE * 2).await, 2);
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
        .shared
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
    let pair = crate::credential::certificate::pair(chain.as_bytes(), key.as_bytes());
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
    minted.shared.keep(Ok(Made::token(token, soon))).unwrap();
    clock.advance(SHORTEST / 2);
    minted.current().await.unwrap();
    assert_eq!(source.made.load(Ordering::Relaxed), 1);
}

/// Makes one when it is let, and tells when that began and when it was over.
#[derive(Debug, Default)]
struct Gated {
    made: AtomicUsize,
    begun: CancellationToken,
    go: CancellationToken,
    over: CancellationToken,
}

impl Minter for Gated {
    fn mint(&self) -> Asking<'_, Made> {
        Box::pin(async {
            let _over = self.over.clone().drop_guard();
            self.made.fetch_add(1, Ordering::Relaxed);
            self.begun.cancel();
            self.go.cancelled().await;
            let ages = SystemTime::UNIX_EPOCH + LIFE * 10;
            Ok(Made::token(SecretBytes::new(b"t".to_vec()), ages))
        })
    }

    fn kind(&self) -> &'static str {
        "gated"
    }

    fn identity(&self, _add: &mut dyn FnMut(&[u8])) {}
}

/// One whose token is being made for a request that has gone away since.
async fn left_alone() -> (Arc<Gated>, Minted) {
    let (clock, gated) = (ManualClock::new(SystemTime::UNIX_EPOCH), Arc::default());
    let minted = Minted::new(Arc::<Gated>::clone(&gated), Arc::new(clock));
    tokio::select! {
        _made = minted.current() => panic!("it is not let"),
        () = gated.begun.cancelled() => {}
    }
    (gated, minted)
}

#[tokio::test]
async fn what_a_request_began_to_make_is_made_although_it_goes_away_and_is_for_those_who_wait() {
    let (gated, minted) = left_alone().await;
    let waiting = (0..100).map(|_| minted.current());
    let waiting = futures_util::future::join_all(waiting);
    let (all, ()) = tokio::join!(waiting, async { gated.go.cancel() });
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(gated.made.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_any_more_is_given_up_at_the_same_deadline() {
    let (gated, minted) = left_alone().await;
    let begun = tokio::time::Instant::now();
    let failure = minted.current().await.unwrap_err();
    assert!(failure.hint.contains("in time"), "{failure:?}");
    assert_eq!(begun.elapsed().as_secs(), DEADLINE.as_secs());
    assert_eq!(gated.made.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_making_ends_with_what_it_is_for() {
    let (gated, minted) = left_alone().await;
    assert!(!gated.over.is_cancelled());
    drop(minted);
    let over = gated.over.cancelled();
    let soon = tokio::time::timeout(Duration::from_secs(5), over).await;
    assert!(soon.is_ok());
}

#[derive(Debug)]
struct Broken;

impl Minter for Broken {
    fn mint(&self) -> Asking<'_, Made> {
        Box::pin(async { panic!("on purpose") })
    }

    fn kind(&self) -> &'static str {
        "broken"
    }

    fn identity(&self, _add: &mut dyn FnMut(&[u8])) {}
}

#[tokio::test]
async fn a_minter_that_panics_is_a_failure_and_is_not_hurried() {
    let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
    let minted = Minted::new(Arc::new(Broken), Arc::<ManualClock>::clone(&clock));
    for _ in 0..2 {
        let all = (0..100).map(|_| minted.current());
        let all = futures_util::future::join_all(all).await;
        let told = |made: &Result<_, Failure>| {
            let failure = made.as_ref().err();
            failure.is_some_and(|failure| failure.hint.contains("broke down"))
        };
        assert!(all.iter().all(told));
        clock.advance(PAUSE);
    }
}
