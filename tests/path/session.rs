//! The recorded session of version 1: this hub still takes what that agent said.
//!
//! `SORTIE_GOLDEN=write cargo test --test path a_hub_takes` records it anew; see `proto/README.md`.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

use bytes::Bytes;
use http::Method;
use prost::Message;
use serde_json::{Value, json};
use sortie::identity::channel::{Connection, Hub};
use sortie::identity::proof::{self, Purpose};
use sortie::identity::{KeyPair, csr};
use sortie::secret::SecretBytes;
use sortie::tasks::Tasks;
use sortie::wire::v1;
use sortie::wire::v1::enrolment_client::EnrolmentClient;
use sortie::wire::v1::identity_client::IdentityClient;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::support::between::Between;
use crate::support::double::{Change, Double, Settings};
use crate::support::eventually::{bounded, eventually, eventually_async};
use crate::support::facade::Facade;
use crate::support::fake::{self, Client, Fake};
use crate::support::playback::Playback;
use crate::support::recording::{self, Line, Recording};
use crate::support::sortie::Sortie;
use crate::support::stand::{self, Plan};

const PODS: &str = "/api/v1/pods";
const SERVICES: &str = "/api/v1/services";
const PATCHED: &str = "/api/v1/namespaces/ns-0/services/services-000000";

const KINDS: &str = "    kinds: { cached: [Pod, Service], live: [ConfigMap] }\n";

fn cluster() -> Double {
    Double::start(Settings {
        objects: vec![("pods", 3), ("services", 2)],
        bytes: 1_200,
        ..Settings::default()
    })
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/session")).join(name)
}

fn is_recorded_now() -> bool {
    env::var_os("SORTIE_GOLDEN").is_some_and(|what| what == "write")
}

fn recorded() -> Recording {
    Recording::parse(&fs::read_to_string(golden("v1.txt")).expect("it was recorded"))
}

async fn patch(client: &Client) -> u16 {
    let path = format!("{}{PATCHED}", client.path);
    let label = json!({"metadata": {"labels": {"recorded": "yes"}}}).to_string();
    let kind = "application/merge-patch+json";
    let answer = client
        .https()
        .send(Method::PATCH, &path, kind, label.into())
        .await;
    answer.expect("the hub answers").status.as_u16()
}

/// What the facade shows, as far as it is the session's.
async fn shown(facade: &Facade) -> Value {
    json!({ PODS: facade.get(PODS).await, SERVICES: facade.get(SERVICES).await })
}

/// Enrols and renews with the fields of recorded requests, or with our own; notes what was said.
async fn identify(hub: &Sortie, said: Option<&Recording>, to: &Recording) {
    let join = fake::join(hub, "spare", &[]).await;
    let tasks = Tasks::new();
    let connection = fake::enrol_connection(&join, &tasks).await;
    let mut client = EnrolmentClient::with_origin(connection.service(), connection.origin());
    let begin = match said {
        Some(said) => first(said, "enrol", "BeginRequest"),
        None => v1::BeginRequest { versions: vec![1] },
    };
    to.note("agent", "enrol", &begin);
    let begun = client.begin(begin).await.expect("a version").into_inner();
    to.note("hub", "enrol", &begun);
    let key = KeyPair::generate().expect("a key");
    let csr_der = csr::make(&key).expect("a request");
    let exporter = connection.exporter(Purpose::Enrol);
    let proof = proof::sign(&key, Purpose::Enrol, exporter, &begun.nonce, &csr_der);
    let mut request = match said {
        Some(said) => first(said, "enrol", "EnrolRequest"),
        None => v1::EnrolRequest {
            instance: Bytes::from_static(&[7; 16]),
            program: "0.1.0".to_owned(),
            host: "recorded".to_owned(),
            agent: "spare".to_owned(),
            ..v1::EnrolRequest::default()
        },
    };
    // Fresh, as they must be.
    request.nonce = begun.nonce;
    request.csr_der = csr_der.to_vec().into();
    request.proof = proof.expect("a proof").into();
    request.evidence = Some(v1::enrol_request::Evidence::Token(v1::TokenEvidence {
        id: join.id.clone(),
        secret: revealed(&join.secret),
    }));
    let answer = client
        .enrol(request.clone())
        .await
        .expect("it is let in")
        .into_inner();
    to.note("agent", "enrol", &request);
    to.note("hub", "enrol", &answer);

    let fake = Fake::enrol(hub, "renewing", &[]).await;
    let session = fake.hello(9).await.expect("a session");
    let connection = &session.connection;
    let key = KeyPair::generate().expect("a key");
    let csr_der = csr::make(&key).expect("a request");
    let exporter = connection.exporter(Purpose::Renew);
    let proof = proof::sign(&key, Purpose::Renew, exporter, &[], &csr_der);
    let mut request: v1::RenewRequest = said.map_or_else(Default::default, |said| {
        first(said, "renew", "RenewRequest")
    });
    request.session = session.id.clone();
    request.csr_der = csr_der.to_vec().into();
    request.proof = proof.expect("a proof").into();
    let mut client = IdentityClient::with_origin(connection.service(), connection.origin());
    let answer = client
        .renew(request.clone())
        .await
        .expect("it is renewed")
        .into_inner();
    to.note("agent", "renew", &request);
    to.note("hub", "renew", &answer);
}

#[expect(clippy::disallowed_methods, reason = "a token of this test")]
fn revealed(secret: &SecretBytes) -> Bytes {
    Bytes::copy_from_slice(secrecy::ExposeSecret::expose_secret(secret))
}

/// The first recorded message of a sort.
fn first<M: Message + Default>(said: &Recording, stream: &str, message: &str) -> M {
    let lines = said.lines();
    let mut lines = lines.iter();
    let line = lines.find(|line| line.stream == stream && line.message == message);
    M::decode(line.expect("it was recorded").bytes.as_slice()).expect("it decodes")
}

/// Records the session of the built agent and the built hub, and what the facade shows of it.
async fn record() {
    let double = cluster();
    let said = Recording::default();
    let hub = stand::hub("24h").await;
    identify(&hub, None, &said).await;
    let state = hub.folder().join("state");
    let data = hub.address("data").await;
    let between = recording::relay(&state, data, "lab", &said).await;
    let plan = Plan::one("lab", &double.write_kubeconfig(), KINDS);
    let way = format!("hub: {{ data: \"{}\" }}\n", between.address);
    let mut agent = stand::agent_with(&[], &hub, "lab", &plan, &way).await;
    stand::wait(&hub, &agent, "lab", "ACTIVE").await;
    let kubeconfig = stand::kubeconfig(&hub, "lab", "visitor").await;
    let facade = Facade::of(&kubeconfig);
    // A touch, an object that goes, and one that comes.
    double.change("pods", 0, Change::Modified);
    double.change("pods", 1, Change::Deleted);
    double.change("pods", 1, Change::Added);
    double.change("pods", 2, Change::Deleted);
    assert_eq!(patch(&Client::read(&kubeconfig)).await, 200);
    let version = |list: &Value| {
        list["metadata"]["resourceVersion"]
            .as_str()?
            .parse::<u64>()
            .ok()
    };
    let wanted = version(&double.api().get(PODS).await);
    let shown = eventually_async("the facade shows the changes", async || {
        let shown = shown(&facade).await;
        let (pods, services) = (&shown[PODS], &shown[SERVICES]);
        let both = pods["items"].as_array()?.len() == 2 && services["items"].as_array()?.len() == 2;
        (both && version(pods) >= wanted).then_some(shown)
    })
    .await;
    assert_eq!(agent.stop().await, 0);
    eventually("the agent's farewell", || {
        let lines = said.lines();
        lines
            .iter()
            .any(|line| line.message == "Draining")
            .then_some(())
    })
    .await;
    fs::create_dir_all(golden("")).expect("a folder");
    fs::write(golden("v1.txt"), said.to_text()).expect("writable");
    let text = serde_json::to_string_pretty(&shown).expect("JSON");
    fs::write(golden("v1.json"), text + "\n").expect("writable");
}

/// An agent that says what was recorded.
struct Player {
    _connection: Connection,
    client: v1::session_client::SessionClient<Hub>,
    control: mpsc::Sender<v1::AgentControl>,
    hub: Streaming<v1::HubControl>,
    session: Bytes,
    feed: Option<(mpsc::Sender<v1::FeedUp>, Streaming<v1::FeedDown>)>,
    /// The epochs that this hub minted, by stream.
    epochs: BTreeMap<u32, u64>,
    /// The last sequence that was sent and the last that was acknowledged, by stream.
    sent: BTreeMap<u32, u64>,
    acknowledged: BTreeMap<u32, u64>,
}

impl Player {
    /// Says the recorded hello, and reads the welcome.
    async fn begin(fake: &Fake, hello: v1::AgentControl) -> Self {
        use v1::session_client::SessionClient;
        let connection = fake.connect().await;
        let mut client = SessionClient::with_origin(connection.service(), connection.origin());
        let (control, receiver) = mpsc::channel(64);
        control.try_send(hello).expect("the queue is new");
        let opening = client.control(ReceiverStream::new(receiver));
        let mut hub = bounded("the hub answers", opening)
            .await
            .expect("a common version")
            .into_inner();
        let welcome = bounded("a welcome", hub.message())
            .await
            .expect("the stream is open");
        let Some(v1::hub_control::Message::Welcome(welcome)) = welcome.and_then(|it| it.message)
        else {
            panic!("no welcome");
        };
        Self {
            _connection: connection,
            client,
            control,
            hub,
            session: welcome.session,
            feed: None,
            epochs: BTreeMap::new(),
            sent: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
        }
    }

    async fn heard(&mut self) -> v1::hub_control::Message {
        let next = bounded("a control message", self.hub.message()).await;
        let next = next.expect("the stream is open").expect("it has not ended");
        next.message.expect("a message of this version")
    }

    async fn accepted(&mut self) {
        loop {
            if let v1::hub_control::Message::Accounts(decided) = self.heard().await {
                let accepted =
                    |one: &v1::AccountDecision| one.admission() == v1::Admission::Accepted;
                if decided.accounts.iter().any(accepted) {
                    return;
                }
            }
        }
    }

    /// Opens the feed with the recorded attach, or says what followed in it.
    async fn feed(&mut self, mut up: v1::FeedUp) {
        use v1::feed_up::Message as M;
        let mut awaits = 0;
        match up.message.as_mut().expect("a message") {
            M::Attach(attach) => {
                self.accepted().await;
                attach.session = self.session.clone();
                awaits = attach.streams.len();
            }
            M::Streams(streams) => awaits = streams.attach.len(),
            M::Batch(batch) => {
                batch.epoch = self.epochs[&batch.stream];
                let last = batch.first_sequence + u64::from(batch.count) - 1;
                self.sent.insert(batch.stream, last);
            }
            M::Discovery(_) => {}
        }
        if let Some((sender, _)) = &self.feed {
            sender.send(up).await.expect("the feed is open");
        } else {
            let (sender, receiver) = mpsc::channel(64);
            sender.try_send(up).expect("the queue is new");
            let opened = bounded("a feed", self.client.feed(ReceiverStream::new(receiver))).await;
            self.feed = Some((sender, opened.expect("it is let feed").into_inner()));
            // An attach is answered even if it names no stream.
            awaits = awaits.max(1);
        }
        if awaits > 0 {
            self.listen(|player, before| player.epochs.len() > before || awaits == 1)
                .await;
        }
    }

    /// Reads the feed until `done`, and at least one message.
    async fn listen(&mut self, done: impl Fn(&Self, usize) -> bool) {
        let before = self.epochs.len();
        loop {
            let (_, down) = self.feed.as_mut().expect("a feed");
            let next = bounded("an answer in the feed", down.message()).await;
            let next = next.expect("the feed is open").expect("it has not ended");
            match next.message.expect("a message of this version") {
                v1::feed_down::Message::Attached(attached) => {
                    for stream in attached.streams {
                        assert_eq!(stream.resource_version, 0, "this hub knows nothing yet");
                        self.epochs.insert(stream.stream, stream.epoch);
                    }
                    if done(self, before) {
                        return;
                    }
                }
                v1::feed_down::Message::Acknowledgement(ack) => {
                    for stream in ack.streams {
                        self.acknowledged.insert(stream.stream, stream.applied);
                    }
                    if self.acknowledged == self.sent && done(self, before) {
                        return;
                    }
                }
                v1::feed_down::Message::Fenced(fenced) => panic!("{fenced:?}"),
            }
        }
    }

    /// Waits for a dispatch, which has to ask what was asked then, and answers what was answered.
    async fn operate(&mut self, lines: &[Line]) {
        let dispatched = loop {
            if let v1::hub_control::Message::Dispatch(dispatch) = self.heard().await {
                break dispatch;
            }
        };
        let then = lines
            .iter()
            .find(|line| line.message == "Dispatch")
            .expect("one was recorded");
        let then = v1::HubControl::decode(then.bytes.as_slice()).expect("it decodes");
        let Some(v1::hub_control::Message::Dispatch(then)) = then.message else {
            panic!("{then:?}");
        };
        assert_eq!(dispatched.head, then.head);
        assert_eq!(
            (&dispatched.body, dispatched.body_complete),
            (&then.body, then.body_complete)
        );
        let said = lines
            .iter()
            .filter(|line| line.stream == "operation" && line.sender == "agent");
        let said = said.map(|line| {
            let mut up = v1::OperationUp::decode(line.bytes.as_slice()).expect("it decodes");
            if let Some(v1::operation_up::Message::Open(open)) = &mut up.message {
                open.session = self.session.clone();
                open.operation = dispatched.operation.clone();
            }
            up
        });
        let said: Vec<_> = said.collect();
        let stream = tokio_stream::iter(said).chain(tokio_stream::pending());
        let opened = bounded("the hub takes the answer", self.client.operation(stream)).await;
        drop(opened.expect("it is the operation's"));
    }
}

#[tokio::test]
async fn a_hub_takes_what_an_agent_of_version_1_said_and_shows_what_was_shown() {
    if is_recorded_now() {
        record().await;
    }
    let said = recorded();
    let hub = stand::hub("24h").await;
    identify(&hub, Some(&said), &Recording::default()).await;
    let fake = Fake::enrol(&hub, "lab", &["lab"]).await;
    let lines = said.lines();
    let of_agent = |stream: &str| -> Vec<&Line> {
        let lines = lines
            .iter()
            .filter(|line| line.sender == "agent" && line.stream == stream);
        lines.collect()
    };
    let decoded =
        |line: &&Line| v1::AgentControl::decode(line.bytes.as_slice()).expect("it decodes");
    let mut control = of_agent("control")
        .iter()
        .map(decoded)
        .collect::<Vec<_>>()
        .into_iter();
    let mut player = Player::begin(&fake, control.next().expect("a hello")).await;
    let mut farewell = None;
    for message in control {
        if matches!(
            message.message,
            Some(v1::agent_control::Message::Draining(_))
        ) {
            farewell = Some(message);
        } else {
            player
                .control
                .send(message)
                .await
                .expect("the stream is open");
        }
    }
    for line in of_agent("feed") {
        let up = v1::FeedUp::decode(line.bytes.as_slice()).expect("it decodes");
        player.feed(up).await;
    }
    player.listen(|_, _| true).await;
    assert!(!player.sent.is_empty());
    assert_eq!(player.acknowledged, player.sent, "everything is applied");

    let kubeconfig = stand::kubeconfig(&hub, "lab", "visitor").await;
    let shown = shown(&Facade::of(&kubeconfig)).await;
    let then = fs::read_to_string(golden("v1.json")).expect("it was recorded");
    let then: Value = serde_json::from_str(&then).expect("JSON");
    assert_eq!(shown, then);
    let client = Client::read(&kubeconfig);
    let (status, ()) = tokio::join!(patch(&client), player.operate(&lines));
    assert_eq!(status, 200);

    let farewell = farewell.expect("an agent that stops says so");
    player
        .control
        .send(farewell)
        .await
        .expect("the stream is open");
    let closed = hub.logged("agent link closed").await;
    println!(
        "{} messages; the link ended because: {:?}",
        lines.len(),
        closed.text("why")
    );
}

#[tokio::test]
async fn an_agent_does_what_a_hub_of_version_1_said() {
    let said = recorded();
    // It only certifies: what the agent takes for its data listener is the playback.
    let hub = stand::hub("24h").await;
    let state = hub.folder().join("state");
    let playback = Playback::of(said.clone());
    let each = playback.clone();
    let between = Between::start(&state, move || std::future::ready(each.clone())).await;
    let double = cluster();
    let plan = Plan::one("lab", &double.write_kubeconfig(), KINDS);
    let way = format!("hub: {{ data: \"{}\" }}\n", between.address);
    let mut agent = stand::agent_with(&[], &hub, "lab", &plan, &way).await;
    let answers = eventually("the answer to the recorded dispatch", || {
        let answers = playback.answers();
        (answers.len() >= 2).then_some(answers)
    })
    .await;
    let lines = said.lines();
    let then = lines
        .iter()
        .filter(|line| line.stream == "operation" && line.sender == "agent");
    let then: Vec<v1::OperationUp> = then
        .map(|line| v1::OperationUp::decode(line.bytes.as_slice()).expect("it decodes"))
        .collect();
    assert_eq!(
        answers[0], then[0],
        "it opens the recorded operation in the recorded session"
    );
    let (is, was) = (answer(&answers[1]), answer(&then[1]));
    assert_eq!(
        (is.status, &is.headers, is.complete),
        (was.status, &was.headers, was.complete)
    );
    assert_eq!(agent.stop().await, 0, "{:?}", agent.log());
    assert!(playback.has_drained());
}

fn answer(up: &v1::OperationUp) -> &v1::OperationAnswer {
    match &up.message {
        Some(v1::operation_up::Message::Answer(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

/// Reads a message and writes it again.
fn again<M: Message + Default>(line: &Line) -> Vec<u8> {
    M::decode(line.bytes.as_slice())
        .expect("it decodes")
        .encode_to_vec()
}

#[test]
fn every_message_of_version_1_is_read_and_written_byte_for_byte() {
    let lines = recorded().lines();
    let mut sorts = std::collections::BTreeSet::new();
    for line in &lines {
        let bytes = match (
            line.sender.as_str(),
            line.stream.as_str(),
            line.message.as_str(),
        ) {
            ("agent", "control", _) => again::<v1::AgentControl>(line),
            ("hub", "control", _) => again::<v1::HubControl>(line),
            ("agent", "feed", _) => again::<v1::FeedUp>(line),
            ("hub", "feed", _) => again::<v1::FeedDown>(line),
            ("agent", "operation", _) => again::<v1::OperationUp>(line),
            ("hub", "operation", _) => again::<v1::OperationDown>(line),
            (_, _, "BeginRequest") => again::<v1::BeginRequest>(line),
            (_, _, "BeginResponse") => again::<v1::BeginResponse>(line),
            (_, _, "EnrolRequest") => again::<v1::EnrolRequest>(line),
            (_, _, "EnrolResponse") => again::<v1::EnrolResponse>(line),
            (_, _, "RenewRequest") => again::<v1::RenewRequest>(line),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            bytes, line.bytes,
            "{} {} {}",
            line.sender, line.stream, line.message
        );
        sorts.insert(format!("{} {}", line.sender, line.message));
        if line.message == "Batch" {
            batch(line);
        }
    }
    println!("{} messages: {sorts:?}", lines.len());
    for sort in [
        "agent Hello",
        "hub Welcome",
        "hub Accounts",
        "agent Attach",
        "agent Batch",
        "hub Attached",
        "hub Acknowledgement",
        "hub Dispatch",
        "agent Answer",
        "agent Draining",
        "hub EnrolResponse",
        "agent RenewRequest",
    ] {
        assert!(sorts.contains(sort), "{sort} is not recorded: {sorts:?}");
    }
}

/// What is compressed is read as well.
fn batch(line: &Line) {
    let up = v1::FeedUp::decode(line.bytes.as_slice()).expect("it decodes");
    let Some(v1::feed_up::Message::Batch(batch)) = up.message else {
        panic!("{up:?}");
    };
    let events = sortie::stream::open_batch(&batch).expect("it inflates");
    assert_eq!(events.len(), batch.count as usize);
}
