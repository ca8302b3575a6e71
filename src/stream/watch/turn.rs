//! A snapshot's place among those that are under way, and how it loses it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::stream::feed::Stream;
use crate::stream::{Feed, quota::Quota};

/// Time in which a snapshot has to tell something; then it is broken off and tried again.
///
/// kube-apiserver itself gives an answer up after a minute. Looked at in steps of this length, so
/// that it is noticed after one to two of them.
pub(super) const STALLED: Duration = Duration::from_secs(30);

/// A place in an account and one in an agent, until they are given back.
#[derive(Clone, Debug)]
struct Places(Arc<Mutex<Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>>>);

impl Places {
    fn give_back(&self) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *places = None;
    }
}

/// The places of one snapshot; given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    places: Places,
    over: CancellationToken,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.places.give_back();
        self.over.cancel();
    }
}

/// Looks after a snapshot that may take its places for ever.
#[derive(Debug)]
pub(super) struct Watchdog {
    places: Places,
    over: CancellationToken,
    feed: Arc<Feed>,
    stream: Arc<Stream>,
}

impl Turn {
    /// Waits for a place in the account, then for one in the agent.
    pub(super) async fn wait(account: &Arc<Semaphore>, agent: &Quota) -> Option<Self> {
        let account = Arc::clone(account).acquire_owned().await.ok()?;
        let agent = agent.snapshot().await?;
        Some(Self {
            places: Places(Arc::new(Mutex::new(Some((account, agent))))),
            over: CancellationToken::new(),
        })
    }

    /// What ends this turn's snapshot if it tells nothing for too long.
    pub(super) fn watchdog(&self, feed: &Arc<Feed>, stream: &Arc<Stream>) -> Watchdog {
        Watchdog {
            places: self.places.clone(),
            over: self.over.clone(),
            feed: Arc::clone(feed),
            stream: Arc::clone(stream),
        }
    }
}

impl Watchdog {
    /// Ends when the API server has told nothing for [`STALLED`]; never once the snapshot is over.
    ///
    /// A snapshot that waits for the hub gives its places to others and goes on: to read it again
    /// would cost the API server and gain nothing.
    pub(super) async fn stalled(self) {
        let silent = async {
            let mut ticks = interval(STALLED);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            let mut before = self.stream.received();
            loop {
                ticks.tick().await;
                let now = self.stream.received();
                if now != before {
                    before = now;
                } else if self.feed.queue.is_full() {
                    self.places.give_back();
                } else {
                    return;
                }
            }
        };
        if self.over.run_until_cancelled(silent).await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::resource::{Gvr, Identity, ResourceVersion, Scope};
    use crate::stream::queue::Item;
    use crate::stream::{FeedSettings, Quota};

    /// A feed with one stream, a place for one snapshot in its account, and a turn that has it.
    async fn reading() -> (Arc<Feed>, Arc<Stream>, Arc<Semaphore>, Turn) {
        let feed = Feed::new(FeedSettings {
            account: "lab".into(),
            cluster_uid: "uid".into(),
            policy_digest: [0; 32],
            quota: Arc::new(Quota::default()),
        });
        let stream = feed.add(Gvr::new("", "v1", "pods"), "Pod".into(), Scope::Cluster);
        let account = Arc::new(Semaphore::new(1));
        let turn = Turn::wait(&account, feed.quota()).await.unwrap();
        (feed, stream, account, turn)
    }

    fn touch(uid: usize) -> Item {
        Item::Touch(Identity {
            namespace: "shop".into(),
            name: uid.to_string(),
            uid: uid.to_string(),
            resource_version: ResourceVersion(1),
        })
    }

    #[tokio::test]
    async fn a_turn_that_is_over_has_given_its_places_back_and_stalls_no_more() {
        let (feed, stream, account, turn) = reading().await;
        let stalled = turn.watchdog(&feed, &stream).stalled();
        tokio::pin!(stalled);
        assert!(stalled.as_mut().now_or_never().is_none());
        assert_eq!(account.available_permits(), 0);
        drop(turn);
        assert_eq!(account.available_permits(), 1);
        tokio::time::pause();
        let long = tokio::time::timeout(STALLED * 10, stalled).await;
        assert!(long.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_that_tells_nothing_is_broken_off() {
        let (feed, stream, _account, turn) = reading().await;
        let stalled = turn.watchdog(&feed, &stream).stalled();
        tokio::pin!(stalled);
        let polled = poll_fn(|context| Poll::Ready(stalled.as_mut().poll(context))).await;
        assert!(polled.is_pending());
        tokio::time::advance(STALLED / 2).await;
        stream.count(|counts| counts.received += 1);
        let early = tokio::time::timeout(STALLED, stalled.as_mut()).await;
        assert!(early.is_err(), "it has told something");
        let late = tokio::time::timeout(STALLED, stalled).await;
        assert!(late.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_that_waits_for_the_hub_gives_its_places_to_others_and_goes_on() {
        let (feed, stream, account, turn) = reading().await;
        feed.queue.start(stream.number, 1);
        let filling = async {
            for uid in 0.. {
                feed.queue.push(stream.number, 1, touch(uid)).await.unwrap();
            }
        };
        assert!(filling.now_or_never().is_none(), "the queue is full");
        let stalled = turn.watchdog(&feed, &stream).stalled();
        let long = tokio::time::timeout(STALLED * 10, stalled).await;
        assert!(long.is_err(), "it is not broken off");
        assert_eq!(account.available_permits(), 1);
    }
}
