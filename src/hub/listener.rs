//! Accept loops: bounded handshakes, verified peers, a kill switch and an expiry per connection.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tower::Service;

use super::Core;
use super::audit::Audit;
use super::crowd::{Crowd, Entrance, Place};
use super::metrics::Figures;
use super::peer::Peer;
use crate::facade::Drain;
use crate::identity::proof::{self, Exporter, Purpose};
use crate::identity::verify::Admission;
use crate::identity::{AcceptError, Accepted, Protocol, accept};
use crate::limits;
use crate::secret;
use crate::tasks::Tasks;
use crate::telemetry::Accepting;

/// HTTP/2 pings go out after this much silence.
const PING_EVERY: Duration = Duration::from_secs(10);

/// A ping that is not answered within this ends the connection.
const PING_TIMEOUT: Duration = Duration::from_secs(8);

/// The connections of clients.
///
/// They have a stop of their own: what they are waiting for comes over the connections of agents.
#[derive(Debug, Default)]
pub(super) struct Clients {
    stop: CancellationToken,
    open: TaskTracker,
}

impl Clients {
    /// Tells every connection to end once it has answered, and waits up to `limit` for that.
    pub(super) async fn drain(&self, limit: Duration) {
        self.stop.cancel();
        self.open.close();
        if tokio::time::timeout(limit, self.open.wait()).await.is_err() {
            tracing::warn!(connections = self.open.len(), "clients are cut off");
        }
    }
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Agents with a certificate.
    Data,
    /// Agents that want one.
    Enrol,
    /// Clients of the Kubernetes endpoint.
    Facade,
}

impl Door {
    const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Enrol => "enrol",
            Self::Facade => "facade",
        }
    }
}

/// A listener that is bound.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) door: Door,
    pub(super) socket: TcpListener,
    pub(super) config: Arc<ServerConfig>,
}

/// A connection whose handshake is done.
pub(super) struct Connection {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) address: SocketAddr,
    pub(super) protocol: Protocol,
    /// The verified peer, where the door asks for one.
    pub(super) peer: Option<crate::identity::VerifiedPeer>,
    place: Place,
}

impl Listener {
    /// Accepts until told to stop.
    pub(super) async fn run(self, core: Arc<Core>, tasks: Tasks, stop: CancellationToken) {
        let crowd = Crowd::new();
        // Once: they are the same for all connections.
        let routes = match self.door {
            Door::Data => super::services::data(Arc::clone(&core)),
            Door::Enrol => super::services::enrol(Arc::clone(&core)),
            Door::Facade => Routes::default(),
        };
        let mut accepting = Accepting::at(self.door.name());
        loop {
            // Before accepting: a storm queues in the kernel's backlog, not in our memory.
            let Some(Some(slot)) = stop.run_until_cancelled(crowd.slot()).await else {
                return;
            };
            let accept = async { accepting.take(self.socket.accept().await).await };
            let Some(accepted) = stop.run_until_cancelled(accept).await else {
                return;
            };
            let Some((socket, address)) = accepted else {
                continue;
            };
            let Some((place, entrance)) = crowd.enter(address.ip(), slot) else {
                crowded(self.door, address, &core.figures);
                continue;
            };
            let arrival = Arrival {
                door: self.door,
                config: Arc::clone(&self.config),
                socket,
                address,
                place,
                entrance,
            };
            serve(arrival, Arc::clone(&core), routes.clone(), &tasks);
        }
    }
}

/// A connection that was let in, before its handshake.
struct Arrival {
    door: Door,
    config: Arc<ServerConfig>,
    socket: TcpStream,
    address: SocketAddr,
    place: Place,
    entrance: Entrance,
}

/// Starts the task of a connection.
fn serve(arrival: Arrival, core: Arc<Core>, routes: Routes, tasks: &Tasks) {
    let (door, own) = (arrival.door, tasks.child());
    let figures = Arc::clone(&core.figures);
    // Each step has a block of its own: a connection that is served for days does not keep the
    // room that its handshake, or another door, would need.
    let shaking = Box::pin(async move { arrival.shake(&figures).await.map(Box::new) });
    tasks.spawn("connection", move |stop| async move {
        let Some(Some(connection)) = stop.run_until_cancelled(shaking).await else {
            return;
        };
        match door {
            Door::Enrol => Box::pin(core.serve_enrol(connection, routes, own, stop)).await,
            Door::Data => {
                if let Some(serving) = core.serve_data(connection, routes, own, stop) {
                    serving.await;
                }
            }
            Door::Facade => Box::pin(core.serve_facade(connection, own, stop)).await,
        }
    });
}

impl Arrival {
    async fn shake(self, figures: &Figures) -> Option<Connection> {
        let (door, address) = (self.door, self.address);
        let Some(turn) = self.entrance.turn().await else {
            crowded(door, address, figures);
            return None;
        };
        // Small answers must not wait for full segments.
        let _best_effort = self.socket.set_nodelay(true);
        let _best_effort =
            socket2::SockRef::from(&self.socket).set_tcp_notsent_lowat(limits::SOCKET_UNSENT_BYTES);
        let shaken = accept(self.config, self.socket).await;
        drop(turn);
        let outcome = match &shaken {
            Ok(_) => "admitted",
            Err(error) => error.label(),
        };
        figures.handshakes.add([door.name(), outcome]);
        match shaken {
            Ok(Accepted {
                stream,
                peer,
                protocol,
            }) => Some(Connection {
                stream,
                address,
                protocol,
                peer,
                place: self.place,
            }),
            Err(error) => {
                refused(door, address, &error);
                None
            }
        }
    }
}

/// Tells of a connection that is closed before its handshake.
fn crowded(door: Door, address: SocketAddr, figures: &Figures) {
    figures.handshakes.add([door.name(), "crowded"]);
    tracing::debug!(%address, door = door.name(), "too many connections");
}

fn refused(door: Door, address: SocketAddr, error: &AcceptError) {
    Audit::new("connect", &address.ip().to_string())
        .with("door", door.name())
        .with("error", crate::fault::Chain(error))
        .refuse(error.label());
}

impl Core {
    /// Lists the connection of a verified peer; `None` if it was revoked in between.
    fn admit(
        &self,
        connection: &mut Connection,
        tasks: &Tasks,
    ) -> Option<(Peer, super::peer::Listed)> {
        let verified = connection.peer.take()?;
        let exporter = exporter(connection, Purpose::Renew)?;
        let peer = Peer::new(verified, tasks.clone(), exporter);
        let listed = self.live.list(peer.clone());
        // A revocation between the handshake and this line has not seen the connection.
        if let Some(refusal) = self.bans.refusal(&peer.verified) {
            Audit::new("connect", &peer.verified.id().to_string()).refuse(&refusal.to_string());
            return None;
        }
        Some((peer, listed))
    }

    /// The serving of an agent's connection; `None` if it is not admitted.
    ///
    /// What happens once happens here: the future, of which there are as many as agents, holds
    /// no room for it.
    fn serve_data(
        &self,
        mut connection: Box<Connection>,
        routes: Routes,
        tasks: Tasks,
        stop: CancellationToken,
    ) -> Option<Pin<Box<impl Future<Output = ()> + Send + use<>>>> {
        let (peer, listed) = self.admit(&mut connection, &tasks)?;
        let Connection { stream, place, .. } = *connection;
        let extension = peer.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(extension.clone());
            routes.clone().call(request)
        });
        // h2 sets aside 28 KiB for what is under way, and an agent at rest needs a fraction.
        let serving = secret::sparsely(|| {
            Box::pin(http2(&tasks).serve_connection(TokioIo::new(stream), service))
        });
        let expiry = self.until(peer.verified.not_after());
        // In its block before it is looked at: who awaits it would have room for it as well.
        Some(Box::pin(async move {
            let _until_closed = (listed, place);
            let why = end(serving, &peer.kill, expiry, &stop, |serving| {
                serving.graceful_shutdown();
            })
            .await;
            peer.closed.cancel();
            tasks.cancel();
            tracing::debug!(agent = peer.name(), why, "agent connection closed");
        }))
    }

    async fn serve_enrol(
        self: Arc<Self>,
        connection: Box<Connection>,
        routes: Routes,
        tasks: Tasks,
        stop: CancellationToken,
    ) {
        let Some(exporter) = exporter(&connection, Purpose::Enrol) else {
            return;
        };
        let info = super::enrolment::Channel::new(exporter, connection.address);
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(info.clone());
            routes.clone().call(request)
        });
        let serving = http2(&tasks)
            .max_concurrent_streams(4)
            .serve_connection(TokioIo::new(connection.stream), service);
        // Enrolment is two calls; nobody needs the connection for longer.
        let expiry = Instant::now() + ENROL_CONNECTION;
        let never = CancellationToken::new();
        let end = end(Box::pin(serving), &never, expiry, &stop, |serving| {
            serving.graceful_shutdown();
        });
        let _why = end.await;
        tasks.cancel();
    }

    async fn serve_facade(
        self: Arc<Self>,
        mut connection: Box<Connection>,
        tasks: Tasks,
        stop: CancellationToken,
    ) {
        let Some((peer, _listed)) = self.admit(&mut connection, &tasks) else {
            return;
        };
        let _open = self.clients.open.token();
        let hangup = CancellationToken::new();
        let (facade, client, ends) = (
            Arc::clone(&self.facade),
            peer.name().to_owned(),
            hangup.clone(),
        );
        let stopping = Drain(self.clients.stop.clone());
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(stopping.clone());
            let (facade, client, ends) = (facade.clone(), client.clone(), ends.clone());
            async move {
                Ok::<_, std::convert::Infallible>(answer(&facade, &client, request, &ends).await)
            }
        });
        let expiry = self.until(peer.verified.not_after());
        let io = TokioIo::new(connection.stream);
        let drain = self.clients.stop.child_token();
        let watching = drain.clone();
        let on_hangup = async move {
            hangup.cancelled().await;
            watching.cancel();
        };
        let serving = async {
            match connection.protocol {
                Protocol::Http2 => {
                    let mut builder = http2(&tasks);
                    let serving = builder
                        .max_concurrent_streams(256)
                        .serve_connection(io, service);
                    end(Box::pin(serving), &peer.kill, expiry, &drain, |c| {
                        c.graceful_shutdown();
                    })
                    .await
                }
                Protocol::Http1 => {
                    let serving = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(limits::ANSWER_TIMEOUT)
                        .max_headers(100)
                        .serve_connection(io, service);
                    end(Box::pin(serving), &peer.kill, expiry, &drain, |c| {
                        c.graceful_shutdown();
                    })
                    .await
                }
            }
        };
        let serving = async {
            tokio::pin!(serving, on_hangup);
            tokio::select! {
                why = &mut serving => tracing::trace!(why, "client connection closed"),
                () = &mut on_hangup => { serving.await; }
            }
        };
        let _cut = stop.run_until_cancelled(serving).await;
        peer.closed.cancel();
        tasks.cancel();
    }

    /// When `time` is.
    fn until(&self, time: std::time::SystemTime) -> Instant {
        let left = time.duration_since(self.clock.now()).unwrap_or_default();
        Instant::now() + left
    }
}

/// How long a connection to the enrol listener may live.
const ENROL_CONNECTION: Duration = Duration::from_mins(1);

async fn answer(
    facade: &super::Facade,
    client: &str,
    mut request: Request<Incoming>,
    ends: &CancellationToken,
) -> Response<crate::facade::Body> {
    request
        .extensions_mut()
        .insert(crate::facade::Client(client.to_owned()));
    let response = facade.answer(request).await;
    // The connection carried a secret: once it is closed, its read buffers are freed and wiped.
    if response
        .extensions()
        .get::<crate::facade::CloseConnection>()
        .is_some()
    {
        ends.cancel();
    }
    response
}

fn exporter(connection: &Connection, purpose: Purpose) -> Option<Exporter> {
    let (_, tls) = connection.stream.get_ref();
    match proof::exporter(tls, purpose) {
        Ok(exporter) => Some(exporter),
        Err(error) => {
            tracing::warn!(error = %crate::fault::Chain(&error), "connection dropped");
            None
        }
    }
}

/// Runs hyper's tasks for a connection, bound to its life.
#[derive(Clone, Debug)]
struct Bound(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Bound {
    fn execute(&self, future: F) {
        // Not in an `async` block: that would hold it twice, as given and as awaited.
        self.0.spawn("stream", |stop| {
            future.with_cancellation_token_owned(stop).map(drop)
        });
    }
}

fn http2(tasks: &Tasks) -> hyper::server::conn::http2::Builder<Bound> {
    let mut builder = hyper::server::conn::http2::Builder::new(Bound(tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::HUB_STREAM_WINDOW)
        .initial_connection_window_size(limits::HUB_CONNECTION_WINDOW)
        .max_concurrent_streams(limits::HUB_STREAMS)
        .max_header_list_size(limits::HEADER_LIST_BYTES)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(1024)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Drives a connection until it ends, is cut, expires, or has drained.
async fn end<C, E>(
    mut serving: Pin<Box<C>>,
    kill: &CancellationToken,
    expiry: Instant,
    drain: &CancellationToken,
    shut_down: impl Fn(Pin<&mut C>),
) -> &'static str
where
    C: Future<Output = Result<(), E>>,
{
    let expiry = tokio::time::sleep_until(expiry);
    tokio::pin!(expiry);
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            () = kill.cancelled() => return "revoked",
            () = &mut expiry => return "expired",
            () = drain.cancelled(), if !draining => {
                draining = true;
                shut_down(serving.as_mut());
            }
            ended = serving.as_mut() => {
                return if ended.is_ok() { "ended" } else { "broke" };
            }
        }
    }
}
