//! What an agent and a hub said to each other, kept as text; and the relay that writes it down.
//!
//! ```text
//!  agent ══ TLS ══▶ Relay ══ TLS ══▶ hub          one line per message:
//!                     └──▶ Recording              SENDER STREAM MESSAGE BASE64
//! ```

use std::fmt::{Debug, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use sortie::clock;
use sortie::identity::channel::{self, Connection, Hub};
use sortie::identity::{Role, tls};
use sortie::tasks::Tasks;
use sortie::wire::v1;
use sortie::wire::v1::session_client::SessionClient;
use sortie::wire::v1::session_server::Session;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::between::{self, Between, Down};

/// How long the connection to the hub may take.
const CONNECT: Duration = Duration::from_secs(30);

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// `agent` or `hub`.
    pub(crate) sender: String,
    /// `enrol`, `renew`, `control`, `feed`, `operation`.
    pub(crate) stream: String,
    /// Which message, for people.
    pub(crate) message: String,
    /// The message as protobuf.
    pub(crate) bytes: Vec<u8>,
}

/// Messages in the order in which they passed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recording(Arc<Mutex<Vec<Line>>>);

impl Recording {
    /// Reads what [`Recording::to_text`] wrote.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let mut words = line.split(' ').map(str::to_owned);
                let mut word = || words.next().expect("four words");
                Line {
                    sender: word(),
                    stream: word(),
                    message: word(),
                    bytes: STANDARD.decode(word()).expect("base64"),
                }
            });
        Self(Arc::new(Mutex::new(lines.collect())))
    }

    /// One line per message.
    pub(crate) fn to_text(&self) -> String {
        let mut text =
            "# SENDER STREAM MESSAGE PROTOBUF-AS-BASE64; see proto/README.md\n".to_owned();
        for line in self.lines() {
            let bytes = STANDARD.encode(&line.bytes);
            let Line {
                sender,
                stream,
                message,
                ..
            } = line;
            writeln!(text, "{sender} {stream} {message} {bytes}").expect("text takes everything");
        }
        text
    }

    /// All of them.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes a message; of heartbeats the first of each side.
    pub(crate) fn note<M: Message + Debug>(&self, sender: &str, stream: &str, message: &M) {
        let line = Line {
            sender: sender.to_owned(),
            stream: stream.to_owned(),
            message: variant(message),
            bytes: message.encode_to_vec(),
        };
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |known: &Line| known.message == line.message && known.sender == line.sender;
        if line.message != "Heartbeat" || !lines.iter().any(is_same) {
            lines.push(line);
        }
    }
}

/// `Welcome` of `HubControl { message: Some(Welcome(…)) }`; the type's own name of others.
fn variant(message: &impl Debug) -> String {
    let shown = format!("{message:?}");
    let inner = shown
        .split_once("message: Some(")
        .map_or(shown.as_str(), |(_, inner)| inner);
    inner
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect()
}

/// Stands between agents and the hub whose data listener is at `data`, and writes down what they
/// say; `state` is the hub's state folder, `agent` the one whose certificate is shown to the hub.
pub(crate) async fn relay(state: &Path, data: SocketAddr, agent: &str, to: &Recording) -> Between {
    let client = between::material(state, Role::Agent, agent).await;
    let onward = tls::data_client(&client, clock::system()).expect("a config");
    let record = to.clone();
    let tasks = Tasks::new();
    Between::start(state, move || {
        let (onward, record, tasks) = (Arc::clone(&onward), record.clone(), tasks.clone());
        async move {
            let name = "127.0.0.1".try_into().expect("an address");
            let dialled = channel::connect(&data.to_string(), onward, name, CONNECT, &tasks).await;
            Relay {
                hub: dialled.expect("the hub listens"),
                record,
            }
        }
    })
    .await
}

/// Sends on what it is sent, both ways.
#[derive(Debug)]
struct Relay {
    hub: Connection,
    record: Recording,
}

impl Relay {
    fn client(&self) -> SessionClient<Hub> {
        SessionClient::with_origin(self.hub.service(), self.hub.origin())
            .max_decoding_message_size(4 << 20)
    }

    fn up<T>(
        &self,
        stream: &'static str,
        from: Request<Streaming<T>>,
    ) -> impl Stream<Item = T> + use<T>
    where
        T: Message + Debug + 'static,
    {
        let record = self.record.clone();
        let messages = from.into_inner();
        messages.map_while(move |message| {
            let message = message.ok()?;
            record.note("agent", stream, &message);
            Some(message)
        })
    }

    fn down<T>(&self, stream: &'static str, from: Response<Streaming<T>>) -> Response<Down<T>>
    where
        T: Message + Debug + 'static,
    {
        let record = self.record.clone();
        Response::new(Box::pin(from.into_inner().map(move |message| {
            if let Ok(message) = &message {
                record.note("hub", stream, message);
            }
            message
        })))
    }
}

#[tonic::async_trait]
impl Session for Relay {
    type ControlStream = Down<v1::HubControl>;
    type FeedStream = Down<v1::FeedDown>;
    type OperationStream = Down<v1::OperationDown>;

    async fn control(
        &self,
        request: Request<Streaming<v1::AgentControl>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let up = self.up("control", request);
        Ok(self.down("control", self.client().control(up).await?))
    }

    async fn feed(
        &self,
        request: Request<Streaming<v1::FeedUp>>,
    ) -> Result<Response<Self::FeedStream>, Status> {
        let up = self.up("feed", request);
        Ok(self.down("feed", self.client().feed(up).await?))
    }

    async fn operation(
        &self,
        request: Request<Streaming<v1::OperationUp>>,
    ) -> Result<Response<Self::OperationStream>, Status> {
        let up = self.up("operation", request);
        Ok(self.down("operation", self.client().operation(up).await?))
    }
}
