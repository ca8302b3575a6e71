//! A data listener that agents take for their hub's: its certificate is of the hub's authority.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use sortie::clock::{self, Clock as _, SystemClock};
use sortie::entropy;
use sortie::identity::tls::{self, Material};
use sortie::identity::verify::AdmitAll;
use sortie::identity::{
    Authority, Issuer as _, KeyPair, Order, Role, SpiffeId, TrustDomain, accept,
};
use sortie::limits;
use sortie::tasks::Tasks;
use sortie::wire::v1;
use sortie::wire::v1::session_server::{Session, SessionServer};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::{Status, Streaming};
use tower::Service as _;

/// The trust domain of `stand::hub_yaml`.
const DOMAIN: &str = "test.sortie.example";

/// How long its certificates are good.
const TTL: Duration = Duration::from_hours(1);

/// What a hub sends down a stream.
pub(crate) type Down<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The attach with which an agent opens a feed.
pub(crate) async fn attach_of(up: &mut Streaming<v1::FeedUp>) -> Result<v1::Attach, Status> {
    let first = up.message().await?.and_then(|first| first.message);
    match first {
        Some(v1::feed_up::Message::Attach(attach)) => Ok(attach),
        other => panic!("{other:?}"),
    }
}

/// How it greets an agent.
pub(crate) fn welcome() -> v1::HubControl {
    let welcome = v1::Welcome {
        version: 1,
        session: vec![7; 16].into(),
        hub: "between".to_owned(),
        feed_credit_bytes: 1 << 20,
        max_operations: 8,
        role: v1::InstanceRole::Active.into(),
        ..v1::Welcome::default()
    };
    v1::HubControl {
        message: Some(v1::hub_control::Message::Welcome(Box::new(welcome))),
    }
}

/// A listener that runs.
pub(crate) struct Between {
    /// Where agents dial.
    pub(crate) address: SocketAddr,
}

impl Between {
    /// Serves what `made` makes, for each connection; `state` is the state folder of a hub.
    pub(crate) async fn start<S, F>(
        state: &Path,
        made: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        S: Session,
        F: Future<Output = S> + Send + 'static,
    {
        let server = material(state, Role::Hub, "between").await.publish();
        let domain: TrustDomain = DOMAIN.parse().expect("a trust domain");
        let admission = Arc::new(AdmitAll);
        let config = tls::data_server(&server, &domain, admission, clock::system());
        let config = config.expect("a config");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let tasks = Tasks::new();
        let connections = tasks.clone();
        tasks.spawn("between", move |_stop| async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (config, making) = (Arc::clone(&config), made());
                connections.spawn("connection", move |_stop| async move {
                    let accepted = accept(config, socket).await.expect("a certified agent");
                    let session = SessionServer::new(making.await);
                    let session = session.max_decoding_message_size(limits::OBJECT_BYTES);
                    let routes = Routes::new(session);
                    let service =
                        hyper::service::service_fn(move |request| routes.clone().call(request));
                    let io = TokioIo::new(accepted.stream);
                    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ended = serving.serve_connection(io, service).await;
                });
            }
        });
        Self { address }
    }
}

/// A key and a certificate by the authority of the hub whose state folder is `state`.
pub(crate) async fn material(state: &Path, role: Role, name: &str) -> Material {
    let domain: TrustDomain = DOMAIN.parse().expect("a trust domain");
    let (clock, entropy) = (clock::system(), entropy::system());
    let authority = Authority::open(&state.join("ca"), domain.clone(), clock, entropy);
    let authority = authority.expect("the hub's authority");
    let key = KeyPair::generate().expect("a key");
    let address = (role == Role::Hub).then_some([127, 0, 0, 1].into());
    let order = Order {
        public_key: key.public_key().clone(),
        id: SpiffeId {
            trust_domain: domain,
            role,
            name: name.parse().expect("a name"),
        },
        dns: Vec::new(),
        ips: address.into_iter().collect(),
        ttl: TTL,
    };
    let issued = authority.issue(&order).await.expect("it signs");
    let roots = authority.roots();
    Material::new(&key, &issued.chain, roots, SystemClock.now()).expect("a good chain")
}
