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
pub(super) type Sender<T> = mpsc::Sender<Entry<T>>;

/// The end of a queue that tonic reads from.
pub(super) type Answers<T> = Map<ReceiverStream<Entry<T>>, fn(Entry<T>) -> Result<T, Status>>;

/// A queue of `size` messages.
pub(super) fn queue<T>(size: usize) -> (Sender<T>, Answers<T>) {
    let (sender, receiver) = mpsc::channel(size);
    let open: fn(Entry<T>) -> Result<T, Status> = |entry| *entry;
    (sender, ReceiverStream::new(receiver).map(open))
}
