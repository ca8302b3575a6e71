//! An agent's connection to a hub: TCP, TLS, HTTP/2, and the reason when it ends.
//!
//! Not a pool: it never redials, and the alert of a hub that refuses the certificate is told. In
//! TLS 1.3 [`connect`] succeeds before the hub has judged the client: a refusal arrives with the
//! first answer, or through [`Connection::closed`].

mod closed;
mod error;

use std::io;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, TryFutureExt as _};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;

use super::proof::{self, Exporter, Purpose};
use super::tls::ALPN_H2;
use super::verify::{self, VerifiedPeer};
use crate::limits::{
    AGENT_CONNECTION_WINDOW, AGENT_STREAM_WINDOW, HEADER_LIST_BYTES, SEND_BUFFER_BYTES,
    SOCKET_UNSENT_BYTES,
};
use crate::tasks::Tasks;

use closed::Watched;

pub use closed::Closed;
pub use error::ConnectError;

/// Silence after which an HTTP/2 ping is sent; with [`PING_TIMEOUT`], a frozen hub is found within
/// 20 s. Heartbeats come more often, so that pings are rare.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Time a ping may stay unanswered.
pub const PING_TIMEOUT: Duration = Duration::from_secs(8);

/// Idle time before the kernel probes the connection.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// An open connection; dropping it closes the socket, whatever still uses its [`Hub`].
pub struct Connection {
    hub: Hub,
    peer: VerifiedPeer,
    enrol: Exporter,
    renew: Exporter,
    reason: Arc<OnceLock<Closed>>,
    ended: CancellationToken,
    _stop: DropGuard,
}

impl std::fmt::Debug for Connection {
    /// Without the keying material.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("hub", &self.hub)
            .field("peer", &self.peer)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// The service for tonic's generated clients (`with_origin`).
    pub fn service(&self) -> Hub {
        self.hub.clone()
    }

    /// The origin that goes with [`Connection::service`].
    pub fn origin(&self) -> http::Uri {
        self.hub.origin.clone()
    }

    /// The hub at the other end.
    pub const fn peer(&self) -> &VerifiedPeer {
        &self.peer
    }

    /// This connection's keying material for a proof.
    pub const fn exporter(&self, purpose: Purpose) -> &Exporter {
        match purpose {
            Purpose::Enrol => &self.enrol,
            Purpose::Renew => &self.renew,
        }
    }

    /// Waits until the connection is gone, and tells why. Cancellation-safe.
    pub async fn closed(&self) -> Closed {
        self.ended.cancelled().await;
        self.reason.get().cloned().unwrap_or(Closed::Dropped)
    }

    /// Why the connection is gone, if it is.
    pub fn reason(&self) -> Option<&Closed> {
        self.reason.get()
    }
}

/// Dials `address` (`host:port`) and speaks HTTP/2 over TLS to it, all within `deadline`.
///
/// The certificate has to be for `server_name`. The connection runs in `tasks` and ends with them.
pub async fn connect(
    address: &str,
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    deadline: Duration,
    tasks: &Tasks,
) -> Result<Connection, ConnectError> {
    let connecting = dial(address, config, server_name, tasks).boxed();
    tokio::time::timeout(deadline, connecting)
        .await
        .unwrap_or_else(|_elapsed| {
            Err(ConnectError::Timeout {
                address: address.to_owned(),
                deadline,
            })
        })
}

async fn dial(
    address: &str,
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    tasks: &Tasks,
) -> Result<Connection, ConnectError> {
    let (tls, peer) = shake(address, config, server_name).await?;
    let export = |purpose| {
        proof::exporter(tls.get_ref().1, purpose).map_err(|source| ConnectError::Export {
            address: address.to_owned(),
            source,
        })
    };
    let (enrol, renew) = (export(Purpose::Enrol)?, export(Purpose::Renew)?);
    start(address, tls, tasks, (peer, enrol, renew)).await
}

/// Shakes hands with `address` as [`connect`] does, and hangs up: who is there, and the chain that
/// it shows.
///
/// Nothing is asked of the hub. A listener that wants a certificate is content with none until
/// then: in TLS 1.3 it judges the client after the client has judged it.
pub async fn probe(
    address: &str,
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    deadline: Duration,
) -> Result<(VerifiedPeer, Vec<CertificateDer<'static>>), ConnectError> {
    let shaking = shake(address, config, server_name).boxed();
    let shaken = tokio::time::timeout(deadline, shaking).await;
    let (tls, peer) = shaken.unwrap_or_else(|_elapsed| {
        Err(ConnectError::Timeout {
            address: address.to_owned(),
            deadline,
        })
    })?;
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
    Ok((peer, chain))
}

async fn shake(
    address: &str,
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
) -> Result<(TlsStream<TcpStream>, VerifiedPeer), ConnectError> {
    let at = || address.to_owned();
    let tcp = open(address)
        .map_err(|error| ConnectError::Tcp {
            address: at(),
            source: error::dialled(error),
        })
        .await?;
    let handshake = TlsConnector::from(config).connect(server_name, tcp);
    let (finished, verdict) = verify::observed(handshake).await;
    let (tls, peer) = match (finished, verdict) {
        (Ok(tls), Some(Ok(peer))) => (tls, peer),
        (_, Some(Err(source))) => {
            return Err(ConnectError::Refused {
                address: at(),
                source,
            });
        }
        (Err(error), _) => {
            return Err(ConnectError::Tls {
                address: at(),
                source: error::handshaken(error),
            });
        }
        // rustls does not finish without having asked its verifier; resumption is off.
        (Ok(_), None) => {
            let error = io::Error::other("the certificate was not looked at");
            return Err(ConnectError::Tls {
                address: at(),
                source: error::handshaken(error),
            });
        }
    };
    if tls.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
        return Err(ConnectError::Alpn { address: at() });
    }
    Ok((tls, peer))
}

/// Starts HTTP/2 on a finished handshake and lets it run in its own set of tasks.
async fn start(
    address: &str,
    tls: TlsStream<TcpStream>,
    tasks: &Tasks,
    (peer, enrol, renew): (VerifiedPeer, Exporter, Exporter),
) -> Result<Connection, ConnectError> {
    let reason = Arc::new(OnceLock::new());
    let io = Watched {
        io: tls,
        reason: Arc::clone(&reason),
    };
    let own = tasks.child();
    let stop = own.stop_on_drop();
    let http2 = |source| ConnectError::Http2 {
        address: address.to_owned(),
        source,
    };
    let (sender, driver) = http2::Builder::new(Driver(own.clone()))
        .timer(TokioTimer::new())
        .initial_stream_window_size(AGENT_STREAM_WINDOW)
        .initial_connection_window_size(AGENT_CONNECTION_WINDOW)
        .adaptive_window(false)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(io))
        .await
        .map_err(http2)?;
    let ended = CancellationToken::new();
    let (end, told) = (ended.clone().drop_guard(), Arc::clone(&reason));
    own.spawn("hub-connection", |stop| async move {
        let _end = end;
        match stop.run_until_cancelled(driver).await {
            None => drop(told.set(Closed::Dropped)),
            // What the socket said was kept by `Watched`; this is for an end without one.
            Some(Ok(())) => drop(told.set(Closed::Cut(io::ErrorKind::UnexpectedEof))),
            Some(Err(error)) if error.is_timeout() => {
                drop(told.set(Closed::Cut(io::ErrorKind::TimedOut)));
            }
            Some(Err(_told_by_the_socket)) => {
                drop(told.set(Closed::Cut(io::ErrorKind::ConnectionAborted)));
            }
        }
    });
    let hub = Hub {
        sender,
        origin: origin(address),
    };
    Ok(Connection {
        hub,
        peer,
        enrol,
        renew,
        reason,
        ended,
        _stop: stop,
    })
}

async fn open(address: &str) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    SockRef::from(&tcp).set_tcp_notsent_lowat(SOCKET_UNSENT_BYTES)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(PING_INTERVAL);
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    Ok(tcp)
}

/// gRPC wants an absolute URI; an address that makes none was dialled all the same.
fn origin(address: &str) -> http::Uri {
    http::Uri::builder()
        .scheme("https")
        .authority(address)
        .path_and_query("/")
        .build()
        .unwrap_or_else(|_not_a_uri| http::Uri::from_static("https://hub/"))
}

/// The hub at the end of one connection, as tonic's generated clients use it.
#[derive(Clone)]
pub struct Hub {
    sender: SendRequest<Body>,
    origin: http::Uri,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl tower::Service<http::Request<Body>> for Hub {
    type Response = http::Response<Body>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.sender.send_request(request);
        answer.map_ok(|response| response.map(Body::new)).boxed()
    }
}

/// Runs hyper's tasks among ours, so that they end with the connection.
#[derive(Clone)]
struct Driver(Tasks);

impl<F> hyper::rt::Executor<F> for Driver
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("hub-http2", |stop| async move {
            // Stopped or done: either way it is over.
            let _done = stop.run_until_cancelled(future).await;
        });
    }
}
