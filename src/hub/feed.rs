//! Serves feeds: attaches, applies batches, acknowledges.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::{Response, Status, Streaming};

use super::Core;
use super::account::{Account, Outcome, Owner, Refusal};
use super::admission::CLUSTER_CHANGED;
use super::audit::Audit;
use super::peer::Peer;
use super::queue::{self, Answers, queue};
use super::services::first_message;
use super::session::Session;
use crate::wire::v1;

/// Answers of one feed that may wait for HTTP/2 to take them.
const ANSWERS: usize = 8;

/// Acknowledge after this many events, at the latest.
const ACK_EVENTS: u64 = 256;

/// Acknowledge after this many payload bytes, at the latest.
const ACK_BYTES: usize = 64 * 1024;

/// Acknowledge after this time, at the latest.
const ACK_AFTER: Duration = Duration::from_millis(20);

/// Why a feed ends that another one has replaced.
const NOT_THE_OWNER: &str = "another feed owns the account";

/// Why a feed ends whose account the hub does not, or no longer, take from this agent.
const NOT_ACCEPTED: &str = "the account is not accepted from this agent";

type Down = queue::Sender<v1::FeedDown>;

/// What was applied and not acknowledged.
#[derive(Default)]
struct Unacknowledged {
    acks: BTreeMap<u32, v1::StreamAck>,
    events: u64,
    bytes: usize,
    since: Option<Instant>,
}

impl Unacknowledged {
    fn add(&mut self, ack: v1::StreamAck, batch: &v1::Batch) {
        self.acks.insert(ack.stream, ack);
        self.events += u64::from(batch.count);
        self.bytes += batch.payload.len();
        self.since.get_or_insert_with(Instant::now);
    }

    const fn is_due(&self) -> bool {
        self.events >= ACK_EVENTS || self.bytes >= ACK_BYTES
    }

    fn take(&mut self) -> v1::FeedDown {
        let streams = std::mem::take(self).acks.into_values().collect();
        let ack = v1::Acknowledgement { streams };
        down(v1::feed_down::Message::Acknowledgement(ack))
    }
}

/// What is left to do about a message.
enum Step {
    /// Nothing.
    Done,
    /// To note what the agent told of its kinds.
    Discovered(Box<v1::Discovery>),
    /// To send this.
    Answer(v1::FeedDown),
    /// To end the feed with this sentence.
    Broken(String),
}

impl Core {
    /// Serves one feed.
    pub(super) async fn feed(
        self: &Arc<Self>,
        peer: Peer,
        mut up: Streaming<v1::FeedUp>,
    ) -> Result<Response<Answers<v1::FeedDown>>, Status> {
        let first = first_message(&mut up, "attach").await?;
        let Some(v1::FeedUp {
            message: Some(v1::feed_up::Message::Attach(attach)),
        }) = first
        else {
            return Err(Status::invalid_argument(
                "the first message is not an attach",
            ));
        };
        let session = self.session_of(&peer, &attach.session)?;
        let refused = |reason: &str| {
            Audit::new("attach feed", &format!("agent/{}", peer.name()))
                .with("account", &attach.account)
                .refuse(reason);
        };
        let (answers, receiver) = queue(ANSWERS);
        let accepted = session.accepted(&attach.account);
        // Where it is not, the agent may not have read yet that it was taken away.
        let Some(account) = accepted
            .then(|| self.accounts.get(&attach.account))
            .flatten()
        else {
            refused("NotAccepted");
            let _fits = answers.try_send(Ok(fenced(NOT_ACCEPTED)));
            return Ok(Response::new(receiver));
        };
        let owner = Owner {
            agent: session.agent.clone(),
            instance: session.instance,
            generation: attach.generation,
        };
        let before = account.provenance();
        match account.attach(owner.clone(), &attach) {
            Ok(streams) => {
                let attached = down(v1::feed_down::Message::Attached(v1::Attached { streams }));
                // The queue is new: this fits.
                let _fits = answers.try_send(Ok(attached));
            }
            Err(refusal) => {
                let reason = match refusal {
                    Refusal::Fenced(reason) => reason,
                    Refusal::ClusterChanged => {
                        refused(CLUSTER_CHANGED);
                        self.suspend(&account.name, CLUSTER_CHANGED).await;
                        "the account is of another cluster".to_owned()
                    }
                };
                let _fits = answers.try_send(Ok(fenced(&reason)));
                return Ok(Response::new(receiver));
            }
        }
        let (core, tasks) = (Arc::clone(self), peer.tasks.clone());
        // As in `control`: in a block of its own, because a future holds what it is given twice.
        let mut up = Box::new(up);
        let noting = {
            let (core, account) = (Arc::clone(self), Arc::clone(&account));
            Box::pin(async move { core.attached(&account, &before).await })
        };
        // With no pause since the attach in which this call could end: a task that has the account
        // gives it back.
        tasks.spawn("feed", move |stop| async move {
            let serving = pin!(async {
                noting.await;
                core.serve_feed(&peer, &session, &account, &owner, &mut up, &answers)
                    .await;
            });
            let _closed = stop.run_until_cancelled(serving).await;
            core.left(&session, &account, &owner);
        });
        Ok(Response::new(receiver))
    }

    /// Gives an account back whose feed has ended, unless its session may feed it again. A session that
    /// ends gives back what it has; it may have ended just before it was given this.
    fn left(self: &Arc<Self>, session: &Session, account: &Arc<Account>, owner: &Owner) {
        if !session.accepted(&account.name) && account.owner().as_ref() == Some(owner) {
            self.release(session, &account.name);
        }
    }

    /// The session that a stream names, if it is this peer's.
    pub(super) fn session_of(&self, peer: &Peer, id: &[u8]) -> Result<Arc<Session>, Status> {
        let session = self
            .sessions
            .get(id)
            .filter(|session| session.agent == peer.name());
        session.ok_or_else(|| {
            Audit::new("open stream", &format!("agent/{}", peer.name())).refuse("UnknownSession");
            Status::permission_denied("the session is not known; say hello first")
        })
    }

    async fn serve_feed(
        self: &Arc<Self>,
        peer: &Peer,
        session: &Session,
        account: &Arc<Account>,
        owner: &Owner,
        up: &mut Streaming<v1::FeedUp>,
        answers: &Down,
    ) {
        let mut unacknowledged = Unacknowledged::default();
        loop {
            let due = unacknowledged.since.map(|since| since + ACK_AFTER);
            let received = tokio::select! {
                biased;
                received = up.next() => received,
                () = due_at(due) => {
                    if !answers.send(Ok(unacknowledged.take())).await { return }
                    continue;
                }
            };
            let Some(message) = message_of(received) else {
                return;
            };
            // Nothing is applied after the decision to close the connection, or to take the
            // account away.
            if peer.kill.is_cancelled() || !session.accepted(&account.name) {
                let _gone = answers.send(Ok(fenced(NOT_ACCEPTED))).await;
                return;
            }
            match self.feed_message(account, owner, message, &mut unacknowledged) {
                Step::Done => {}
                Step::Discovered(discovery) => {
                    Box::pin(self.discovered(account, *discovery)).await;
                }
                Step::Answer(answer) => {
                    let last = matches!(answer.message, Some(v1::feed_down::Message::Fenced(_)));
                    if !answers.send(Ok(answer)).await || last {
                        return;
                    }
                }
                Step::Broken(why) => {
                    Audit::new("feed", &format!("agent/{}", session.agent))
                        .with("account", &account.name)
                        .with("why", &why)
                        .refuse("Malformed");
                    // Until its agent feeds it again, nobody may take it for up to date.
                    if account.owner().as_ref() == Some(owner) {
                        self.release(session, &account.name);
                    }
                    let _gone = answers.send(Err(Status::invalid_argument(why))).await;
                    return;
                }
            }
            if unacknowledged.is_due() && !answers.send(Ok(unacknowledged.take())).await {
                return;
            }
        }
    }

    fn apply(&self, account: &Account, owner: &Owner, batch: &v1::Batch) -> Outcome {
        if let Some(frames) = &self.frames
            && let Ok(plain) = crate::stream::inflate_batch(batch)
        {
            (frames.0)(&plain);
        }
        account.apply(owner, batch)
    }

    /// Takes a message, as far as that needs no waiting.
    fn feed_message(
        &self,
        account: &Account,
        owner: &Owner,
        message: v1::feed_up::Message,
        unacknowledged: &mut Unacknowledged,
    ) -> Step {
        match message {
            v1::feed_up::Message::Batch(batch) => match self.apply(account, owner, &batch) {
                Outcome::Acknowledge(ack) => {
                    unacknowledged.add(ack, &batch);
                    Step::Done
                }
                Outcome::Resume(resume) => Step::Answer(attached(vec![resume])),
                Outcome::Fenced => Step::Answer(fenced(NOT_THE_OWNER)),
                Outcome::Broken(why) => Step::Broken(why),
            },
            v1::feed_up::Message::Streams(streams) => {
                match account.change_streams(owner, &streams) {
                    Ok(resumes) => Step::Answer(attached(resumes)),
                    Err(_) => Step::Answer(fenced(NOT_THE_OWNER)),
                }
            }
            v1::feed_up::Message::Discovery(discovery) => Step::Discovered(Box::new(discovery)),
            v1::feed_up::Message::Attach(_) => Step::Broken("a second attach".to_owned()),
        }
    }
}

/// The message, unless the stream has ended. A future has room, for as long as an arm waits, for
/// what it takes apart itself.
fn message_of(received: Option<Result<v1::FeedUp, Status>>) -> Option<v1::feed_up::Message> {
    received?.ok()?.message
}

async fn due_at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

const fn down(message: v1::feed_down::Message) -> v1::FeedDown {
    v1::FeedDown {
        message: Some(message),
    }
}

const fn attached(streams: Vec<v1::StreamResume>) -> v1::FeedDown {
    down(v1::feed_down::Message::Attached(v1::Attached { streams }))
}

/// Ends a feed without ending the link, which carries other accounts.
fn fenced(reason: &str) -> v1::FeedDown {
    let reason = reason.to_owned();
    down(v1::feed_down::Message::Fenced(v1::Fenced { reason }))
}
