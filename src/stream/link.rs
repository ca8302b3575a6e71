//! One connection to the hub: hello, heartbeats, accounts, directives, operations.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::carried::Carried;
use super::operation::operate;
use super::session::{Offers, Shared};
use crate::identity::channel::{Closed, Connection, Hub};
use crate::limits;
use crate::tasks::Tasks;
use crate::wire::v1;
use crate::wire::v1::agent_control::Message;
use crate::wire::v1::hub_control::Message as FromHub;

/// The generated client over our own connection.
pub(super) type SessionClient = v1::session_client::SessionClient<Hub>;

/// Control messages that may wait for HTTP/2 to take them.
const CONTROL_QUEUE: usize = 64;

/// Time until the hub's welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that running operations get when their link drains.
const DRAIN_OPERATIONS: Duration = Duration::from_secs(10);

/// Why a link is over.
#[derive(Debug)]
pub enum LinkEnd {
    /// The connection broke, or the hub fell silent; dial again.
    Lost(String),
    /// The hub refused this agent's certificate, with its words; another one may do.
    Refused(String),
    /// The hub has revoked this agent.
    Banned(String),
    /// Told to stop, and everything that ran has ended.
    Drained,
}

impl LinkEnd {
    /// Fixed label for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Lost(_) => "lost",
            Self::Refused(_) => "refused",
            Self::Banned(_) => "banned",
            Self::Drained => "drained",
        }
    }
}

/// A connection whose welcome was read.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    client: SessionClient,
    up: mpsc::Sender<v1::AgentControl>,
    down: Streaming<v1::HubControl>,
    welcome: v1::Welcome,
    generation: u64,
    tasks: Tasks,
    carried: Carried,
    running: HashMap<Vec<u8>, CancellationToken>,
    heard: Instant,
}

impl Link {
    /// Says hello over `connection` and waits for the welcome.
    ///
    /// # Errors
    /// The hub's refusal, or what broke. In TLS 1.3 a refused certificate shows only here.
    pub async fn open(
        shared: &Arc<Shared>,
        connection: Connection,
        tasks: &Tasks,
    ) -> Result<Self, LinkEnd> {
        let generation = shared.next_generation();
        let mut client = SessionClient::with_origin(connection.service(), connection.origin())
            .max_decoding_message_size(limits::OBJECT_BYTES);
        let (up, receiver) = mpsc::channel(CONTROL_QUEUE);
        // Before the call is awaited: a hub that reads before it answers would wait for ever.
        if up
            .try_send(control(Message::Hello(shared.hello(generation))))
            .is_err()
        {
            return Err(LinkEnd::Drained);
        }
        let opening = async {
            let mut down = client
                .control(ReceiverStream::new(receiver))
                .await?
                .into_inner();
            let first = down.message().await?;
            Ok::<_, Status>((down, first))
        };
        let opened = tokio::time::timeout(WELCOME_TIMEOUT, opening).await;
        let (down, first) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) => return Err(refusal(&connection, &status)),
            Err(_) => return Err(LinkEnd::Lost("the hub sent no welcome within 10 s".into())),
        };
        let Some(FromHub::Welcome(welcome)) = first.and_then(|f| f.message) else {
            return Err(LinkEnd::Lost(
                "the hub's first message is not a welcome".into(),
            ));
        };
        shared.welcomed(&welcome.session);
        let tasks = tasks.child();
        let carried = Carried::new(client.clone(), &welcome, generation, tasks.clone());
        Ok(Self {
            shared: Arc::clone(shared),
            connection: Arc::new(connection),
            client,
            up,
            down,
            generation,
            tasks,
            carried,
            running: HashMap::new(),
            heard: Instant::now(),
            welcome: *welcome,
        })
    }

    /// The hub's welcome.
    pub const fn welcome(&self) -> &v1::Welcome {
        &self.welcome
    }

    /// Counts the connections of this instance.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The connection below, for renewal.
    pub fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }

    /// Serves the link until it ends. Cancelling `drain` ends it once what runs has ended; what
    /// the hub directs goes to `directives`.
    pub async fn run(
        mut self,
        drain: CancellationToken,
        directives: mpsc::Sender<v1::directive::Directive>,
    ) -> LinkEnd {
        let (ended_operation, mut ended_operations) = mpsc::channel(CONTROL_QUEUE);
        let mut offers = self.shared.offers.clone();
        let mut feeds = self.shared.feeds.clone();
        let mut decisions = self.shared.decisions();
        feeds.mark_changed();
        let mut beat = tokio::time::interval(self.heartbeat());
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let connection = Arc::clone(&self.connection);
        let closed = connection.closed();
        tokio::pin!(closed);
        let tasks = self.tasks.clone();
        let up = self.up.clone();
        let mut offers_are_due = true;
        let end = loop {
            tokio::select! {
                biased;
                () = drain.cancelled() => break LinkEnd::Drained,
                message = self.down.next() => match message {
                    Some(Ok(message)) => {
                        if self.take(message, &ended_operation, &directives) {
                            self.carry();
                        }
                    }
                    Some(Err(status)) => break refusal(&self.connection, &status),
                    None => break LinkEnd::Lost("the hub ended the control stream".into()),
                },
                why = &mut closed => break closed_by(&why),
                task = tasks.died() => break LinkEnd::Lost(format!("task `{task}` panicked")),
                Some(operation) = ended_operations.recv() => {
                    self.running.remove(&operation);
                }
                (account, end) = self.carried.next_end() => {
                    self.carried.ended(&account, &end);
                    self.carry();
                }
                _ = offers.changed() => offers_are_due = true,
                // A connection that is stuck must not keep the link from noticing its end.
                Ok(place) = up.reserve(), if offers_are_due => {
                    place.send(control(offered(&mut offers)));
                    offers_are_due = false;
                }
                _ = feeds.changed() => {
                    feeds.borrow_and_update();
                    self.carry();
                }
                _ = decisions.changed() => {
                    decisions.borrow_and_update();
                    self.carry();
                }
                _ = beat.tick() => {
                    if self.heard.elapsed() > limits::HEARTBEAT_TIMEOUT {
                        break LinkEnd::Lost("the hub has been silent for 20 s".into());
                    }
                    self.beat();
                }
            }
        };
        // Nobody waits for what has ended.
        drop(ended_operations);
        self.finish(end).await
    }

    fn heartbeat(&self) -> Duration {
        match self.welcome.heartbeat_millis {
            0 => limits::HEARTBEAT,
            millis => Duration::from_millis(millis.into()).min(limits::HEARTBEAT),
        }
    }

    fn beat(&self) {
        let since = self
            .shared
            .clock
            .now()
            .duration_since(std::time::UNIX_EPOCH);
        let sent_millis = since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        let beat = v1::Heartbeat {
            sent_millis,
            ..v1::Heartbeat::default()
        };
        // A full queue means that the connection is stuck: the hub's silence will tell.
        let _full = self.up.try_send(control(Message::Heartbeat(beat)));
    }

    /// Takes a message of the hub; true if it has decided on the accounts.
    fn take(
        &mut self,
        message: v1::HubControl,
        ended: &mpsc::Sender<Vec<u8>>,
        directives: &mpsc::Sender<v1::directive::Directive>,
    ) -> bool {
        self.heard = Instant::now();
        match message.message {
            Some(FromHub::Accounts(decisions)) => {
                self.shared.decide(&self.welcome.session, decisions);
                return true;
            }
            Some(FromHub::Directive(v1::Directive { directive })) => {
                // The supervisor takes them one by one; a flood of them changes nothing.
                let _full = directive.map(|directive| directives.try_send(directive));
            }
            Some(FromHub::Dispatch(dispatch)) => self.dispatch(*dispatch, ended),
            Some(FromHub::Cancelled(cancelled)) => {
                if let Some(stop) = self.running.get(cancelled.operation.as_ref()) {
                    stop.cancel();
                }
            }
            Some(FromHub::Heartbeat(_) | FromHub::Welcome(_)) | None => {}
        }
        false
    }

    /// Carries the feeds that the hub has accepted in this session.
    fn carry(&mut self) {
        if !self.shared.has_decided(&self.welcome.session) {
            return;
        }
        let feeds = self.shared.feeds.borrow();
        self.carried
            .follow(&feeds, |account| self.shared.is_accepted(account));
    }

    // ------------------------------------------------------------ operations

    fn dispatch(&mut self, dispatch: v1::Dispatch, ended: &mpsc::Sender<Vec<u8>>) {
        let max = usize::try_from(self.welcome.max_operations).unwrap_or(usize::MAX);
        if self.running.len() >= max.min(limits::OPERATIONS_PER_AGENT) {
            return self.refuse(dispatch.operation);
        }
        let operation = dispatch.operation.to_vec();
        if self.running.contains_key(&operation) {
            tracing::warn!("the hub sent an operation twice, which runs once");
            return;
        }
        let stop = CancellationToken::new();
        self.running.insert(operation.clone(), stop.clone());
        let (client, ended) = (self.client.clone(), ended.clone());
        let session = self.welcome.session.clone();
        let operations = Arc::clone(&self.shared.operations);
        self.tasks.spawn("operation", move |link_stop| async move {
            let running = operate(client, session, dispatch, operations, stop);
            // Dropping it resets the operation's stream.
            let _cut = link_stop.run_until_cancelled(running).await;
            let _link_gone = ended.send(operation).await;
        });
    }

    fn refuse(&self, operation: bytes::Bytes) {
        let failure = v1::OperationFailure {
            kind: v1::OperationFailureKind::Busy.into(),
            message: "the agent has as many operations running as it may".into(),
            field: String::new(),
        };
        let refused = v1::OperationRefused {
            operation,
            failure: Some(failure),
        };
        // If even this does not fit, the hub's own deadline ends the operation.
        let _full = self.up.try_send(control(Message::Refused(refused)));
    }

    // ------------------------------------------------------------ end

    async fn finish(mut self, end: LinkEnd) -> LinkEnd {
        self.carried.stop();
        if matches!(end, LinkEnd::Drained) {
            // If even this does not fit, the connection is stuck, and nobody would hear it.
            let _full = self
                .up
                .try_send(control(Message::Draining(v1::Draining {})));
            // The feeds were told to stop; what is left are operations.
            let _in_time = self.tasks.drain_after(DRAIN_OPERATIONS).await;
        }
        self.tasks.cancel();
        let _all_ended = self.tasks.drain(Duration::from_secs(1)).await;
        end
    }
}

fn offered(offers: &mut watch::Receiver<Arc<Offers>>) -> Message {
    let accounts = offers.borrow_and_update().values().cloned().collect();
    Message::Accounts(v1::AccountOffers { accounts })
}

const fn control(message: Message) -> v1::AgentControl {
    v1::AgentControl {
        message: Some(message),
    }
}

/// Tells a refusal from a broken connection; a TLS alert is told in its own words.
fn refusal(connection: &Connection, status: &Status) -> LinkEnd {
    use tonic::Code;
    if let Some(closed) = connection.reason() {
        return closed_by(closed);
    }
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => {
            LinkEnd::Refused(status.message().to_owned())
        }
        Code::Unimplemented => LinkEnd::Lost(
            "it takes no sessions, as a hub's enrol port; `hub.data` has to name the data port \
             (9091 unless configured)"
                .to_owned(),
        ),
        code if status.message().is_empty() => LinkEnd::Lost(code.to_string()),
        _ => LinkEnd::Lost(status.message().to_owned()),
    }
}

fn closed_by(closed: &Closed) -> LinkEnd {
    let why = closed.to_string();
    if closed.is_ban() {
        LinkEnd::Banned(why)
    } else if closed.is_refusal() {
        LinkEnd::Refused(why)
    } else {
        LinkEnd::Lost(why)
    }
}
