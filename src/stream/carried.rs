//! The feeds that one link carries.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::feed::Feed;
use super::link::SessionClient;
use super::pump::{Credit, Pump, PumpEnd};
use crate::limits;
use crate::retry::pause_unless;
use crate::tasks::Tasks;
use crate::wire::v1;

/// Ends of feeds that may wait to be read.
const ENDS: usize = 64;

/// Pause before a feed that broke is carried again. If the connection is what broke, the link ends
/// before that.
const BROKEN_PAUSE: Duration = Duration::from_secs(5);

/// The feeds of one link, each carried by a task of its own.
#[derive(Debug)]
pub(super) struct Carried {
    client: SessionClient,
    session: Vec<u8>,
    generation: u64,
    credit: Arc<Credit>,
    tasks: Tasks,
    stop: CancellationToken,
    feeds: HashMap<String, One>,
    end: mpsc::Sender<(String, PumpEnd)>,
    ends: mpsc::Receiver<(String, PumpEnd)>,
}

/// A feed that is carried, or was.
#[derive(Debug)]
struct One {
    feed: Arc<Feed>,
    stop: CancellationToken,
    /// Fenced: not to be taken back from a newer link.
    fenced: bool,
}

impl Carried {
    /// None yet, of the link with this welcome; `tasks` carry them.
    pub(super) fn new(
        client: SessionClient,
        welcome: &v1::Welcome,
        generation: u64,
        tasks: Tasks,
    ) -> Self {
        let credit = usize::try_from(welcome.feed_credit_bytes).unwrap_or(usize::MAX);
        let (end, ends) = mpsc::channel(ENDS);
        Self {
            client,
            session: welcome.session.to_vec(),
            generation,
            credit: Arc::new(Credit::new(credit.min(limits::FEED_CREDIT_BYTES))),
            tasks,
            stop: CancellationToken::new(),
            feeds: HashMap::new(),
            end,
            ends,
        }
    }

    /// Ends all of them; what else the link does goes on. Nobody reads their ends any more.
    pub(super) fn stop(&mut self) {
        self.stop.cancel();
        // Otherwise what has ended would wait here, and who drains the link for it.
        self.ends.close();
    }

    /// Starts to carry the feeds that are accepted and not carried yet; stops those that are no
    /// longer accepted, or replaced, which are taken up again once they have ended.
    pub(super) fn follow(
        &mut self,
        feeds: &BTreeMap<String, Arc<Feed>>,
        is_accepted: impl Fn(&str) -> bool,
    ) {
        self.feeds.retain(|account, one| {
            let same = feeds.get(account);
            let same = same.is_some_and(|feed| Arc::ptr_eq(feed, &one.feed));
            if same && is_accepted(account) {
                return true;
            }
            one.stop.cancel();
            !one.fenced
        });
        for (account, feed) in feeds {
            if is_accepted(account) && !self.feeds.contains_key(account) {
                self.carry(account, feed);
            }
        }
    }

    fn carry(&mut self, account: &str, feed: &Arc<Feed>) {
        let stop = self.stop.child_token();
        let one = One {
            feed: Arc::clone(feed),
            stop: stop.clone(),
            fenced: false,
        };
        self.feeds.insert(account.to_owned(), one);
        let credit = Arc::clone(&self.credit);
        let pump = Pump::new(
            Arc::clone(feed),
            self.session.clone(),
            self.generation,
            credit,
        );
        let (client, end) = (self.client.clone(), self.end.clone());
        let account = account.to_owned();
        self.tasks.spawn("feed", move |link_stop| async move {
            let carrying = async {
                let ended = pump.run(client, stop.clone()).await;
                if let PumpEnd::Broken(status) = &ended {
                    let error = status.message();
                    tracing::warn!(account, error, retry_in = ?BROKEN_PAUSE, "feed broke");
                    let _not_stopped = pause_unless(&stop, BROKEN_PAUSE).await;
                }
                ended
            };
            let ended = link_stop.run_until_cancelled(carrying).await;
            let ended = ended.unwrap_or(PumpEnd::Stopped);
            let _link_gone = end.send((account, ended)).await;
        });
    }

    /// The next feed that ends, and why. Loses nothing when it is cancelled.
    pub(super) async fn next_end(&mut self) -> (String, PumpEnd) {
        match self.ends.recv().await {
            Some(ended) => ended,
            // Never: a sender is kept here.
            None => std::future::pending().await,
        }
    }

    /// Notes that a feed has ended, which ends no other.
    pub(super) fn ended(&mut self, account: &str, end: &PumpEnd) {
        match end {
            PumpEnd::Broken(_) | PumpEnd::Stopped => {
                self.feeds.remove(account);
            }
            PumpEnd::Fenced => self.fenced(account),
        }
    }

    /// A fenced feed stays noted: this link must not take it back from a newer one. But one that was
    /// to stop anyway was taken away by the hub, which may have given it back since.
    fn fenced(&mut self, account: &str) {
        let Some(one) = self.feeds.get_mut(account) else {
            return;
        };
        one.fenced = true;
        if one.stop.is_cancelled() {
            self.feeds.remove(account);
        }
    }
}
