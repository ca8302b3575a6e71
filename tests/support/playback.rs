//! The hub's half of a recorded session, played to a built agent.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost::Message;
use sortie::stream::open_batch;
use sortie::tasks::Tasks;
use sortie::wire::v1;
use sortie::wire::v1::session_server::Session;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::between::{Down, attach_of};
use super::recording::Recording;

/// A hub that says what was recorded, each message once the agent has said what came before it.
#[derive(Clone, Debug)]
pub(crate) struct Playback {
    said: Recording,
    tasks: Tasks,
    /// Numbers of the streams whose snapshot is complete.
    complete: watch::Sender<BTreeSet<u32>>,
    answers: Arc<Mutex<Vec<v1::OperationUp>>>,
    farewell: watch::Sender<bool>,
}

impl Playback {
    /// Of a recording.
    pub(crate) fn of(said: Recording) -> Self {
        Self {
            said,
            tasks: Tasks::new(),
            complete: watch::Sender::default(),
            answers: Arc::default(),
            farewell: watch::Sender::default(),
        }
    }

    /// What the agent has answered to the recorded dispatch.
    pub(crate) fn answers(&self) -> Vec<v1::OperationUp> {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the agent has said that it drains.
    pub(crate) fn has_drained(&self) -> bool {
        *self.farewell.borrow()
    }

    fn hub<M: Message + Default>(&self, message: &str) -> M {
        self.last("hub", message)
    }

    /// The last message of its sort: decisions and states have changed on the way.
    fn last<M: Message + Default>(&self, sender: &str, message: &str) -> M {
        let lines = self.said.lines();
        let mut lines = lines.iter().rev();
        let line = lines.find(|line| line.sender == sender && line.message == message);
        M::decode(line.expect("it was recorded").bytes.as_slice()).expect("it decodes")
    }

    fn recorded_attach(&self) -> v1::Attach {
        let recorded: v1::FeedUp = self.last("agent", "Attach");
        match recorded.message {
            Some(v1::feed_up::Message::Attach(attach)) => attach,
            other => panic!("{other:?}"),
        }
    }

    async fn talk(
        self,
        mut up: Streaming<v1::AgentControl>,
        down: mpsc::Sender<Result<v1::HubControl, Status>>,
    ) {
        use v1::agent_control::Message as M;
        let mut complete = self.complete.subscribe();
        let wanted = self.recorded_attach().streams.len();
        let mut decided = false;
        loop {
            let said = tokio::select! {
                said = up.message() => said,
                () = read(&mut complete, wanted) => {
                    self.complete.send_replace(BTreeSet::new());
                    let dispatch = self.hub("Dispatch");
                    down.send(Ok(dispatch)).await.expect("the agent listens");
                    continue;
                }
            };
            match said.ok().flatten().and_then(|said| said.message) {
                Some(M::Hello(hello)) => {
                    assert!(hello.versions.contains(&1), "{hello:?}");
                    for message in ["Welcome", "Heartbeat"] {
                        down.send(Ok(self.hub(message)))
                            .await
                            .expect("the agent listens");
                    }
                }
                Some(M::Accounts(_)) if !decided => {
                    decided = true;
                    let decisions = self.hub("Accounts");
                    down.send(Ok(decisions)).await.expect("the agent listens");
                }
                Some(M::Draining(_)) => {
                    self.farewell.send_replace(true);
                    return;
                }
                Some(M::Accounts(_) | M::Heartbeat(_)) => {}
                Some(M::Refused(refused)) => panic!("{refused:?}"),
                None => return,
            }
        }
    }

    /// Takes batches in the recorded epochs, and acknowledges them.
    async fn follow(
        self,
        mut up: Streaming<v1::FeedUp>,
        down: mpsc::Sender<Result<v1::FeedDown, Status>>,
    ) {
        use v1::event::Event as E;
        while let Ok(Some(said)) = up.message().await {
            let Some(v1::feed_up::Message::Batch(batch)) = said.message else {
                continue;
            };
            for event in open_batch(&batch).expect("a good batch") {
                if matches!(event.event, Some(E::SnapshotEnd(_))) {
                    self.complete.send_modify(|seen| {
                        seen.insert(batch.stream);
                    });
                }
            }
            let applied = batch.first_sequence + u64::from(batch.count) - 1;
            let ack = v1::StreamAck {
                stream: batch.stream,
                epoch: batch.epoch,
                applied,
            };
            let ack = v1::Acknowledgement { streams: vec![ack] };
            let message = Some(v1::feed_down::Message::Acknowledgement(ack));
            if down.send(Ok(v1::FeedDown { message })).await.is_err() {
                return;
            }
        }
    }
}

/// Waits until so many streams are complete.
async fn read(complete: &mut watch::Receiver<BTreeSet<u32>>, wanted: usize) {
    let seen = complete.wait_for(|seen| seen.len() == wanted).await;
    seen.map(drop).expect("its sender is ours");
}

/// What tells streams apart: number, resource, scope.
type Shape = (u32, Option<v1::Gvr>, Option<v1::Scope>);

/// The streams of an attach, without what counts within them, and its session.
fn shape(attach: &v1::Attach) -> (Vec<Shape>, Bytes) {
    let streams = attach.streams.iter();
    let shapes = streams.map(|one| (one.stream, one.resource.clone(), one.scope.clone()));
    (shapes.collect(), attach.session.clone())
}

#[tonic::async_trait]
impl Session for Playback {
    type ControlStream = Down<v1::HubControl>;
    type FeedStream = Down<v1::FeedDown>;
    type OperationStream = Down<v1::OperationDown>;

    async fn control(
        &self,
        request: Request<Streaming<v1::AgentControl>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (down, receiver) = mpsc::channel(16);
        let talking = self.clone().talk(request.into_inner(), down);
        self.tasks.spawn("talk", |_stop| talking);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn feed(
        &self,
        request: Request<Streaming<v1::FeedUp>>,
    ) -> Result<Response<Self::FeedStream>, Status> {
        let mut up = request.into_inner();
        let attach = attach_of(&mut up).await?;
        // Of another shape, the recorded answer would be about other streams.
        assert_eq!(shape(&attach), shape(&self.recorded_attach()));
        let (down, receiver) = mpsc::channel(16);
        down.try_send(Ok(self.hub("Attached")))
            .expect("the queue is new");
        let following = self.clone().follow(up, down);
        self.tasks.spawn("follow", |_stop| following);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn operation(
        &self,
        request: Request<Streaming<v1::OperationUp>>,
    ) -> Result<Response<Self::OperationStream>, Status> {
        let mut up = request.into_inner();
        let answers = Arc::clone(&self.answers);
        self.tasks.spawn("answers", |_stop| async move {
            while let Ok(Some(said)) = up.message().await {
                let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                answers.push(said);
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }
}
