//! What the engine lent: remembered, so that it can be given back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::Instant;

use super::Access;
use super::client::Client;
use super::login::Login;
use super::requests::RevokeLeaseRequest;
use super::store::Lent;
use crate::credential::fetch::Failure;

/// Most leases that are remembered; one that is forgotten ends by itself.
const LEASES: usize = 1024;

/// Leases that are given back at once.
const AT_ONCE: usize = 8;

struct Lease {
    id: String,
    ends: Instant,
    /// The engine ends what it lent under a login with it, so the login has to last.
    login: Arc<Login>,
}

/// What the engine lent and has not ended yet.
#[derive(Default)]
pub(super) struct Leases(Mutex<VecDeque<Lease>>);

impl Leases {
    /// Remembers one.
    pub(super) fn add(&self, lent: Lent, login: &Arc<Login>) {
        let now = Instant::now();
        let mut leases = self.lock();
        leases.retain(|lease| lease.ends > now);
        if leases.len() >= LEASES {
            leases.pop_front();
        }
        // A time that cannot be told is not worth remembering longer than an hour.
        let ends = now.checked_add(lent.lease);
        leases.push_back(Lease {
            id: lent.lease_id,
            ends: ends.unwrap_or(now + Duration::from_hours(1)),
            login: Arc::clone(login),
        });
    }

    /// Gives back what does not end with a login of ours.
    pub(super) async fn close(&self, access: &Access) {
        let leases = std::mem::take(&mut *self.lock());
        let foreign = leases.into_iter().filter(|lease| !lease.login.ours);
        let revoking = stream::iter(foreign).map(|lease| async move {
            let client = Client::build(access, Some(&lease.login.token)).await?;
            let lease_id = lease.id;
            client.tell(RevokeLeaseRequest { lease_id }).await
        });
        let mut kept = revoking
            .buffer_unordered(AT_ONCE)
            .filter_map(|revoked: Result<(), Failure>| std::future::ready(revoked.err()));
        let (mut number, mut last) = (0_usize, None);
        while let Some(failure) = kept.next().await {
            number += 1;
            last = failure.status;
        }
        if number > 0 {
            tracing::warn!(
                number,
                status = last,
                "leases could not be given back; may the token update `sys/leases/revoke`?"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Leases").field(&self.lock().len()).finish()
    }
}
