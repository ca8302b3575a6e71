//! Sessions with agents: hello and welcome, accounts, heartbeats, directives.
//!
//! A session belongs to one agent instance and outlives its connections; each connection is a
//! link, counted by the agent. The newest link gets dispatches and directives.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::{Response, Status, Streaming};

use super::Core;
use super::admission::{self, Decisions, Offers};
use super::audit::Audit;
use super::peer::Peer;
use super::queue::{self, Answers, queue};
use super::services::first_message;
use crate::entropy;
use crate::limits;
use crate::wire::{self, v1};

/// Control messages that may wait for HTTP/2 to take them.
const CONTROL_QUEUE: usize = 128;

/// Links one session may have: the current one, and those that drain.
const LINKS: usize = 4;

/// Time over which agents come back after a drain: so long per agent, and within these bounds.
///
/// A handshake costs a hub about 1 ms of one core.
const RETURN_EACH: Duration = Duration::from_millis(4);
const RETURN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Name of a process: 16 random bytes.
pub(super) type Instance = [u8; 16];

/// One agent instance.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: [u8; 16],
    pub(super) agent: String,
    pub(super) instance: Instance,
    pub(super) host: String,
    pub(super) program: String,
    pub(super) since: SystemTime,
    state: Mutex<SessionState>,
}

#[derive(Debug, Default)]
struct SessionState {
    /// By generation. Boxed: a map sets aside room for eleven, and most hold one.
    links: BTreeMap<u64, Box<LinkHandle>>,
    offers: Arc<Offers>,
    decisions: Decisions,
    /// Operations under way.
    operations: usize,
}

/// Which decisions an agent is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    Always,
    /// Those that differ from the last ones.
    News,
}

#[derive(Clone, Debug)]
pub(super) struct LinkHandle {
    control: queue::Sender<v1::HubControl>,
    pub(super) peer: Peer,
    draining: bool,
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link that gets dispatches: the newest that does not drain.
    pub(super) fn link(&self) -> Option<LinkHandle> {
        let state = self.lock();
        state
            .links
            .values()
            .rev()
            .find(|link| !link.draining)
            .map(|link| LinkHandle::clone(link))
    }

    /// Sends a message over the newest link; false if it is gone or its queue is full.
    pub(super) fn tell(&self, message: v1::hub_control::Message) -> bool {
        self.link().is_some_and(|link| {
            let message = v1::HubControl {
                message: Some(message),
            };
            link.control.try_send(Ok(message))
        })
    }

    /// Takes a place for an operation; false if all are taken.
    pub(super) fn begin_operation(&self) -> bool {
        let mut state = self.lock();
        let free = state.operations < limits::OPERATIONS_PER_AGENT;
        state.operations += usize::from(free);
        free
    }

    pub(super) fn end_operation(&self) {
        let mut state = self.lock();
        state.operations = state.operations.saturating_sub(1);
    }

    fn add_link(&self, generation: u64, link: LinkHandle) -> Result<(), Status> {
        let mut state = self.lock();
        if state
            .links
            .last_key_value()
            .is_some_and(|(newest, _)| *newest >= generation)
        {
            return Err(Status::already_exists(
                "a newer connection of this instance is here",
            ));
        }
        if state.links.len() >= LINKS {
            return Err(Status::resource_exhausted(
                "too many connections of one instance",
            ));
        }
        state.links.insert(generation, Box::new(link));
        Ok(())
    }

    /// No dispatches go over this link any more.
    fn drain(&self, generation: u64) {
        if let Some(link) = self.lock().links.get_mut(&generation) {
            link.draining = true;
        }
    }

    /// What the agent last said of its accounts.
    pub(super) fn offers(&self) -> Arc<Offers> {
        Arc::clone(&self.lock().offers)
    }

    /// Whether the hub lets it feed `account`.
    pub(super) fn accepted(&self, account: &str) -> bool {
        let state = self.lock();
        let decision = state.decisions.get(account);
        decision.is_some_and(|decision| decision.admission == v1::Admission::Accepted)
    }

    /// Whether it is here and offers `account`.
    pub(super) fn serves(&self, account: &str) -> bool {
        self.is_connected() && self.offers().contains_key(account)
    }

    /// Whether it has a link. One without has drained, and may still answer what was asked of it.
    pub(super) fn is_connected(&self) -> bool {
        !self.lock().links.is_empty()
    }
}

/// Every session, and which instance of each agent is the active one.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<SessionsState>);

#[derive(Debug, Default)]
struct SessionsState {
    by_id: HashMap<[u8; 16], Arc<Session>>,
    /// By agent name.
    active: HashMap<String, Instance>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, SessionsState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, id: &[u8]) -> Option<Arc<Session>> {
        let id: [u8; 16] = id.try_into().ok()?;
        self.lock().by_id.get(&id).cloned()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().by_id.len()
    }

    /// Every session, by agent and start.
    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        let mut all: Vec<_> = self.lock().by_id.values().cloned().collect();
        all.sort_by(|a, b| (&a.agent, a.since, a.id).cmp(&(&b.agent, b.since, b.id)));
        all
    }

    /// The connected session that is active for `agent`.
    pub(super) fn active(&self, agent: &str) -> Option<Arc<Session>> {
        let state = self.lock();
        let instance = state.active.get(agent)?;
        let mut sessions = state.by_id.values();
        let session = sessions.find(|s| s.agent == agent && s.instance == *instance)?;
        session.is_connected().then(|| Arc::clone(session))
    }

    /// Whether `session` is the active instance of its agent.
    pub(super) fn is_active(&self, session: &Session) -> bool {
        self.lock().active.get(&session.agent) == Some(&session.instance)
    }

    /// Makes `session` the active instance of its agent, if there is none; whether it is now.
    fn claim(&self, session: &Session) -> bool {
        let mut state = self.lock();
        let taken = state
            .active
            .entry(session.agent.clone())
            .or_insert(session.instance);
        *taken == session.instance
    }

    /// Forgets a session whose last connection is closed.
    fn forget(&self, session: &Session) {
        let mut state = self.lock();
        if !session.is_connected() {
            state.by_id.remove(&session.id);
        }
    }

    /// Gives the place of an instance that is gone to the one that waits longest.
    fn succeed(&self, gone: &Session) -> Option<Arc<Session>> {
        let mut state = self.lock();
        if state.active.get(&gone.agent) != Some(&gone.instance) {
            return None;
        }
        state.active.remove(&gone.agent);
        let waiting = state
            .by_id
            .values()
            .filter(|s| s.agent == gone.agent && s.is_connected());
        let next = waiting.min_by_key(|s| (s.since, s.id)).cloned()?;
        state.active.insert(next.agent.clone(), next.instance);
        Some(next)
    }
}

impl Core {
    /// Serves one control stream.
    pub(super) async fn control(
        self: &Arc<Self>,
        peer: Peer,
        mut up: Streaming<v1::AgentControl>,
    ) -> Result<Response<Answers<v1::HubControl>>, Status> {
        if !peer.take_control() {
            Audit::new("connect", &format!("agent/{}", peer.name())).refuse("SecondControl");
            let why = "the connection has, or had, a control stream; dial again";
            return Err(Status::already_exists(why));
        }
        let first = first_message(&mut up, "hello").await?;
        let Some(v1::AgentControl {
            message: Some(v1::agent_control::Message::Hello(hello)),
        }) = first
        else {
            return Err(Status::invalid_argument("the first message is not a hello"));
        };
        let version = negotiate(&hello.versions)?;
        let session = self.session(&peer, &hello)?;
        let (control, answers) = queue(CONTROL_QUEUE);
        let handle = LinkHandle {
            control: control.clone(),
            peer: peer.clone(),
            draining: false,
        };
        session.add_link(hello.generation, handle)?;
        let welcome = self.welcome(&session, version);
        // The queue is new: this fits.
        let welcome = message(v1::hub_control::Message::Welcome(Box::new(welcome)));
        let _fits = control.try_send(Ok(welcome));
        Audit::new("connect", &format!("agent/{}", session.agent))
            .with("generation", hello.generation)
            .with("serial", peer.verified.serial())
            .admit();
        let core = Arc::clone(self);
        let tasks = peer.tasks.clone();
        let generation = hello.generation;
        // A future holds what it is given twice, and what it awaits for all of its life: as many
        // as there are agents hold what is large, or rare, in a block of its own.
        let mut up = Box::new(up);
        tasks.spawn("control", move |stop| async move {
            let served = pin!(core.serve_control(&session, generation, &mut up, &control));
            let why = stop
                .run_until_cancelled(served)
                .await
                .unwrap_or("the connection is closed");
            core.remove_link(&session, generation, why);
            // Operations that were under way are still answered over the connection.
            stop.cancelled().await;
            core.sessions.forget(&session);
        });
        Ok(Response::new(answers))
    }

    fn session(&self, peer: &Peer, hello: &v1::AgentHello) -> Result<Arc<Session>, Status> {
        let instance: Instance = hello
            .instance
            .as_ref()
            .try_into()
            .map_err(|_length| Status::invalid_argument("an instance has 16 bytes"))?;
        let agent = peer.name().to_owned();
        let mut state = self.sessions.lock();
        let of_agent = || state.by_id.values().filter(|s| s.agent == agent);
        if let Some(known) = of_agent().find(|s| s.instance == instance) {
            return Ok(Arc::clone(known));
        }
        if of_agent().count() >= limits::INSTANCES_PER_AGENT {
            Audit::new("connect", &format!("agent/{agent}")).refuse("TooManyInstances");
            return Err(Status::resource_exhausted(format!(
                "{} instances of agent `{agent}` are here; this one may come once one of them \
                 has gone",
                limits::INSTANCES_PER_AGENT
            )));
        }
        let session = Arc::new(Session {
            id: entropy::bytes(&*self.entropy),
            agent,
            instance,
            host: hello.host.chars().take(253).collect(),
            program: hello.program.chars().take(64).collect(),
            since: self.clock.now(),
            state: Mutex::default(),
        });
        state.by_id.insert(session.id, Arc::clone(&session));
        Ok(session)
    }

    fn welcome(&self, session: &Session, version: u32) -> v1::Welcome {
        let role = if self.sessions.claim(session) {
            v1::InstanceRole::Active
        } else {
            v1::InstanceRole::Standby
        };
        v1::Welcome {
            version,
            capabilities: Vec::new(),
            session: session.id.to_vec().into(),
            hub: self.name.to_string(),
            server_time: crate::clock::unix_seconds(self.clock.now()),
            feed_credit_bytes: u32::try_from(limits::FEED_CREDIT_BYTES).unwrap_or(u32::MAX),
            heartbeat_millis: u32::try_from(limits::HEARTBEAT.as_millis()).unwrap_or(u32::MAX),
            max_operations: u32::try_from(limits::OPERATIONS_PER_AGENT).unwrap_or(u32::MAX),
            role: role.into(),
        }
    }

    async fn serve_control(
        self: &Arc<Self>,
        session: &Arc<Session>,
        generation: u64,
        up: &mut Streaming<v1::AgentControl>,
        control: &queue::Sender<v1::HubControl>,
    ) -> &'static str {
        use v1::agent_control::Message as M;
        let mut heard = Instant::now();
        let mut beat = tokio::time::interval(limits::HEARTBEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut registry = self.registry.changes();
        loop {
            tokio::select! {
                received = up.next() => {
                    heard = Instant::now();
                    match received {
                        Some(Ok(v1::AgentControl { message: Some(received) })) => match received {
                            M::Accounts(offers) => Box::pin(self.offered(session, offers)).await,
                            M::Draining(_) => {
                                session.drain(generation);
                                return "drained";
                            }
                            M::Refused(refused) => self.dispatcher.refused(session, refused),
                            M::Heartbeat(_) => {}
                            M::Hello(_) => return "a second hello",
                        },
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return "the agent ended the control stream",
                    }
                }
                changed = registry.changed() => {
                    if changed.is_err() { return "the hub stops" }
                    Box::pin(self.decide(session, Telling::News)).await;
                }
                _ = beat.tick() => {
                    if heard.elapsed() > limits::HEARTBEAT_TIMEOUT {
                        return "the agent has been silent for 20 s";
                    }
                    let since = self.clock.now().duration_since(std::time::UNIX_EPOCH);
                    let millis = since.map_or(0, |since| since.as_millis());
                    let sent_millis = u64::try_from(millis).unwrap_or(u64::MAX);
                    let beat = v1::Heartbeat { sent_millis, ..v1::Heartbeat::default() };
                    let beat = message(v1::hub_control::Message::Heartbeat(beat));
                    // A full queue is a stuck connection: the agent's silence will tell.
                    let _full = control.try_send(Ok(beat));
                }
            }
        }
    }

    fn remove_link(self: &Arc<Self>, session: &Arc<Session>, generation: u64, why: &'static str) {
        let mut state = session.lock();
        state.links.remove(&generation);
        let gone = state.links.is_empty();
        let decided = if gone {
            // Another instance may have the accounts by the time that this one is back.
            std::mem::take(&mut state.decisions)
        } else {
            Decisions::default()
        };
        drop(state);
        tracing::info!(
            agent = session.agent,
            generation,
            why,
            last = gone,
            "agent link closed"
        );
        if !gone {
            return;
        }
        // Also of what it has just stopped to offer: it may have been given it since.
        let offers = session.offers();
        let others = decided.keys().filter(|name| !offers.contains_key(*name));
        for name in offers.keys().chain(others) {
            self.release(session, name);
        }
        if let Some(next) = self.sessions.succeed(session) {
            tracing::info!(
                agent = next.agent,
                host = next.host,
                "standby instance takes over"
            );
            let role = v1::directive::Directive::Role(v1::InstanceRole::Active.into());
            next.tell(directive(role));
            let core = Arc::clone(self);
            self.tasks.spawn("succeed", |stop| async move {
                let _stopped = stop
                    .run_until_cancelled(core.decide(&next, Telling::News))
                    .await;
            });
        }
    }

    /// Tells every agent that the hub goes away, and when to come back: not all at once.
    pub(super) fn send_away(&self) {
        let sessions = self.sessions.all();
        let agents = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
        let spread = (RETURN_EACH * agents).clamp(RETURN.0, RETURN.1);
        for session in sessions {
            let pause = spread.mul_f64(entropy::unit(&*self.entropy));
            let drain = v1::Drain {
                grace_millis: millis(limits::DRAIN),
                retry_after_millis: millis(pause),
            };
            // One that does not hear it sees the connection end.
            session.tell(directive(v1::directive::Directive::Drain(drain)));
        }
    }

    /// Takes an account from an instance that does not serve it any more.
    pub(super) fn release(self: &Arc<Self>, session: &Session, name: &str) {
        if let Some(account) = self.accounts.get(name)
            && account.release(&session.agent, session.instance)
        {
            self.away(&account);
        }
    }

    /// Takes the accounts that an instance offers.
    async fn offered(self: &Arc<Self>, session: &Arc<Session>, offers: v1::AccountOffers) {
        let offers = offers.accounts.into_iter().take(limits::ACCOUNTS_PER_AGENT);
        let named = offers.filter(|offer| offer.name.len() <= limits::IDENTITY_BYTES);
        let offers = named.map(admission::bounded);
        let offers = offers.map(|offer| (offer.name.clone(), Arc::new(offer)));
        let now: Arc<Offers> = Arc::new(offers.collect());
        let before = std::mem::replace(&mut session.lock().offers, Arc::clone(&now));
        let withdrawn = before.keys().filter(|name| !now.contains_key(*name));
        for name in withdrawn {
            self.release(session, name);
        }
        // Whatever was told before may have gone to a link that was dead.
        self.decide(session, Telling::Always).await;
    }

    /// Judges the offered accounts again, and tells the agent.
    async fn decide(self: &Arc<Self>, session: &Arc<Session>, telling: Telling) {
        let offers = session.offers();
        let standby = !self.sessions.is_active(session);
        let decisions = match admission::decide(
            &self.registry,
            &*self.entropy,
            &session.agent,
            &offers,
            standby,
        )
        .await
        {
            Ok(decisions) => decisions,
            Err(error) => {
                let error = crate::fault::Chain(&error).to_string();
                tracing::error!(
                    agent = session.agent,
                    error,
                    "cannot judge offered accounts"
                );
                return;
            }
        };
        if !standby {
            self.note_offers(&offers, &decisions);
        }
        let mut state = session.lock();
        let is_news = state.decisions != decisions || decisions.is_empty();
        if telling == Telling::News && !is_news {
            return;
        }
        let before = std::mem::replace(&mut state.decisions, decisions.clone());
        drop(state);
        admission::tell_refused(&session.agent, &decisions, &before);
        let accounts = decisions
            .into_iter()
            .map(|(name, decision)| v1::AccountDecision {
                name,
                admission: decision.admission.into(),
                message: decision.message,
                id: decision.id,
            })
            .collect();
        session.tell(v1::hub_control::Message::Accounts(v1::AccountDecisions {
            accounts,
        }));
    }
}

/// A directive as a control message.
pub(super) const fn directive(directive: v1::directive::Directive) -> v1::hub_control::Message {
    v1::hub_control::Message::Directive(v1::Directive {
        directive: Some(directive),
    })
}

const fn message(message: v1::hub_control::Message) -> v1::HubControl {
    v1::HubControl {
        message: Some(message),
    }
}

/// The highest version that both sides speak.
pub(super) fn negotiate(theirs: &[u32]) -> Result<u32, Status> {
    let common = wire::VERSIONS
        .iter()
        .filter(|version| theirs.contains(version))
        .max();
    common.copied().ok_or_else(|| {
        let ours = wire::VERSIONS;
        Status::failed_precondition(format!(
            "no common protocol version: the agent speaks {theirs:?}, this hub speaks {ours:?}; \
             upgrade the older side"
        ))
    })
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
