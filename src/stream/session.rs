//! One connection to the hub: hello, heartbeats, accounts, directives, operations, feeds.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::feed::Feed;
use super::operation::{Operations, operate};
use super::pump::{Credit, Pump, PumpEnd};
use crate::clock::SharedClock;
use crate::identity::channel::{Closed, Connection, Hub};
use crate::limits;
use crate::tasks::Tasks;
use crate::wire::{self, v1};

/// The generated client over our own connection.
pub(super) type SessionClient = v1::session_client::SessionClient<Hub>;

/// Control messages that may wait for HTTP/2 to take them.
const CONTROL_QUEUE: usize = 64;

/// Time until the hub's welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that running operations get when their link drains.
const DRAIN_OPERATIONS: Duration = Duration::from_secs(10);

/// The accounts of this instance, as offered to the hub.
pub type Offers = BTreeMap<String, v1::AccountOffer>;

/// What the hub makes of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the account is fed.
    pub admission: v1::Admission,
    /// One line for people.
    pub message: String,
}

/// What does not change while the process lives.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// This process: 16 random bytes.
    pub instance: [u8; 16],
    /// Name of the pod or host, for people.
    pub host: String,
}

/// What the links of one agent instance share.
#[derive(Debug)]
pub struct Shared {
    settings: SessionSettings,
    generation: AtomicU64,
    session: Mutex<Vec<u8>>,
    offers: watch::Receiver<Arc<Offers>>,
    feeds: watch::Receiver<Arc<BTreeMap<String, Arc<Feed>>>>,
    decisions: watch::Sender<Arc<BTreeMap<String, Decision>>>,
    /// The session in which the hub decided: another hub, or one that was restarted, has to decide
    /// again before it takes feeds.
    decided_in: Mutex<Vec<u8>>,
    operations: Arc<dyn Operations>,
    clock: SharedClock,
}

impl Shared {
    /// Ties a session to the accounts it offers, the feeds it carries and the operations it runs.
    pub fn new(
        settings: SessionSettings,
        offers: watch::Receiver<Arc<Offers>>,
        feeds: watch::Receiver<Arc<BTreeMap<String, Arc<Feed>>>>,
        operations: Arc<dyn Operations>,
        clock: SharedClock,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            generation: AtomicU64::new(0),
            session: Mutex::default(),
            offers,
            feeds,
            decisions: watch::Sender::default(),
            decided_in: Mutex::default(),
            operations,
            clock,
        })
    }

    /// What the hub makes of the offered accounts.
    pub fn decisions(&self) -> watch::Receiver<Arc<BTreeMap<String, Decision>>> {
        self.decisions.subscribe()
    }

    fn session(&self) -> Vec<u8> {
        self.session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the hub has decided on the accounts in this session.
    fn has_decided(&self, session: &[u8]) -> bool {
        let decided = self.decided_in.lock();
        *decided.unwrap_or_else(PoisonError::into_inner) == session
    }

    fn hello(&self, generation: u64) -> v1::AgentControl {
        control(v1::agent_control::Message::Hello(v1::AgentHello {
            versions: wire::VERSIONS.to_vec(),
            capabilities: Vec::new(),
            instance: self.settings.instance.to_vec().into(),
            generation,
            session: self.session().into(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.settings.host.clone(),
        }))
    }
}

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
    credit: Arc<Credit>,
    tasks: Tasks,
    /// Ends the feeds of this link, its operations go on.
    feeds_stop: CancellationToken,
    running: HashMap<Vec<u8>, CancellationToken>,
    pumped: HashMap<String, Carried>,
    heard: Instant,
}

/// A feed that a link carries, or has carried.
#[derive(Debug)]
struct Carried {
    feed: Arc<Feed>,
    stop: CancellationToken,
    /// Fenced: not to be taken back from a newer link.
    ended: bool,
}

/// What a link's own tasks tell it.
enum Told {
    Pump(String, PumpEnd),
    Operation(Vec<u8>),
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
        let generation = shared.generation.fetch_add(1, Ordering::SeqCst) + 1;
        let mut client = SessionClient::with_origin(connection.service(), connection.origin())
            .max_decoding_message_size(limits::OBJECT_BYTES);
        let (up, receiver) = mpsc::channel(CONTROL_QUEUE);
        // Before the call is awaited: a hub that reads before it answers would wait for ever.
        if up.try_send(shared.hello(generation)).is_err() {
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
        let Some(v1::hub_control::Message::Welcome(welcome)) = first.and_then(|f| f.message) else {
            return Err(LinkEnd::Lost(
                "the hub's first message is not a welcome".into(),
            ));
        };
        *shared
            .session
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = welcome.session.to_vec();
        let credit = usize::try_from(welcome.feed_credit_bytes).unwrap_or(usize::MAX);
        Ok(Self {
            shared: Arc::clone(shared),
            connection: Arc::new(connection),
            client,
            up,
            down,
            generation,
            credit: Arc::new(Credit::new(credit.min(limits::FEED_CREDIT_BYTES))),
            tasks: tasks.child(),
            feeds_stop: CancellationToken::new(),
            running: HashMap::new(),
            pumped: HashMap::new(),
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
        let (told, mut tells) = mpsc::channel(CONTROL_QUEUE);
        let mut offers = self.shared.offers.clone();
        let mut feeds = self.shared.feeds.clone();
        let mut decisions = self.shared.decisions.subscribe();
        offers.mark_changed();
        feeds.mark_changed();
        let mut beat = tokio::time::interval(self.heartbeat());
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let connection = Arc::clone(&self.connection);
        let closed = connection.closed();
        tokio::pin!(closed);
        let tasks = self.tasks.clone();
        let end = loop {
            tokio::select! {
                biased;
                () = drain.cancelled() => break LinkEnd::Drained,
                message = self.down.next() => match message {
                    Some(Ok(message)) => {
                        if self.take(message, &told, &directives) {
                            self.pump(&mut feeds, &told);
                        }
                    }
                    Some(Err(status)) => break refusal(&self.connection, &status),
                    None => break LinkEnd::Lost("the hub ended the control stream".into()),
                },
                why = &mut closed => break ended(&why),
                task = tasks.died() => break LinkEnd::Lost(format!("task `{task}` panicked")),
                Some(tell) = tells.recv() => {
                    if let Some(end) = self.told(tell) { break end }
                    self.pump(&mut feeds, &told);
                }
                _ = offers.changed() => self.offer(&mut offers).await,
                _ = feeds.changed() => self.pump(&mut feeds, &told),
                _ = decisions.changed() => {
                    decisions.borrow_and_update();
                    self.pump(&mut feeds, &told);
                }
                _ = beat.tick() => {
                    if self.heard.elapsed() > limits::HEARTBEAT_TIMEOUT {
                        break LinkEnd::Lost("the hub has been silent for 20 s".into());
                    }
                    self.beat();
                }
            }
        };
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
        let _full = self
            .up
            .try_send(control(v1::agent_control::Message::Heartbeat(beat)));
    }

    async fn offer(&self, offers: &mut watch::Receiver<Arc<Offers>>) {
        let accounts = offers.borrow_and_update().values().cloned().collect();
        let message = v1::agent_control::Message::Accounts(v1::AccountOffers { accounts });
        // Fails only when the stream is gone, which the loop sees by itself.
        let _gone = self.up.send(control(message)).await;
    }

    /// Takes a message of the hub; true if it has decided on the accounts.
    fn take(
        &mut self,
        message: v1::HubControl,
        told: &mpsc::Sender<Told>,
        directives: &mpsc::Sender<v1::directive::Directive>,
    ) -> bool {
        use v1::hub_control::Message as M;
        self.heard = Instant::now();
        match message.message {
            Some(M::Accounts(decisions)) => {
                self.decide(decisions);
                return true;
            }
            Some(M::Directive(v1::Directive { directive })) => {
                // The supervisor takes them one by one; a flood of them changes nothing.
                let _full = directive.map(|directive| directives.try_send(directive));
            }
            Some(M::Dispatch(dispatch)) => self.dispatch(*dispatch, told),
            Some(M::Cancelled(cancelled)) => {
                if let Some(stop) = self.running.get(cancelled.operation.as_ref()) {
                    stop.cancel();
                }
            }
            Some(M::Heartbeat(_) | M::Welcome(_)) | None => {}
        }
        false
    }

    fn decide(&self, decisions: v1::AccountDecisions) {
        let decided: BTreeMap<String, Decision> = decisions
            .accounts
            .into_iter()
            .map(|decision| {
                let admission = decision.admission();
                (
                    decision.name,
                    Decision {
                        admission,
                        message: decision.message,
                    },
                )
            })
            .collect();
        let decided_in = self.shared.decided_in.lock();
        *decided_in.unwrap_or_else(PoisonError::into_inner) = self.welcome.session.to_vec();
        self.shared.decisions.send_if_modified(|old| {
            let differs = **old != decided;
            if differs {
                for (account, decision) in &decided {
                    if old.get(account) != Some(decision) {
                        log(account, decision);
                    }
                }
                *old = Arc::new(decided);
            }
            differs
        });
    }

    /// Starts to carry the feeds that are accepted and not carried yet; stops those that are no
    /// longer accepted, or replaced, which are taken up again once they have ended.
    fn pump(
        &mut self,
        feeds: &mut watch::Receiver<Arc<BTreeMap<String, Arc<Feed>>>>,
        told: &mpsc::Sender<Told>,
    ) {
        let feeds = Arc::clone(&feeds.borrow_and_update());
        if !self.shared.has_decided(&self.welcome.session) {
            return;
        }
        let decisions = Arc::clone(&self.shared.decisions.borrow());
        let is_accepted = |account: &String| {
            let decision = decisions.get(account);
            decision.is_some_and(|decision| decision.admission == v1::Admission::Accepted)
        };
        self.pumped.retain(|account, carried| {
            let same = feeds.get(account);
            let same = same.is_some_and(|feed| Arc::ptr_eq(feed, &carried.feed));
            if same && is_accepted(account) {
                return true;
            }
            carried.stop.cancel();
            !carried.ended
        });
        for (account, feed) in feeds.iter() {
            if !is_accepted(account) || self.pumped.contains_key(account) {
                continue;
            }
            let stop = self.feeds_stop.child_token();
            let carried = Carried {
                feed: Arc::clone(feed),
                stop: stop.clone(),
                ended: false,
            };
            self.pumped.insert(account.clone(), carried);
            let session = self.welcome.session.to_vec();
            let credit = Arc::clone(&self.credit);
            let pump = Pump::new(Arc::clone(feed), session, self.generation, credit);
            let (client, told) = (self.client.clone(), told.clone());
            let account = account.clone();
            self.tasks.spawn("feed", move |link_stop| async move {
                let end = tokio::select! {
                    end = pump.run(client, stop) => end,
                    () = link_stop.cancelled() => PumpEnd::Stopped,
                };
                let _link_gone = told.send(Told::Pump(account, end)).await;
            });
        }
    }

    fn told(&mut self, tell: Told) -> Option<LinkEnd> {
        match tell {
            Told::Operation(operation) => {
                self.running.remove(&operation);
                None
            }
            Told::Pump(account, PumpEnd::Broken(status)) => {
                self.pumped.remove(&account);
                Some(LinkEnd::Lost(format!(
                    "feed of `{account}` broke: {}",
                    status.message()
                )))
            }
            // A fenced feed stays noted: this link must not take it back from a newer one.
            Told::Pump(account, PumpEnd::Fenced) => {
                if let Some(carried) = self.pumped.get_mut(&account) {
                    carried.ended = true;
                }
                None
            }
            Told::Pump(account, PumpEnd::Stopped) => {
                self.pumped.remove(&account);
                None
            }
        }
    }

    // ------------------------------------------------------------ operations

    fn dispatch(&mut self, dispatch: v1::Dispatch, told: &mpsc::Sender<Told>) {
        let max = usize::try_from(self.welcome.max_operations).unwrap_or(usize::MAX);
        if self.running.len() >= max.min(limits::OPERATIONS_PER_AGENT) {
            return self.refuse(dispatch.operation);
        }
        let operation = dispatch.operation.to_vec();
        let stop = CancellationToken::new();
        self.running.insert(operation.clone(), stop.clone());
        let (client, told) = (self.client.clone(), told.clone());
        let session = self.welcome.session.clone();
        let operations = Arc::clone(&self.shared.operations);
        self.tasks.spawn("operation", move |link_stop| async move {
            let running = operate(client, session, dispatch, operations, stop);
            // Dropping it resets the operation's stream.
            let _cut = link_stop.run_until_cancelled(running).await;
            let _link_gone = told.send(Told::Operation(operation)).await;
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
        let _full = self
            .up
            .try_send(control(v1::agent_control::Message::Refused(refused)));
    }

    // ------------------------------------------------------------ end

    async fn finish(self, end: LinkEnd) -> LinkEnd {
        if matches!(end, LinkEnd::Drained) {
            self.feeds_stop.cancel();
            let draining = v1::agent_control::Message::Draining(v1::Draining {});
            let _gone = self.up.send(control(draining)).await;
            // The feeds were told to stop; what is left are operations.
            let _in_time = self.tasks.drain_after(DRAIN_OPERATIONS).await;
        }
        self.tasks.cancel();
        let _all_ended = self.tasks.drain(Duration::from_secs(1)).await;
        end
    }
}

const fn control(message: v1::agent_control::Message) -> v1::AgentControl {
    v1::AgentControl {
        message: Some(message),
    }
}

/// Tells a refusal from a broken connection; a TLS alert is told in its own words.
/// Tells the operator of the agent what the hub makes of an account: nobody else here does.
fn log(account: &str, decision: &Decision) {
    use v1::Admission as A;
    let why = &decision.message;
    match decision.admission {
        A::Accepted | A::Standby => {
            tracing::debug!(account, why, "account accepted");
        }
        A::Taken => tracing::warn!(
            account,
            reason = "AccountTaken",
            why,
            "the hub does not serve the account"
        ),
        A::Pending | A::Suspended | A::Unspecified => {
            tracing::warn!(account, why, "the hub does not serve the account");
        }
    }
}

fn refusal(connection: &Connection, status: &Status) -> LinkEnd {
    use tonic::Code;
    if let Some(closed) = connection.reason() {
        return ended(closed);
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

fn ended(closed: &Closed) -> LinkEnd {
    let why = closed.to_string();
    if closed.is_ban() {
        LinkEnd::Banned(why)
    } else if closed.is_refusal() {
        LinkEnd::Refused(why)
    } else {
        LinkEnd::Lost(why)
    }
}
