//! What the engine lent: remembered, so that it can be given back.
//!
//! ```text
//! fetch ──lent──▶ Book ──▶ InUse ──dropped──▶ over ──task──▶ given back
//!                   └───────── close: what is left ────────▶ given back
//! ```

use std::collections::VecDeque;
use std::ops::AddAssign as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use super::client::Client;
use super::login::Login;
use super::requests::RevokeLeaseRequest;
use super::store::Lent;
use super::{Access, CLOSING};
use crate::credential::fetch::{Failure, InUse};
use crate::tasks::Tasks;

/// Most leases that are remembered; one that is forgotten ends by itself.
const LEASES: usize = 1024;

/// Leases that are given back at once.
const AT_ONCE: usize = 8;

/// What the engine lent and has not ended yet.
pub(super) struct Leases {
    book: Arc<Book>,
    /// Owns what gives back the leases that are over, from the first one on.
    tasks: Tasks,
    begun: OnceLock<()>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Book {
    leases: Mutex<VecDeque<Lease>>,
    /// Leases so far.
    lent: AtomicU64,
    /// Told when nobody uses one any more.
    over: Notify,
}

#[derive(Clone)]
struct Lease {
    number: u64,
    id: String,
    ends: Instant,
    /// The engine ends what it lent under a login with it, so the login has to last.
    login: Arc<Login>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    InUse,
    /// Nobody uses it any more.
    Over,
    /// Asked to be taken back. What the engine does not take waits for the end of the connection.
    Offered,
}

impl Leases {
    /// Remembers one, until it is given back; once it is not in use any more, or at the end.
    pub(super) fn add(&self, lent: Lent, login: &Arc<Login>, access: &Arc<Access>) -> InUse {
        let number = self.book.add(lent, login);
        self.begun.get_or_init(|| {
            let (book, access) = (Arc::clone(&self.book), Arc::clone(access));
            self.tasks.spawn("leases", |stop| async move {
                let _stopped = stop.run_until_cancelled(book.follow(&access)).await;
            });
        });
        // Whoever uses it does not keep the logins.
        let book = Arc::downgrade(&self.book);
        InUse::new(move || {
            if let Some(book) = book.upgrade() {
                book.is_over(number);
            }
        })
    }

    /// Gives back what does not end with a login of ours.
    pub(super) async fn close(&self, access: &Access) {
        // What it was about to give back is given back here.
        let _has_ended = self.tasks.drain(CLOSING).await;
        let leases = std::mem::take(&mut *self.book.lock());
        let foreign = leases.into_iter().filter(|lease| !lease.login.ours);
        self.book.give_back(foreign.collect(), access).await;
    }
}

impl Book {
    fn add(&self, lent: Lent, login: &Arc<Login>) -> u64 {
        let (now, number) = (Instant::now(), self.lent.fetch_add(1, Ordering::Relaxed));
        let mut leases = self.lock();
        leases.retain(|lease| lease.ends > now);
        if leases.len() >= LEASES {
            leases.pop_front();
        }
        // A time that cannot be told is not worth remembering longer than an hour.
        let ends = now.checked_add(lent.lease);
        leases.push_back(Lease {
            number,
            id: lent.lease_id,
            ends: ends.unwrap_or(now + Duration::from_hours(1)),
            login: Arc::clone(login),
            stage: Stage::InUse,
        });
        number
    }

    fn is_over(&self, number: u64) {
        let mut leases = self.lock();
        if let Some(lease) = leases.iter_mut().find(|lease| lease.number == number) {
            lease.stage = Stage::Over;
            self.over.notify_one();
        }
    }

    /// Gives back whatever is over, for as long as it is not stopped.
    async fn follow(&self, access: &Access) {
        loop {
            self.over.notified().await;
            let now = Instant::now();
            let mut over = Vec::new();
            for lease in self.lock().iter_mut() {
                if lease.stage == Stage::Over && lease.ends > now {
                    lease.stage = Stage::Offered;
                    over.push(lease.clone());
                }
            }
            self.give_back(over, access).await;
        }
    }

    /// What the engine takes is forgotten.
    async fn give_back(&self, leases: Vec<Lease>, access: &Access) {
        let revoking = stream::iter(leases).map(|lease| async move {
            let revoked = revoke(&lease, access).await;
            if revoked.is_ok() {
                self.lock().retain(|known| known.number != lease.number);
            }
            revoked.err().map(|failure| (lease.login.ours, failure))
        });
        let mut kept = revoking.buffer_unordered(AT_ONCE);
        let (mut ours, mut foreign, mut last) = (0_usize, 0_usize, None);
        while let Some(kept) = kept.next().await {
            let Some((is_ours, failure)) = kept else {
                continue;
            };
            if is_ours { &mut ours } else { &mut foreign }.add_assign(1);
            last = failure.status;
        }
        if ours > 0 {
            tracing::debug!(
                number = ours,
                status = last,
                "leases could not be given back; they end with their login"
            );
        }
        if foreign > 0 {
            tracing::warn!(
                number = foreign,
                status = last,
                "leases could not be given back; may the token update `sys/leases/revoke`?"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn revoke(lease: &Lease, access: &Access) -> Result<(), Failure> {
    let revoking = async {
        let client = Client::build(access, Some(&lease.login.token)).await?;
        let lease_id = lease.id.clone();
        client.tell(RevokeLeaseRequest { lease_id }).await
    };
    let late = Failure::unavailable("it did not answer in time");
    let revoked = tokio::time::timeout(CLOSING, revoking).await;
    revoked.unwrap_or(Err(late))
}

impl Default for Leases {
    fn default() -> Self {
        let tasks = Tasks::new();
        Self {
            book: Arc::default(),
            begun: OnceLock::new(),
            _stop: tasks.stop_on_drop(),
            tasks,
        }
    }
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = self.book.lock().len();
        f.debug_tuple("Leases").field(&number).finish()
    }
}
