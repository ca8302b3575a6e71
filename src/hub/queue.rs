//! What waits for HTTP/2 to take it, of one stream to an agent.

use futures_util::StreamExt as _;
use futures_util::stream::Map;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// A message, or how the stream ends. Boxed: a queue sets aside room for 32 of them, and that of
/// an agent at rest is empty.
type Entry<T> = Box<Result<T, Status>>;

/// The end of a queue that the hub writes to.
#[derive(Clone, Debug)]
pub(super) struct Sender<T>(mpsc::Sender<Entry<T>>);

/// The end of a queue that tonic reads from.
pub(super) type Answers<T> = Map<ReceiverStream<Entry<T>>, fn(Entry<T>) -> Result<T, Status>>;

/// A queue of `size` messages.
pub(super) fn queue<T>(size: usize) -> (Sender<T>, Answers<T>) {
    let (sender, receiver) = mpsc::channel(size);
    let open: fn(Entry<T>) -> Result<T, Status> = |entry| *entry;
    (Sender(sender), ReceiverStream::new(receiver).map(open))
}

impl<T> Sender<T> {
    /// Waits for room; false if nobody reads any more.
    pub(super) fn send(&self, message: Result<T, Status>) -> impl Future<Output = bool> {
        // Before anything is awaited, so that who waits holds no more than the box.
        let entry = Box::new(message);
        async move { self.0.send(entry).await.is_ok() }
    }

    /// False if there is no room, or nobody reads any more.
    pub(super) fn try_send(&self, message: Result<T, Status>) -> bool {
        self.0.try_send(Box::new(message)).is_ok()
    }
}
