//! What the facade promises, over real connections; the cluster behind it is scripted.

mod discovering;
mod paths;
mod reads;
mod watches;
mod writes;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::clock::{Clock as _, ManualClock, SharedClock, from_unix_seconds};
use crate::resource::{self, Gvr, Identity, ResourceVersion, Scope, Subresource, Verb};
use crate::tasks::Tasks;
use crate::view::{StreamKey, View};

const ID: &str = "0a1b2c";

/// What the scripted cluster does with a request.
enum Reply {
    Json(u16, Value),
    Raw(u16, &'static str, &'static str),
    /// A text, and then nothing, without an end.
    Endless(&'static str),
    Fail(UpstreamError),
    Never,
}

type Script = Box<dyn Fn(&LiveRequest) -> Reply + Send + Sync>;

struct Cluster {
    account: Mutex<Arc<Account>>,
    /// What the account becomes for who waits for newer kinds.
    newer: Mutex<Option<Arc<Account>>>,
    script: Mutex<Script>,
    sent: Mutex<Vec<String>>,
    audits: Mutex<Vec<AuditRecord>>,
}

impl Upstream for Cluster {
    fn account(&self, id: &str) -> Option<Arc<Account>> {
        let account = Arc::clone(&self.account.lock().unwrap());
        (account.id == id).then_some(account)
    }

    fn newer_kinds<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Option<Arc<Account>>> {
        let newer = self.newer.lock().unwrap().take();
        *self.account.lock().unwrap() =
            newer.expect("it is asked for once, when kinds are outdated");
        Box::pin(async move { self.account(id) })
    }

    fn send<'a>(
        &'a self,
        _account: &'a Account,
        _client: &'a str,
        request: LiveRequest,
    ) -> BoxFuture<'a, Result<LiveAnswer, UpstreamError>> {
        let line = format!("{} {}", request.method, request.target);
        self.sent.lock().unwrap().push(line);
        let answer = |status: u16, kind: &'static str, body: Bytes| {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", kind.parse().unwrap());
            headers.insert("set-cookie", "never".parse().unwrap());
            headers.insert("retry-after", "1".parse().unwrap());
            Ok(LiveAnswer {
                status: StatusCode::from_u16(status).unwrap(),
                headers,
                body: stream::iter([Ok(body)]).boxed(),
            })
        };
        let endless = |text: &'static str| {
            let text = stream::iter([Ok(Bytes::from(text))]);
            Ok(LiveAnswer {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: text.chain(stream::pending()).boxed(),
            })
        };
        let reply = (self.script.lock().unwrap())(&request);
        async move {
            match reply {
                Reply::Json(status, value) => {
                    answer(status, "application/json", value.to_string().into())
                }
                Reply::Raw(status, kind, text) => answer(status, kind, text.into()),
                Reply::Endless(text) => endless(text),
                Reply::Fail(error) => Err(error),
                Reply::Never => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn authorize(
        &self,
        client: &str,
        account: &str,
        _verb: Verb,
        _kind: &str,
        _namespace: Option<&str>,
    ) -> bool {
        client == "clouddriver" && account == "prod"
    }

    fn audit(&self, record: AuditRecord) {
        self.audits.lock().unwrap().push(record);
    }
}

/// A facade on a free port, its scripted cluster and its clock.
struct World {
    cluster: Arc<Cluster>,
    clock: Arc<ManualClock>,
    view: Arc<View>,
    address: SocketAddr,
    tasks: Tasks,
}

impl World {
    async fn start() -> Self {
        let clock = Arc::new(ManualClock::new(from_unix_seconds(1_000_000)));
        let view = Arc::new(View::new(Arc::clone(&clock) as SharedClock));
        let cluster = Arc::new(Cluster {
            account: Mutex::new(Arc::new(account(&view))),
            newer: Mutex::default(),
            script: Mutex::new(Box::new(|_| Reply::Fail(UpstreamError::Away))),
            sent: Mutex::default(),
            audits: Mutex::default(),
        });
        let shared = Arc::clone(&clock) as SharedClock;
        let facade = Arc::new(Facade::new(Arc::clone(&cluster), shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let connections = tasks.clone();
        tasks.spawn("accept", |stop| async move {
            let accept = async {
                while let Ok((socket, _)) = listener.accept().await {
                    let facade = Arc::clone(&facade);
                    connections.spawn("connection", |_| serve(facade, socket));
                }
            };
            stop.run_until_cancelled(accept).await;
        });
        Self {
            cluster,
            clock,
            view,
            address,
            tasks,
        }
    }

    fn script(&self, script: impl Fn(&LiveRequest) -> Reply + Send + Sync + 'static) {
        *self.cluster.script.lock().unwrap() = Box::new(script);
    }

    fn change(&self, change: impl FnOnce(&mut Account)) {
        let mut account = self.cluster.account.lock().unwrap();
        change(Arc::make_mut(&mut account));
    }

    fn away(&self) {
        let since = self.clock.now();
        self.change(|account| account.freshness = Freshness::Away { since });
    }

    fn sent(&self) -> Vec<String> {
        std::mem::take(&mut self.cluster.sent.lock().unwrap())
    }

    fn audits(&self) -> Vec<AuditRecord> {
        std::mem::take(&mut self.cluster.audits.lock().unwrap())
    }

    /// Gives the view a whole snapshot of pods at version 10.
    fn know_pods(&self, names: &[&str]) {
        let key = pods_key();
        self.view.snapshot_begin(&key);
        for name in names {
            self.put_pod(name, 5);
        }
        self.view.snapshot_end(&key, ResourceVersion(10));
    }

    fn put_pod(&self, name: &str, version: u64) {
        let identity = identity("shop", name, version);
        put(&self.view, &pods_key(), identity);
    }

    async fn get(&self, path: &str) -> Answered {
        self.ask("GET", path, &[], "").await
    }

    /// Asks for a path within the account.
    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answered {
        let target = format!("/accounts/{ID}{path}");
        let response = self.open(method, &target, headers, body.to_owned()).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answered {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: bytes,
        }
    }

    async fn open(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Response<Incoming> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let (mut client, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
        self.tasks.spawn("client", |_| connection.map(|_closed| ()));
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        client.send_request(request).await.unwrap()
    }

    /// Sends a request line as it is; the status of the answer.
    async fn raw(&self, method: &str, target: &str) -> u16 {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let request =
            format!("{method} {target} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _reset_is_fine = socket.read_to_end(&mut answer).await;
        let text = String::from_utf8_lossy(&answer);
        let status = text.split(' ').nth(1).unwrap_or_default();
        status.parse().unwrap_or(0)
    }
}

async fn serve(facade: Arc<Facade<Cluster>>, socket: TcpStream) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let facade = Arc::clone(&facade);
        async move {
            let name = request.headers().get("x-client");
            let name = name.map_or("clouddriver", |name| name.to_str().unwrap());
            let client = Client(name.to_owned());
            request.extensions_mut().insert(client);
            Ok::<_, std::convert::Infallible>(facade.answer(request).await)
        }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let _cut = server.serve_connection(TokioIo::new(socket), service).await;
}

struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn reason(&self) -> String {
        let json = self.json();
        assert_eq!(json["kind"], "Status");
        assert_eq!(json["code"], self.status);
        json["reason"].as_str().unwrap().to_owned()
    }

    fn names(&self) -> Vec<String> {
        let json = self.json();
        let items = json["items"].as_array().unwrap();
        let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
        items.iter().map(name).collect()
    }
}

fn pods_key() -> StreamKey {
    StreamKey {
        gvr: Gvr::new("", "v1", "pods"),
        scope: Scope::Cluster,
    }
}

fn namespaces_key() -> StreamKey {
    StreamKey {
        gvr: Gvr::new("", "v1", "namespaces"),
        scope: Scope::Cluster,
    }
}

fn identity(namespace: &str, name: &str, version: u64) -> Identity {
    Identity {
        namespace: namespace.into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        resource_version: ResourceVersion(version),
    }
}

fn put(view: &View, key: &StreamKey, identity: Identity) {
    let before = format!(
        r#"{{"metadata":{{"name":"{}","namespace":"{}","labels":{{"t":"rs"}},"resourceVersion":""#,
        identity.name, identity.namespace
    );
    let digits = identity.resource_version.to_string();
    let at = u32::try_from(before.len()).unwrap();
    let length = u32::try_from(digits.len()).unwrap();
    view.upsert(
        key,
        identity,
        Bytes::from(before + &digits + "\"}}"),
        at,
        length,
        false,
    );
}

fn kind(gvr: Gvr, name: &str, level: Level, parts: &[&str]) -> Kind {
    let verbs = || Verb::ALL.map(|verb| verb.as_str().to_owned()).to_vec();
    let part = |part: &&str| Subresource {
        name: (*part).to_owned(),
        kind: if *part == "scale" { "Scale" } else { name }.to_owned(),
        group: if *part == "scale" { "autoscaling" } else { "" }.to_owned(),
        version: if *part == "scale" { "v1" } else { "" }.to_owned(),
        verbs: verbs(),
    };
    Kind {
        resource: resource::Kind {
            kind: name.into(),
            singular: name.to_lowercase(),
            short_names: vec![name.chars().take(2).collect::<String>().to_lowercase()],
            categories: vec!["all".into()],
            namespaced: name != "Namespace",
            verbs: verbs(),
            subresources: parts.iter().map(part).collect(),
            preferred_version: gvr.version != "v1beta1",
            gvr,
        },
        level,
        masked: name == "Secret",
    }
}

fn account(view: &Arc<View>) -> Account {
    view.attach(&pods_key(), "Pod");
    view.attach(&namespaces_key(), "Namespace");
    let core = |resource: &str| Gvr::new("", "v1", resource);
    Account {
        name: "prod".into(),
        id: ID.into(),
        view: Arc::clone(view),
        discovery: Arc::new(vec![
            kind(
                Gvr::new("batch", "v1beta1", "cronjobs"),
                "CronJob",
                Level::Live,
                &[],
            ),
            kind(
                Gvr::new("batch", "v1", "cronjobs"),
                "CronJob",
                Level::Live,
                &[],
            ),
            kind(
                Gvr::new("apps", "v1", "deployments"),
                "Deployment",
                Level::Cached,
                &["scale"],
            ),
            kind(core("pods"), "Pod", Level::Cached, &["log", "status"]),
            kind(core("namespaces"), "Namespace", Level::Cached, &[]),
            kind(core("events"), "Event", Level::Live, &[]),
            kind(core("secrets"), "Secret", Level::Live, &[]),
        ]),
        version_json: Bytes::from_static(br#"{"gitVersion":"v1.33.0"}"#),
        namespaces: Vec::new(),
        outdated: false,
        freshness: Freshness::Connected,
        max_stale: Duration::from_mins(5),
    }
}
