//! Operations on their way: from the facade to an agent, and its answers back.
//!
//! ```text
//! facade ─send─▶ Dispatch on the control stream ─▶ agent
//!        ◀─head, body── Operation stream, opened by the agent, matched by its random id ◀─
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};
use zeroize::Zeroizing;

use super::Core;
use super::audit::Audit;
use super::peer::Peer;
use super::services::first_message;
use super::session::Session;
use crate::entropy;
use crate::limits;
use crate::wire::v1;

/// Messages down one operation that may wait for HTTP/2 to take them.
const DOWN_QUEUE: usize = 4;

/// Name of an operation.
type Id = [u8; 16];

/// An operation's stream, once the agent has opened it.
struct Opened {
    up: Streaming<v1::OperationUp>,
    down: mpsc::Sender<Result<v1::OperationDown, Status>>,
}

/// How an operation that has been dispatched may begin.
enum Beginning {
    Opened(Opened),
    Refused(v1::OperationFailure),
}

struct Waiting {
    session: [u8; 16],
    begin: oneshot::Sender<Beginning>,
}

/// Operations that wait for their stream.
#[derive(Default)]
pub(super) struct Dispatcher(Mutex<HashMap<Id, Waiting>>);

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher")
            .field("waiting", &self.lock().len())
            .finish()
    }
}

/// What is asked of an agent.
pub(super) struct Order {
    pub(super) account: String,
    pub(super) client: String,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Zeroizing<Vec<u8>>,
    /// Time until the head of the answer.
    pub(super) timeout: Duration,
    /// Whether the body is secret, and has to be pushed out of read buffers.
    pub(super) secret: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// No agent is connected, or it went away before the operation was sent to it.
    Away,
    /// As many operations are running as may.
    Busy,
    /// The agent, or its API server, would not.
    Failed(v1::OperationFailure),
    /// No head within the time given; the operation may have been carried out.
    TimedOut,
    /// The connection broke after the operation was sent; it may have been carried out.
    OutcomeUnknown,
}

impl NoAnswer {
    /// Fixed label for metrics.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Busy => "busy",
            Self::Failed(_) => "failed",
            Self::TimedOut => "timed_out",
            Self::OutcomeUnknown => "unknown",
        }
    }
}

/// The head of an answer, and the way to its body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Body,
}

/// The body of an answer. Dropping it cancels the operation.
pub(super) struct Body {
    up: Streaming<v1::OperationUp>,
    /// Came with the head.
    first: Bytes,
    ended: bool,
    _running: Running,
    _down: mpsc::Sender<Result<v1::OperationDown, Status>>,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Body {
    /// The next bytes, or `None` at the end.
    ///
    /// # Errors
    /// The answer broke off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, &'static str> {
        if !self.first.is_empty() {
            return Ok(Some(std::mem::take(&mut self.first)));
        }
        if self.ended {
            return Ok(None);
        }
        match self.up.message().await {
            Ok(Some(v1::OperationUp {
                message: Some(message),
            })) => match message {
                v1::operation_up::Message::Body(bytes) => Ok(Some(bytes)),
                v1::operation_up::Message::End(_) => {
                    self.ended = true;
                    Ok(None)
                }
                v1::operation_up::Message::Failure(failure) => {
                    tracing::debug!(message = failure.message, "answer broke off");
                    Err("the answer broke off at the agent")
                }
                v1::operation_up::Message::Open(_) | v1::operation_up::Message::Answer(_) => {
                    Err("the agent sent an answer out of order")
                }
            },
            Ok(_) | Err(_) => Err("the connection to the agent broke"),
        }
    }
}

/// A place among a session's operations; dropped, it is free, and the agent told to stop.
struct Running {
    session: Arc<Session>,
    core: Arc<Core>,
    id: Id,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.core.dispatcher.lock().remove(&self.id);
        self.session.end_operation();
        let operation = self.id.to_vec().into();
        let cancelled = v1::OperationCancelled { operation };
        // If it is gone already, there is nothing to cancel.
        self.session
            .tell(v1::hub_control::Message::Cancelled(cancelled));
    }
}

impl Dispatcher {
    fn lock(&self) -> MutexGuard<'_, HashMap<Id, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent will not open a stream for this operation.
    pub(super) fn refused(&self, session: &Session, refused: v1::OperationRefused) {
        if let Some(begin) = self.take(session, &refused.operation) {
            // The asker may have given up.
            let _gone = begin.send(Beginning::Refused(refused.failure.unwrap_or_default()));
        }
    }

    /// Takes a waiting operation, if it is this session's.
    fn take(&self, session: &Session, operation: &[u8]) -> Option<oneshot::Sender<Beginning>> {
        let id: Id = operation.try_into().ok()?;
        let mut waiting = self.lock();
        if waiting.get(&id)?.session != session.id {
            return None;
        }
        waiting.remove(&id).map(|waiting| waiting.begin)
    }
}

impl Core {
    /// Serves one operation stream.
    pub(super) async fn operation(
        self: &Arc<Self>,
        peer: Peer,
        mut up: Streaming<v1::OperationUp>,
    ) -> Result<Response<ReceiverStream<Result<v1::OperationDown, Status>>>, Status> {
        let first = first_message(&mut up, "open").await?;
        let Some(v1::OperationUp {
            message: Some(v1::operation_up::Message::Open(open)),
        }) = first
        else {
            return Err(Status::invalid_argument("the first message is not an open"));
        };
        let session = self.session_of(&peer, &open.session)?;
        let Some(begin) = self.dispatcher.take(&session, &open.operation) else {
            Audit::new("answer operation", &format!("agent/{}", session.agent))
                .with("operation", hex::encode(&open.operation))
                .refuse("UnknownOperation");
            return Err(Status::not_found(
                "the operation is not this session's, or is over",
            ));
        };
        let (down, receiver) = mpsc::channel(DOWN_QUEUE);
        begin
            .send(Beginning::Opened(Opened { up, down }))
            .map_err(|_unheard| Status::cancelled("nobody waits for the operation any more"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    /// Sends an operation to the agent of its account and waits for the head of the answer.
    pub(super) async fn dispatch(self: &Arc<Self>, order: Order) -> Result<Answer, NoAnswer> {
        let session = self.session_for(&order.account).ok_or(NoAnswer::Away)?;
        let link = session.link().ok_or(NoAnswer::Away)?;
        if !session.begin_operation() {
            return Err(NoAnswer::Busy);
        }
        let id: Id = entropy::bytes(&*self.entropy);
        let running = Running {
            session: Arc::clone(&session),
            core: Arc::clone(self),
            id,
        };
        let (begin, begun) = oneshot::channel();
        self.dispatcher.lock().insert(
            id,
            Waiting {
                session: session.id,
                begin,
            },
        );
        // The control stream lives on, and with it the buffers of its encoder and decoder: a
        // secret body takes the operation's own stream, whose buffers go with it.
        let with_head = if order.secret {
            0
        } else {
            limits::HEAD_BODY_BYTES
        };
        let (first, rest) = order.body.split_at(order.body.len().min(with_head));
        if !session.tell(v1::hub_control::Message::Dispatch(Box::new(head(
            id,
            &order,
            first,
            rest.is_empty(),
        )))) {
            return Err(NoAnswer::Busy);
        }
        let closed = link.peer.closed.clone();
        let answering = answer(running, begun, rest, order.secret);
        let in_time = tokio::time::timeout(order.timeout, unless_closed(&closed, answering));
        in_time.await.unwrap_or(Err(NoAnswer::TimedOut))
    }

    fn session_for(&self, account: &str) -> Option<Arc<Session>> {
        let owner = self.accounts.get(account)?.owner()?;
        let session = self.sessions.active(&owner.agent)?;
        (session.instance == owner.instance).then_some(session)
    }
}

async fn unless_closed(
    closed: &CancellationToken,
    answering: impl Future<Output = Result<Answer, NoAnswer>>,
) -> Result<Answer, NoAnswer> {
    closed
        .run_until_cancelled(answering)
        .await
        .unwrap_or(Err(NoAnswer::OutcomeUnknown))
}

fn head(id: Id, order: &Order, first: &[u8], complete: bool) -> v1::Dispatch {
    let header = |(name, value): &(String, String)| v1::HttpHeader {
        name: name.clone(),
        value: value.clone(),
    };
    v1::Dispatch {
        operation: id.to_vec().into(),
        account: order.account.clone(),
        head: Some(v1::HttpHead {
            method: order.method.clone(),
            target: order.target.clone(),
            headers: order.headers.iter().map(header).collect(),
        }),
        body: first.to_vec().into(),
        body_complete: complete,
        client: order.client.clone(),
        timeout_millis: u32::try_from(order.timeout.as_millis()).unwrap_or(u32::MAX),
    }
}

async fn answer(
    running: Running,
    begun: oneshot::Receiver<Beginning>,
    rest: &[u8],
    secret: bool,
) -> Result<Answer, NoAnswer> {
    let Opened { mut up, down } = match begun.await {
        Ok(Beginning::Opened(opened)) => opened,
        Ok(Beginning::Refused(failure)) => return Err(NoAnswer::Failed(failure)),
        Err(_) => return Err(NoAnswer::Away),
    };
    send_rest(&down, rest, secret)
        .await
        .map_err(|()| NoAnswer::OutcomeUnknown)?;
    match up.message().await {
        Ok(Some(v1::OperationUp {
            message: Some(message),
        })) => match message {
            v1::operation_up::Message::Answer(answer) => {
                let status = u16::try_from(answer.status).unwrap_or(502);
                let headers = answer
                    .headers
                    .into_iter()
                    .map(|h| (h.name, h.value))
                    .collect();
                let body = Body {
                    up,
                    first: answer.body,
                    ended: answer.complete,
                    _running: running,
                    _down: down,
                };
                Ok(Answer {
                    status,
                    headers,
                    body,
                })
            }
            v1::operation_up::Message::Failure(failure) => Err(NoAnswer::Failed(failure)),
            _ => Err(NoAnswer::OutcomeUnknown),
        },
        Ok(_) | Err(_) => Err(NoAnswer::OutcomeUnknown),
    }
}

/// Bytes that push a secret body out of the agent's HTTP/2 read buffer.
const FILLER_BYTES: usize = 64 * 1024;

async fn send_rest(
    down: &mpsc::Sender<Result<v1::OperationDown, Status>>,
    rest: &[u8],
    secret: bool,
) -> Result<(), ()> {
    use v1::operation_down::Message as M;
    let send = async |message| {
        let message = v1::OperationDown {
            message: Some(message),
        };
        down.send(Ok(message)).await.map_err(|_gone| ())
    };
    for chunk in rest.chunks(limits::BODY_CHUNK_BYTES) {
        send(M::Body(chunk.to_vec().into())).await?;
    }
    if !rest.is_empty() {
        send(M::End(v1::OperationEnd {})).await?;
    }
    if secret {
        send(M::Filler(vec![0; FILLER_BYTES].into())).await?;
    }
    Ok(())
}
