//! Carries one feed over one link.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::feed::Feed;
use super::link::SessionClient;
use super::queue::last_sequence;
use crate::wire::v1;

/// Batches that may wait for HTTP/2 to take them.
const SENDING: usize = 4;

/// Un-acknowledged bytes of one connection, shared by its feeds.
#[derive(Debug)]
pub(super) struct Credit {
    limit: usize,
    used: std::sync::Mutex<usize>,
    returned: Notify,
}

impl Credit {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            used: std::sync::Mutex::new(0),
            returned: Notify::new(),
        }
    }

    /// Whether something may be sent: less than the limit is un-acknowledged.
    fn is_open(&self) -> bool {
        *self.lock() < self.limit
    }

    fn take(&self, bytes: usize) {
        *self.lock() += bytes;
    }

    fn give_back(&self, bytes: usize) {
        let mut used = self.lock();
        *used = used.saturating_sub(bytes);
        drop(used);
        self.returned.notify_waiters();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.used
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Why a feed ended on this link.
#[derive(Debug)]
pub(super) enum PumpEnd {
    /// A newer link carries it, or it was taken from this agent.
    Fenced,
    /// Told to stop.
    Stopped,
    /// The stream broke, perhaps with the connection.
    Broken(Status),
}

/// What the pump knows of one stream.
#[derive(Default)]
struct Lane {
    /// Sequence to send next; zero until the hub said so.
    cursor: u64,
    epoch: u64,
    /// Sent and not acknowledged: last sequence, bytes.
    sent: std::collections::VecDeque<(u64, usize)>,
}

pub(super) struct Pump {
    pub(super) feed: Arc<Feed>,
    pub(super) session: Vec<u8>,
    pub(super) generation: u64,
    pub(super) credit: Arc<Credit>,
    lanes: HashMap<u32, Lane>,
    /// Stream that was served last.
    turn: u32,
}

impl Pump {
    pub(super) fn new(
        feed: Arc<Feed>,
        session: Vec<u8>,
        generation: u64,
        credit: Arc<Credit>,
    ) -> Self {
        Self {
            feed,
            session,
            generation,
            credit,
            lanes: HashMap::new(),
            turn: 0,
        }
    }

    /// Opens the feed and carries it until it ends.
    pub(super) async fn run(
        mut self,
        mut client: SessionClient,
        stop: CancellationToken,
    ) -> PumpEnd {
        let (up, receiver) = mpsc::channel(SENDING);
        // Before the attach is made: what is added behind it has to be told.
        let mut added = self.feed.added();
        let attach = self.feed.attach(&self.session, self.generation);
        let mut known: Vec<u32> = attach.streams.iter().map(|state| state.stream).collect();
        // Before the call is awaited: a hub that reads before it answers would wait for ever.
        let first = v1::FeedUp {
            message: Some(v1::feed_up::Message::Attach(attach)),
        };
        if up.try_send(first).is_err() {
            return PumpEnd::Stopped;
        }
        let opening = client.feed(ReceiverStream::new(receiver));
        let mut down = match stop.run_until_cancelled(opening).await {
            Some(Ok(answer)) => answer.into_inner(),
            Some(Err(status)) => return PumpEnd::Broken(status),
            None => return PumpEnd::Stopped,
        };
        let mut owner = self.feed.owner();
        let mut discovery = self.feed.discovery();
        discovery.mark_changed();
        let credit = Arc::clone(&self.credit);
        let feed = Arc::clone(&self.feed);
        let end = loop {
            let returned = credit.returned.notified();
            let open = credit.is_open();
            let mut batch = if open { self.next() } else { None };
            let may_send = batch.is_some();
            tokio::select! {
                biased;
                () = stop.cancelled() => break PumpEnd::Stopped,
                message = down.next() => match message {
                    Some(Ok(message)) => if let Some(end) = self.take(message) { break end },
                    Some(Err(status)) => break PumpEnd::Broken(status),
                    None => break PumpEnd::Broken(Status::unavailable("the hub ended the feed")),
                },
                () = newer(&mut owner, self.generation) => break PumpEnd::Fenced,
                _ = discovery.changed() => {
                    let kinds = discovery.borrow_and_update().as_ref().clone();
                    send(&up, v1::feed_up::Message::Discovery(kinds)).await;
                }
                _ = added.changed() => {
                    added.borrow_and_update();
                    let Some(streams) = self.changes(&mut known) else { continue };
                    send(&up, v1::feed_up::Message::Streams(streams)).await;
                }
                permit = up.reserve(), if may_send => {
                    if let (Ok(permit), Some(batch)) = (permit, batch.take()) {
                        self.sent(&batch);
                        let message = Some(v1::feed_up::Message::Batch(batch));
                        permit.send(v1::FeedUp { message });
                    }
                }
                () = feed.queue.filled(), if open && !may_send => {}
                () = returned, if !open => {}
            }
        };
        self.release();
        // It may have been woken for what it has not sent: whoever carries the feed next has to be.
        self.feed.queue.nudge();
        end
    }

    /// Streams that came or went since the hub was told.
    fn changes(&self, known: &mut Vec<u32>) -> Option<v1::Streams> {
        let now = self.feed.numbers();
        let detach: Vec<u32> = known
            .iter()
            .copied()
            .filter(|old| !now.contains(old))
            .collect();
        let attach = self.feed.states(|number| !known.contains(&number));
        if detach.is_empty() && attach.is_empty() {
            return None;
        }
        *known = now;
        Some(v1::Streams { attach, detach })
    }

    fn take(&mut self, message: v1::FeedDown) -> Option<PumpEnd> {
        match message.message? {
            v1::feed_down::Message::Attached(attached) => {
                for resume in &attached.streams {
                    let Some(cursor) = self.feed.resumed(resume) else {
                        continue;
                    };
                    let lane = self.lanes.entry(resume.stream).or_default();
                    let bytes = lane.sent.drain(..).map(|(_, bytes)| bytes).sum();
                    (lane.cursor, lane.epoch) = (cursor, resume.epoch);
                    self.credit.give_back(bytes);
                }
                // Only now does an older link stop: until here, it kept the stream flowing.
                (!self.feed.own(self.generation)).then_some(PumpEnd::Fenced)
            }
            v1::feed_down::Message::Acknowledgement(acknowledgement) => {
                for ack in acknowledgement.streams {
                    self.acknowledged(&ack);
                }
                None
            }
            v1::feed_down::Message::Fenced(fenced) => {
                tracing::debug!(
                    account = self.feed.account(),
                    generation = self.generation,
                    reason = fenced.reason,
                    "feed fenced"
                );
                Some(PumpEnd::Fenced)
            }
        }
    }

    fn acknowledged(&mut self, ack: &v1::StreamAck) {
        self.feed
            .queue
            .acknowledge(ack.stream, ack.epoch, ack.applied);
        let Some(lane) = self
            .lanes
            .get_mut(&ack.stream)
            .filter(|lane| lane.epoch == ack.epoch)
        else {
            return;
        };
        let mut freed = 0;
        while lane
            .sent
            .front()
            .is_some_and(|(last, _)| *last <= ack.applied)
        {
            freed += lane.sent.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        self.credit.give_back(freed);
    }

    /// The next batch to send, taking turns among streams.
    fn next(&mut self) -> Option<v1::Batch> {
        let busy = self.feed.queue.busy();
        let (later, earlier): (Vec<u32>, Vec<u32>) =
            busy.into_iter().partition(|number| *number > self.turn);
        for number in later.into_iter().chain(earlier) {
            let Some(lane) = self.lanes.get(&number).filter(|lane| lane.cursor > 0) else {
                continue;
            };
            if self.feed.queue.position(number).0 != lane.epoch {
                continue;
            }
            if let Some(batch) = self.feed.queue.next_batch(number, lane.cursor) {
                self.turn = number;
                return Some(batch);
            }
        }
        None
    }

    fn sent(&mut self, batch: &v1::Batch) {
        let lane = self.lanes.entry(batch.stream).or_default();
        lane.cursor = last_sequence(batch) + 1;
        lane.sent
            .push_back((last_sequence(batch), batch.payload.len()));
        self.credit.take(batch.payload.len());
        self.feed.note_sent(batch.payload.len());
    }

    /// Gives the credit of everything un-acknowledged back to the connection's other feeds.
    fn release(&mut self) {
        let lanes = self.lanes.values_mut();
        let bytes = lanes
            .flat_map(|lane| lane.sent.drain(..))
            .map(|(_, bytes)| bytes)
            .sum();
        self.credit.give_back(bytes);
    }
}

/// Waits until a link newer than `generation` carries the feed.
async fn newer(owner: &mut tokio::sync::watch::Receiver<u64>, generation: u64) {
    if owner.wait_for(|owner| *owner > generation).await.is_err() {
        // The feed is gone, and its streams with it: the hub will hear that from the link.
        std::future::pending::<()>().await;
    }
}

async fn send(up: &mpsc::Sender<v1::FeedUp>, message: v1::feed_up::Message) {
    let message = Some(message);
    // If the hub does not read any more, the other direction tells why.
    let _gone = up.send(v1::FeedUp { message }).await;
}
