//! What waits for HTTP/2 to take it, of one stream to an agent.
//!
//! Not tokio's channel: an empty one takes 800 bytes, and a hub has two for each agent.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;
use tokio::sync::Semaphore;
use tonic::Status;

/// A message, or how the stream ends. Boxed: the room for some of them stays when they are gone.
type Entry<T> = Box<Result<T, Status>>;

/// The end of a queue that the hub writes to.
#[derive(Debug)]
pub(super) struct Sender<T>(Arc<Shared<T>>);

/// The end of a queue that tonic reads from.
#[derive(Debug)]
pub(super) struct Answers<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    /// Closed when nobody reads any more.
    room: Semaphore,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<Entry<T>>,
    reader: Option<Waker>,
    senders: usize,
}

/// A queue of `size` messages.
pub(super) fn queue<T>(size: usize) -> (Sender<T>, Answers<T>) {
    let shared = Arc::new(Shared {
        room: Semaphore::new(size),
        state: Mutex::new(State {
            waiting: VecDeque::new(),
            reader: None,
            senders: 1,
        }),
    });
    (Sender(Arc::clone(&shared)), Answers(shared))
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message where room was taken for it.
    fn put(&self, entry: Entry<T>) {
        let mut state = self.lock();
        state.waiting.push_back(entry);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<T> Sender<T> {
    /// Waits for room; false if nobody reads any more. Cancelled, the message is not sent.
    pub(super) fn send(&self, message: Result<T, Status>) -> impl Future<Output = bool> {
        // Before anything is awaited, so that who waits holds no more than the box.
        let entry = Box::new(message);
        async move {
            let Ok(place) = self.0.room.acquire().await else {
                return false;
            };
            place.forget();
            self.0.put(entry);
            true
        }
    }

    /// False if there is no room, or nobody reads any more.
    pub(super) fn try_send(&self, message: Result<T, Status>) -> bool {
        let Ok(place) = self.0.room.try_acquire() else {
            return false;
        };
        place.forget();
        self.0.put(Box::new(message));
        true
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        // The others still wake the reader.
        let reader = if state.senders == 0 {
            state.reader.take()
        } else {
            None
        };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<T> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.lock();
        let Some(entry) = state.waiting.pop_front() else {
            if state.senders == 0 {
                return Poll::Ready(None);
            }
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        drop(state);
        self.0.room.add_permits(1);
        Poll::Ready(Some(*entry))
    }
}

impl<T> Drop for Answers<T> {
    fn drop(&mut self) {
        self.0.room.close();
        // Wiped now, however long somebody keeps the other end.
        let waiting = std::mem::take(&mut self.0.lock().waiting);
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::FuturesUnordered;
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;

    #[tokio::test]
    async fn messages_come_in_order_and_the_end_after_the_last() {
        let (sender, mut answers) = queue(8);
        let second = sender.clone();
        assert!(answers.next().now_or_never().is_none());
        let reading = async {
            let mut read = Vec::new();
            while let Some(Ok(number)) = answers.next().await {
                read.push(number);
            }
            read
        };
        let sending = async move {
            for number in 0..100 {
                let sender = if number % 2 == 0 { &sender } else { &second };
                assert!(sender.send(Ok(number)).await);
            }
            drop(sender);
            assert!(second.send(Ok(100)).await);
            drop(second);
        };
        let (read, ()) = tokio::join!(reading, sending);
        assert_eq!(read, (0..=100).collect::<Vec<_>>());
    }

    #[test]
    fn who_reads_is_woken_by_a_message_and_by_the_last_sender_that_goes() {
        let (sender, answers) = queue(1);
        // These are looked at again only if they were woken.
        let mut reading = FuturesUnordered::from_iter([answers.into_future()]);
        assert!(reading.next().now_or_never().is_none());
        drop(sender.clone());
        assert!(sender.try_send(Ok(1)));
        let (read, answers) = reading.next().now_or_never().flatten().unwrap();
        assert_eq!(read.unwrap().unwrap(), 1);
        let mut reading = FuturesUnordered::from_iter([answers.into_future()]);
        assert!(reading.next().now_or_never().is_none());
        drop(sender);
        let (read, _answers) = reading.next().now_or_never().flatten().unwrap();
        assert!(read.is_none());
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_until_one_is_read() {
        let (sender, mut answers) = queue(1);
        assert!(sender.try_send(Ok(1)));
        assert!(!sender.try_send(Ok(2)));
        let mut waiting = Box::pin(sender.send(Ok(3)));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(answers.next().await.unwrap().unwrap(), 1);
        assert!(waiting.await);
        assert_eq!(answers.next().await.unwrap().unwrap(), 3);
    }

    #[tokio::test]
    async fn nobody_reads_any_more() {
        let (sender, answers) = queue(1);
        assert!(sender.try_send(Ok(1)));
        let waiting = sender.send(Ok(2));
        drop(answers);
        assert!(!waiting.await);
        assert!(!sender.try_send(Ok(3)));
        assert!(!sender.send(Ok(4)).await);
        assert!(sender.0.lock().waiting.is_empty());
    }
}
