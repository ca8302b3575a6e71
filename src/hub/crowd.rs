//! What one address may take of a listener: connections, and turns to shake hands.
//!
//! A fleet behind one address is ordinary, and comes back all at once. Who finds the handshakes of
//! its address taken waits for a turn, with nothing read from it; other addresses do not notice.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// Connections and handshakes of one listener, by address.
#[derive(Debug)]
pub(super) struct Crowd {
    addresses: Mutex<HashMap<IpAddr, Address>>,
    /// Handshakes of all addresses.
    handshakes: Arc<Semaphore>,
    /// Connections of all addresses that wait for a turn.
    waiting: Arc<Semaphore>,
}

#[derive(Debug)]
struct Address {
    connections: usize,
    handshakes: Arc<Semaphore>,
}

/// A place of one connection among those of its address; freed when dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

/// A handshake among those of all addresses; freed when dropped.
pub(super) type Slot = OwnedSemaphorePermit;

/// The right to shake hands, until dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _of_all: Slot,
    _of_address: OwnedSemaphorePermit,
}

/// What a new connection gets.
#[derive(Debug)]
pub(super) enum Entrance {
    /// Its turn.
    Now(Turn),
    /// Its turn later.
    Later(Waiting),
}

/// A place among those that wait; freed when dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    crowd: Arc<Crowd>,
    of_address: Arc<Semaphore>,
    _room: OwnedSemaphorePermit,
}

impl Crowd {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            addresses: Mutex::default(),
            handshakes: Arc::new(Semaphore::new(limits::HANDSHAKES)),
            waiting: Arc::new(Semaphore::new(limits::HANDSHAKES_WAITING)),
        })
    }

    /// Waits until a handshake may begin, in the order of asking. Cancellation-safe.
    pub(super) async fn slot(&self) -> Option<Slot> {
        Arc::clone(&self.handshakes).acquire_owned().await.ok()
    }

    /// Lets in a connection of `address`; `None` if it has too many, or too many wait.
    ///
    /// One that has to wait does so without the `slot`: others may have it.
    pub(super) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        slot: Slot,
    ) -> Option<(Place, Entrance)> {
        let mut addresses = self.lock();
        let held = addresses.entry(address).or_insert_with(|| Address {
            connections: 0,
            handshakes: Arc::new(Semaphore::new(limits::HANDSHAKES_PER_ADDRESS)),
        });
        if held.connections >= limits::CONNECTIONS_PER_ADDRESS {
            return None;
        }
        let of_address = Arc::clone(&held.handshakes);
        let entrance = if let Ok(own) = Arc::clone(&of_address).try_acquire_owned() {
            Entrance::Now(Turn {
                _of_all: slot,
                _of_address: own,
            })
        } else {
            // Who finds the turns of its address taken is not its first connection: no entry is
            // left behind.
            let waiting = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
            Entrance::Later(Waiting {
                crowd: Arc::clone(self),
                of_address,
                _room: waiting,
            })
        };
        held.connections += 1;
        drop(addresses);
        let place = Place {
            crowd: Arc::clone(self),
            address,
        };
        Some((place, entrance))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Address>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entrance {
    /// Waits for the turn, first come, first served; `None` after [`limits::HANDSHAKE_WAIT`].
    pub(super) async fn turn(self) -> Option<Turn> {
        let waiting = match self {
            Self::Now(turn) => return Some(turn),
            Self::Later(waiting) => waiting,
        };
        // The turn of the address first: of all slots, its connections never claim more than that.
        let turn = async {
            let own = Arc::clone(&waiting.of_address).acquire_owned().await.ok()?;
            let of_all = waiting.crowd.slot().await?;
            Some(Turn {
                _of_all: of_all,
                _of_address: own,
            })
        };
        tokio::time::timeout(limits::HANDSHAKE_WAIT, turn)
            .await
            .ok()?
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.crowd.lock();
        if let Some(held) = addresses.get_mut(&self.address) {
            held.connections -= 1;
            if held.connections == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    async fn enter(crowd: &Arc<Crowd>, last: u8) -> Option<(Place, Entrance)> {
        let slot = crowd.slot().await.unwrap();
        crowd.enter(address(last), slot)
    }

    /// Takes every turn of an address.
    async fn fill(crowd: &Arc<Crowd>, last: u8) -> Vec<(Place, Turn)> {
        let mut shaking = Vec::new();
        for _ in 0..limits::HANDSHAKES_PER_ADDRESS {
            let Some((place, Entrance::Now(turn))) = enter(crowd, last).await else {
                panic!("there was room");
            };
            shaking.push((place, turn));
        }
        shaking
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_the_order_of_coming() {
        let crowd = Crowd::new();
        let mut shaking = fill(&crowd, 1).await;
        let (_place, first) = enter(&crowd, 1).await.unwrap();
        let (_place, second) = enter(&crowd, 1).await.unwrap();
        let (mut first, mut second) = (Box::pin(first.turn()), Box::pin(second.turn()));
        tokio::select! {
            biased;
            _ = &mut first => panic!("every turn is taken"),
            _ = &mut second => panic!("every turn is taken"),
            () = std::future::ready(()) => {}
        }
        shaking.pop();
        let turn = tokio::select! {
            biased;
            _ = &mut second => panic!("the other came before"),
            turn = first => turn.unwrap(),
        };
        // Nor does one that comes now get past those that wait.
        drop(turn);
        assert!(matches!(
            enter(&crowd, 1).await,
            Some((_, Entrance::Later(_)))
        ));
        assert!(second.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_does_not_come_is_waited_for_so_long_and_leaves_nothing_behind() {
        let crowd = Crowd::new();
        let shaking = fill(&crowd, 1).await;
        let (place, late) = enter(&crowd, 1).await.unwrap();
        let came = Instant::now();
        assert!(late.turn().await.is_none());
        assert_eq!(came.elapsed(), limits::HANDSHAKE_WAIT);
        drop((place, shaking));
        assert!(crowd.lock().is_empty());
        assert_eq!(
            crowd.waiting.available_permits(),
            limits::HANDSHAKES_WAITING
        );
        assert_eq!(crowd.handshakes.available_permits(), limits::HANDSHAKES);
    }

    #[tokio::test]
    async fn connections_of_an_address_and_those_that_wait_are_bounded() {
        let crowd = Crowd::new();
        let of_address = limits::CONNECTIONS_PER_ADDRESS - limits::HANDSHAKES_PER_ADDRESS;
        let mut connected = Vec::new();
        let mut waiting = Vec::new();
        for last in [1, 2] {
            let shaking = fill(&crowd, last).await;
            for _ in 0..of_address {
                waiting.push(enter(&crowd, last).await.unwrap());
            }
            assert!(enter(&crowd, last).await.is_none(), "of one address");
            connected.extend(shaking.into_iter().map(|(place, _turn)| place));
        }
        let _shaking = fill(&crowd, 3).await;
        for _ in waiting.len()..limits::HANDSHAKES_WAITING {
            waiting.push(enter(&crowd, 3).await.unwrap());
        }
        assert!(enter(&crowd, 3).await.is_none(), "of all addresses");
        // Those that find a turn do not need to wait.
        assert!(enter(&crowd, 4).await.is_some());
    }

    #[tokio::test]
    async fn those_that_wait_keep_no_slot_from_another_address() {
        let crowd = Crowd::new();
        let _shaking = fill(&crowd, 1).await;
        let mut waiting = Vec::new();
        for _ in 0..100 {
            waiting.push(enter(&crowd, 1).await.unwrap());
        }
        let _others = fill(&crowd, 2).await;
    }
}
