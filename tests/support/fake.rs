//! An agent and a client made of the library: they do what the programs never would.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use sortie::clock::{self, Clock as _, SystemClock};
use sortie::hub::admin::{self, Answer, Request};
use sortie::identity::channel::{self, Connection, Hub};
use sortie::identity::client::{self, Applicant, Certificate, EnrolError, Evidence};
use sortie::identity::join::Join;
use sortie::identity::{KeyPair, tls};
use sortie::secret::SecretBytes;
use sortie::tasks::Tasks;
use sortie::wire::{VERSIONS, v1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::eventually::bounded;
use super::https::Https;
use super::pki;
use super::sortie::Sortie;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(30);

/// What a client of HTTP/2 says first: the preface and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The name all listeners of a stand have.
fn loopback() -> ServerName<'static> {
    ServerName::try_from("127.0.0.1").expect("an address")
}

/// Asks `hub` over its administration socket, from this process.
pub(crate) async fn ask(hub: &Sortie, request: &Request) -> Answer {
    let socket = hub.folder().join("state").join(admin::SOCKET);
    let answer = bounded("the hub answers", admin::ask(&socket, request)).await;
    let answer = answer.expect("the hub answers");
    if let Answer::Error { message } = &answer {
        panic!("{request:?}: {message}");
    }
    answer
}

/// A new join token for `agent`.
pub(crate) async fn join(hub: &Sortie, agent: &str, accounts: &[&str]) -> Join {
    let request = Request::CreateToken {
        agent: agent.to_owned(),
        accounts: accounts.iter().map(ToString::to_string).collect(),
        ttl_seconds: 600,
    };
    match ask(hub, &request).await {
        Answer::Token { join, .. } => Join::parse(join.as_bytes()).expect("a join string"),
        other => panic!("{other:?}"),
    }
}

/// What a join token proves.
pub(crate) fn by_token(join: &Join) -> Evidence {
    let secret = SecretBytes::new(revealed(&join.secret));
    Evidence::Token {
        id: join.id.clone(),
        secret: Arc::new(secret),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a token of this test, presented several times"
)]
fn revealed(secret: &SecretBytes) -> Vec<u8> {
    secrecy::ExposeSecret::expose_secret(secret).to_vec()
}

/// Opens a connection to the enrol listener that `join` names.
pub(crate) async fn enrol_connection(join: &Join, tasks: &Tasks) -> Connection {
    let config = tls::enrol_client(join.root_spki_sha256, clock::system()).expect("a config");
    channel::connect(&join.enrol, config, loopback(), CONNECT, tasks)
        .await
        .expect("the enrol listener takes everybody")
}

/// Asks for a certificate for `key` as agent `name`, over `connection`.
pub(crate) async fn enrol(
    connection: &Connection,
    join: &Join,
    evidence: &Evidence,
    name: &str,
    key: &KeyPair,
) -> Result<Certificate, EnrolError> {
    let applicant = Applicant {
        name: name.parse().expect("a name"),
        instance: Bytes::from_static(&[7; 16]),
        program: "test".to_owned(),
        host: "test".to_owned(),
        root_spki_sha256: join.root_spki_sha256,
    };
    let enrolling = client::enrol(connection, evidence, key, &applicant, &SystemClock);
    let enrolled = bounded("the hub judges the evidence", enrolling).await;
    enrolled.map(|enrolled| enrolled.certificate)
}

/// An agent with a certificate of the hub.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) join: Join,
    pub(crate) certificate: Certificate,
    tasks: Tasks,
}

impl Fake {
    /// Joins by a token that names `accounts`.
    pub(crate) async fn enrol(hub: &Sortie, name: &str, accounts: &[&str]) -> Self {
        let join = join(hub, name, accounts).await;
        let tasks = Tasks::new();
        let connection = enrol_connection(&join, &tasks).await;
        let key = KeyPair::generate().expect("a key");
        let certificate = enrol(&connection, &join, &by_token(&join), name, &key).await;
        Self {
            certificate: certificate.expect("a good token is taken"),
            join,
            tasks,
        }
    }

    /// How it speaks TLS.
    pub(crate) fn tls(&self) -> Arc<ClientConfig> {
        let material = self.certificate.material(SystemClock.now());
        tls::data_client(&material.expect("a good certificate"), clock::system()).expect("a config")
    }

    /// Opens a connection to the data listener; in TLS 1.3 nobody has judged the agent yet.
    pub(crate) async fn connect(&self) -> Connection {
        let connecting = channel::connect(
            &self.join.data,
            self.tls(),
            loopback(),
            CONNECT,
            &self.tasks,
        );
        connecting.await.expect("the hub listens")
    }

    /// Says hello as the process `instance`; the error is the hub's, or that of the connection.
    pub(crate) async fn hello(&self, instance: u8) -> Result<Session, String> {
        Session::open(self.connect().await, instance).await
    }
}

/// A control stream whose welcome was read.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) client: v1::session_client::SessionClient<Hub>,
    pub(crate) id: Bytes,
    up: mpsc::Sender<v1::AgentControl>,
    down: Streaming<v1::HubControl>,
}

impl Session {
    async fn open(connection: Connection, instance: u8) -> Result<Self, String> {
        use v1::session_client::SessionClient;
        let mut client = SessionClient::with_origin(connection.service(), connection.origin());
        let (up, receiver) = mpsc::channel(8);
        let hello = v1::AgentHello {
            versions: VERSIONS.to_vec(),
            instance: vec![instance; 16].into(),
            generation: 1,
            program: "test".to_owned(),
            host: "test".to_owned(),
            ..v1::AgentHello::default()
        };
        let hello = v1::AgentControl {
            message: Some(v1::agent_control::Message::Hello(hello)),
        };
        up.try_send(hello).expect("the queue is new");
        let opening = client.control(ReceiverStream::new(receiver));
        let opened = bounded("the hub answers the hello", opening).await;
        let mut down = opened.map_err(|status| status.to_string())?.into_inner();
        let first = bounded("the welcome", down.message()).await;
        let first = first.map_err(|status| status.to_string())?;
        match first.and_then(|first| first.message) {
            Some(v1::hub_control::Message::Welcome(welcome)) => Ok(Self {
                connection,
                client,
                id: welcome.session,
                up,
                down,
            }),
            other => Err(format!("no welcome: {other:?}")),
        }
    }

    /// Offers one account of the cluster `uid`, and gives what the hub makes of it.
    pub(crate) async fn offer(&mut self, account: &str, uid: &str) -> v1::AccountDecision {
        self.tell(&[account.to_owned()], uid).await;
        self.decided(account).await
    }

    /// Offers these accounts of the cluster `uid`, and no others.
    pub(crate) async fn tell(&mut self, accounts: &[String], uid: &str) {
        let offer = |account: &String| v1::AccountOffer {
            name: account.clone(),
            cluster_uid: uid.to_owned(),
            server_version: "v1.33.0".to_owned(),
            state: v1::AccountState::Active.into(),
            since: 1,
            ..v1::AccountOffer::default()
        };
        let offers = v1::AccountOffers {
            accounts: accounts.iter().map(offer).collect(),
        };
        let offers = v1::AgentControl {
            message: Some(v1::agent_control::Message::Accounts(offers)),
        };
        self.up.send(offers).await.expect("the stream is open");
    }

    /// What the hub next says of an account.
    pub(crate) async fn decided(&mut self, account: &str) -> v1::AccountDecision {
        loop {
            if let v1::hub_control::Message::Accounts(decided) = self.next().await
                && let Some(decision) = decided.accounts.into_iter().find(|d| d.name == account)
            {
                return decision;
            }
        }
    }

    /// The next operation that the hub wants carried out.
    pub(crate) async fn dispatch(&mut self) -> v1::Dispatch {
        loop {
            if let v1::hub_control::Message::Dispatch(dispatch) = self.next().await {
                return *dispatch;
            }
        }
    }

    async fn next(&mut self) -> v1::hub_control::Message {
        let next = bounded("a control message", self.down.message()).await;
        let next = next.expect("the stream is open").expect("it has not ended");
        next.message.expect("a message of this version")
    }

    /// Attaches the feed of an account and tells what its cluster has.
    pub(crate) async fn feed(
        &mut self,
        account: &str,
        uid: &str,
        kinds: Vec<v1::DiscoveredKind>,
    ) -> Streaming<v1::FeedDown> {
        let (first, down) = self.attach(account, uid, kinds).await;
        assert!(
            matches!(first, v1::feed_down::Message::Attached(_)),
            "{first:?}"
        );
        down
    }

    /// As [`Session::feed`], whatever the hub answers first.
    pub(crate) async fn attach(
        &mut self,
        account: &str,
        uid: &str,
        kinds: Vec<v1::DiscoveredKind>,
    ) -> (v1::feed_down::Message, Streaming<v1::FeedDown>) {
        use v1::feed_up::Message as M;
        let attach = v1::Attach {
            session: self.id.clone(),
            account: account.to_owned(),
            generation: 1,
            cluster_uid: uid.to_owned(),
            policy_digest: vec![1; 32].into(),
            streams: Vec::new(),
        };
        let discovery = v1::Discovery {
            kinds,
            version_json: Bytes::from_static(b"{\"major\":\"1\",\"minor\":\"33\"}"),
            namespaces: Vec::new(),
            outdated: false,
        };
        let up = [M::Attach(attach), M::Discovery(discovery)].map(|message| v1::FeedUp {
            message: Some(message),
        });
        let open = tokio_stream::iter(up).chain(tokio_stream::pending());
        let opened = bounded("the hub answers", self.client.feed(open)).await;
        let mut down = opened.expect("the hub answers").into_inner();
        let first = bounded("the hub answers", down.message()).await;
        let first = first
            .expect("the stream is open")
            .expect("it has not ended");
        (first.message.expect("a message of this version"), down)
    }

    /// Opens an operation's stream with `answer` behind the opening.
    pub(crate) async fn answer(
        &mut self,
        operation: &Bytes,
        answer: Vec<v1::operation_up::Message>,
    ) -> Result<Streaming<v1::OperationDown>, tonic::Status> {
        let open = v1::operation_up::Message::Open(v1::OperationOpen {
            session: self.id.clone(),
            operation: operation.clone(),
        });
        let messages = std::iter::once(open)
            .chain(answer)
            .map(|message| v1::OperationUp {
                message: Some(message),
            });
        let stream = tokio_stream::iter(messages.collect::<Vec<_>>());
        let opened = bounded("the hub judges the answer", self.client.operation(stream)).await;
        opened.map(tonic::Response::into_inner)
    }
}

/// What a kubeconfig of `sortie kubeconfig` holds.
#[derive(Debug)]
pub(crate) struct Client {
    /// `https://127.0.0.1:PORT`.
    pub(crate) url: String,
    /// `/accounts/<id>`.
    pub(crate) path: String,
    roots: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Client {
    /// Reads the file at `path`.
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("the kubeconfig is readable");
        let field = |name: &str| {
            let line = text.lines().find_map(|line| {
                let (key, value) = line.trim().split_once(": ")?;
                (key == name).then(|| value.trim_matches('"').to_owned())
            });
            line.unwrap_or_else(|| panic!("no `{name}` in the kubeconfig"))
        };
        let pem = |name: &str| STANDARD.decode(field(name)).expect("base64");
        let certificates = |name: &str| {
            CertificateDer::pem_slice_iter(&pem(name))
                .collect::<Result<Vec<_>, _>>()
                .expect("certificates")
        };
        let server = field("server");
        let (url, path) = server.split_once("/accounts/").expect("an account's URL");
        Self {
            url: url.to_owned(),
            path: format!("/accounts/{path}"),
            roots: certificates("certificate-authority-data"),
            chain: certificates("client-certificate-data"),
            key: PrivateKeyDer::from_pem_slice(&pem("client-key-data")).expect("a key"),
        }
    }

    /// The id of the account in the path.
    pub(crate) fn id(&self) -> &str {
        self.path.trim_start_matches("/accounts/")
    }

    /// The roots it trusts.
    pub(crate) fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.roots.clone()
    }

    /// TLS with this client's certificate, offering `alpn`.
    pub(crate) fn tls(&self, alpn: &[&[u8]]) -> ClientConfig {
        self.tls_as((self.chain.clone(), self.key.clone_key()), alpn)
    }

    /// TLS with another certificate, trusting the same roots.
    pub(crate) fn tls_as(
        &self,
        identity: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
        alpn: &[&[u8]],
    ) -> ClientConfig {
        let mut config = pki::client_config_with(self.roots.clone(), Some(identity));
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }

    /// A plain client of the facade, over HTTP/1.1.
    pub(crate) fn https(&self) -> Https {
        let accept = ("accept", "application/json".to_owned());
        Https::new(&self.url, Arc::new(self.tls(&[b"http/1.1"])), accept)
    }
}

/// A private key as rustls takes it.
pub(crate) fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    let pkcs8 = key.to_pkcs8().expect("a key that can be told");
    PrivatePkcs8KeyDer::from(revealed(&pkcs8)).into()
}

/// Shakes hands, speaks first as HTTP/2 does, and waits for the first byte of the answer.
///
/// The error is how it was refused; by a server that closes without a word: `closed`.
pub(crate) async fn shake(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> Result<HandshakeKind, String> {
    let tcp = TcpStream::connect(address).await.expect("it listens");
    shake_over(tcp, config).await
}

/// The same over a socket that is connected.
pub(crate) async fn shake_over(
    tcp: TcpStream,
    config: &Arc<ClientConfig>,
) -> Result<HandshakeKind, String> {
    let shaking = async {
        let connector = TlsConnector::from(Arc::clone(config));
        let told = |error: std::io::Error| error.to_string();
        let mut tls = connector.connect(loopback(), tcp).await.map_err(told)?;
        tls.write_all(PREFACE).await.map_err(told)?;
        match tls.read(&mut [0; 9]).await.map_err(told)? {
            0 => Err("closed".to_owned()),
            _ => Ok(tls.get_ref().1.handshake_kind().expect("it is done")),
        }
    };
    bounded("the server judges the handshake", shaking).await
}
