//! Live connections: who is at the other end, and how to end them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::identity::verify::VerifiedPeer;
use crate::tasks::Tasks;

/// One connection whose peer was verified.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) verified: Arc<VerifiedPeer>,
    /// Cuts the connection now.
    pub(super) kill: CancellationToken,
    /// Cancelled once the socket is closed.
    pub(super) closed: CancellationToken,
    /// Tasks that must not outlive the connection.
    pub(super) tasks: Tasks,
    /// TLS exporter of this connection for renewal proofs.
    pub(super) exporter: [u8; 32],
    /// Whether there is, or was, a control stream.
    controlled: Arc<AtomicBool>,
}

impl Peer {
    /// The peer of a connection whose tasks are `tasks`.
    pub(super) fn new(verified: VerifiedPeer, tasks: Tasks, exporter: [u8; 32]) -> Self {
        Self {
            verified: Arc::new(verified),
            kill: CancellationToken::new(),
            closed: CancellationToken::new(),
            tasks,
            exporter,
            controlled: Arc::default(),
        }
    }

    /// Whether this is the first control stream of the connection. What a stream leaves behind
    /// stays until the connection closes, so there is no second one.
    pub(super) fn take_control(&self) -> bool {
        !self.controlled.swap(true, Ordering::Relaxed)
    }

    /// The name in the peer's certificate.
    pub(super) fn name(&self) -> &str {
        self.verified.id().name.as_str()
    }
}

/// Every live connection of all listeners.
#[derive(Debug, Default)]
pub(super) struct Live {
    next: AtomicU64,
    peers: Mutex<HashMap<u64, Peer>>,
}

/// Keeps a connection listed; dropped, it is gone from the list.
#[derive(Debug)]
pub(super) struct Listed {
    live: Arc<Live>,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.live.lock().remove(&self.number);
    }
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn list(self: &Arc<Self>, peer: Peer) -> Listed {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, peer);
        Listed {
            live: Arc::clone(self),
            number,
        }
    }

    /// Cuts every connection whose peer `condemned` picks; returns how many.
    pub(super) fn cut(&self, condemned: impl Fn(&VerifiedPeer) -> bool) -> usize {
        let peers = self.lock();
        let cut = peers.values().filter(|peer| condemned(&peer.verified));
        cut.map(|peer| peer.kill.cancel()).count()
    }
}
