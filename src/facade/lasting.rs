//! Answers that last, watches and followed logs, and what ends them early.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{self, Either};
use http::Response;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::body::{self, Body};
use super::port::{Account, Drain, Served, Upstream};
use super::service::{Asked, Facade, allowed};
use crate::clock::SharedClock;
use crate::resource::{Target, Verb};

/// Time between two looks whether an answer that lasts may go on.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(5);

impl<U: Upstream> Facade<U> {
    /// Ends a watch or a followed log with the hub, and soon after its client may not have it any
    /// more: unbound or revoked, the account suspended or gone, the kind no longer offered, or the
    /// state that it tells from too old.
    ///
    /// A watch ends as its time would end it, and the client is told why when it opens the next.
    /// A log is cut: it would be taken for whole.
    pub(super) fn lasting(
        &self,
        asked: &Asked<'_>,
        (response, served): (Response<Body>, Served),
        drain: Option<Drain>,
    ) -> (Response<Body>, Served) {
        let is_watch = asked.target.verb == Verb::Watch;
        let is_log =
            asked.target.subresource.as_deref() == Some("log") && asked.query.flag("follow");
        if !is_watch && !is_log {
            return (response, served);
        }
        let grant = Grant {
            upstream: Arc::clone(&self.upstream),
            clock: SharedClock::clone(&self.clock),
            client: asked.client.to_owned(),
            account: asked.account.id.clone(),
            target: asked.target.clone(),
            place: asked.list_place().map(str::to_owned),
            is_of_view: served == Served::View,
        };
        let response = response.map(|body| body::until(body, ends(grant, drain), is_log));
        (response, served)
    }
}

async fn ends<U: Upstream>(grant: Grant<U>, drain: Option<Drain>) {
    let stops = match drain {
        Some(Drain(drain)) => Either::Left(drain.cancelled_owned()),
        None => Either::Right(future::pending()),
    };
    let stops = std::pin::pin!(stops);
    let lost = std::pin::pin!(grant.lost());
    future::select(stops, lost).await;
}

/// What a client was allowed when its answer began.
struct Grant<U> {
    upstream: Arc<U>,
    clock: SharedClock,
    client: String,
    /// By id.
    account: String,
    target: Target,
    /// The namespace that it is about.
    place: Option<String>,
    is_of_view: bool,
}

impl<U: Upstream> Grant<U> {
    async fn lost(self) {
        let mut looks = interval_at(Instant::now() + LOOK_INTERVAL, LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if !self.holds() {
                return;
            }
        }
    }

    fn holds(&self) -> bool {
        let Some(account) = self.upstream.account(&self.account) else {
            return false;
        };
        let may = allowed(&*self.upstream, &self.client, &account, &self.target).is_ok();
        may && !(self.is_of_view && self.is_too_old(&account))
    }

    fn is_too_old(&self, account: &Account) -> bool {
        match account.view.age(&self.target.gvr, self.place.as_deref()) {
            Ok(known) => account.is_too_old(account.age(self.clock.now(), known)),
            // The watcher tells.
            Err(_unavailable) => false,
        }
    }
}
