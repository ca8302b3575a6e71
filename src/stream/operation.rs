//! One tunnelled operation on a link: its stream, and who carries it out.

use std::fmt;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::link::SessionClient;
use crate::wire::v1;

/// Messages of one operation that may wait, each way.
const OPERATION_QUEUE: usize = 1;

/// What the hub sends down an operation's stream, from when that is open.
pub type OperationDown = BoxStream<'static, Result<v1::OperationDown, Status>>;

/// Carries out tunnelled operations; the port that the agent fills.
pub trait Operations: Send + Sync + fmt::Debug {
    /// Answers one dispatch through `up`; ends soon after `stop`.
    fn run(
        &self,
        dispatch: v1::Dispatch,
        down: OperationDown,
        up: mpsc::Sender<v1::OperationUp>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ()>;
}

/// Runs an operation, and opens its stream once there is something to send or to receive.
///
/// On a busy link each message waits for its turn. An operation whose body came with its dispatch
/// opens its stream with the answer, which saves one of the two ways up.
pub(super) async fn operate(
    client: SessionClient,
    session: bytes::Bytes,
    dispatch: v1::Dispatch,
    operations: Arc<dyn Operations>,
    stop: CancellationToken,
) {
    let (up, receiver) = mpsc::channel(OPERATION_QUEUE);
    let (opened, down) = oneshot::channel::<OperationDown>();
    let open = v1::OperationOpen {
        session,
        operation: dispatch.operation.clone(),
    };
    let opening = open_operation(client, open, dispatch.body_complete, receiver);
    let opening = async {
        match opening.await {
            // The operation may be over already.
            Ok(Some(stream)) => drop(opened.send(stream)),
            Ok(None) => {}
            Err(status) => {
                let status = status.message();
                tracing::debug!(status, "the hub no longer wants an operation");
                stop.cancel();
            }
        }
    };
    let down = down.map(|opened| opened.unwrap_or_else(|_never| stream::empty().boxed()));
    let down = down.flatten_stream().boxed();
    tokio::join!(opening, operations.run(dispatch, down, up, stop.clone()));
}

/// The hub's half of an operation's stream; none if the operation ends without a word.
async fn open_operation(
    mut client: SessionClient,
    open: v1::OperationOpen,
    with_answer: bool,
    mut receiver: mpsc::Receiver<v1::OperationUp>,
) -> Result<Option<OperationDown>, Status> {
    let message = Some(v1::operation_up::Message::Open(open));
    let mut first = vec![v1::OperationUp { message }];
    if with_answer {
        let Some(answer) = receiver.recv().await else {
            return Ok(None);
        };
        first.push(answer);
    }
    let messages = stream::iter(first).chain(ReceiverStream::new(receiver));
    let answer = client.operation(messages).await?;
    Ok(Some(answer.into_inner().boxed()))
}
