//! A small pool of HTTP/2 connections; one HTTP/1.1 connection per request where the server has
//! nothing better.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connect::Connector;
use super::link::Link;
use super::request::Checked;
use super::wiping::HEAD_BYTES;
use super::{ApiAnswer, ApiBody, ClusterError};
use crate::limits;
use crate::tasks::Tasks;

/// Connections of one pool: enough for [`limits::STREAMS_PER_ACCOUNT`].
const CONNECTIONS: usize = limits::STREAMS_PER_ACCOUNT.div_ceil(limits::API_STREAMS_PER_CONNECTION);

/// Silence on an HTTP/2 connection after which a ping is sent; with [`PING_TIMEOUT`], a frozen API
/// server is found within 25 s.
const PING_INTERVAL: Duration = Duration::from_secs(12);

/// Time for the answer to a ping; without one the connection is closed.
const PING_TIMEOUT: Duration = Duration::from_secs(8);

/// Times a request is sent: a connection that was just closing gives it back unsent.
const ATTEMPTS: usize = 3;

type Sender = http2::SendRequest<Full<Bytes>>;
type Stream = Link<TcpStream>;

/// Connections to one API server.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    tasks: Tasks,
    open: Mutex<Vec<Connection>>,
    /// Held while dialling, so that a burst of requests opens one connection and not one each.
    dialling: tokio::sync::Mutex<()>,
    /// The server has once chosen HTTP/1.1.
    http1_only: AtomicBool,
}

#[derive(Debug)]
struct Connection {
    sender: Sender,
    places: Arc<Semaphore>,
}

/// A connection with a free place for a stream.
enum Way {
    Http1(Box<Stream>),
    Http2(Sender, OwnedSemaphorePermit),
}

impl Pool {
    pub(super) fn new(connector: Connector, tasks: Tasks) -> Self {
        Self {
            connector,
            tasks,
            open: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
            http1_only: AtomicBool::new(false),
        }
    }

    pub(super) async fn send(&self, request: Checked) -> Result<ApiAnswer, ClusterError> {
        let is_long_running = request.long_running;
        let authority = request.authority.clone();
        let mut request = request.into_http(&format!("https://{authority}"))?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (mut sender, place) = match self.way().await? {
                Way::Http1(stream) => {
                    return self
                        .send_alone(stream, &authority, request, is_long_running)
                        .await;
                }
                Way::Http2(sender, place) => (sender, place),
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(answer(response, Some(place), is_long_running)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if attempts < ATTEMPTS => request = unsent,
                    _ => return Err(ClusterError::broken(failed.into_error())),
                },
            }
        }
    }

    async fn way(&self) -> Result<Way, ClusterError> {
        if let Some((sender, place)) = self.free() {
            return Ok(Way::Http2(sender, place));
        }
        if self.http1_only.load(Ordering::Relaxed) {
            let stream = self.connector.connect(|socket| socket).await?;
            return Ok(Way::Http1(Box::new(stream)));
        }
        let _dialling = self.dialling.lock().await;
        if let Some((sender, place)) = self.free() {
            return Ok(Way::Http2(sender, place));
        }
        if self.lock().len() >= CONNECTIONS {
            return Err(ClusterError::Exhausted);
        }
        let stream = self.connector.connect(|socket| socket).await?;
        if !stream.is_http2() {
            self.http1_only.store(true, Ordering::Relaxed);
            return Ok(Way::Http1(Box::new(stream)));
        }
        let sender = self.open_http2(stream).await?;
        let places = Arc::new(Semaphore::new(limits::API_STREAMS_PER_CONNECTION));
        let place = Arc::clone(&places)
            .try_acquire_owned()
            .map_err(|_error| ClusterError::Exhausted)?;
        self.lock().push(Connection {
            sender: sender.clone(),
            places,
        });
        Ok(Way::Http2(sender, place))
    }

    /// A place on an open connection; forgets those that have closed.
    fn free(&self) -> Option<(Sender, OwnedSemaphorePermit)> {
        let mut open = self.lock();
        open.retain(|connection| !connection.sender.is_closed());
        open.iter().find_map(|connection| {
            let place = Arc::clone(&connection.places).try_acquire_owned().ok()?;
            Some((connection.sender.clone(), place))
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open_http2(&self, stream: Stream) -> Result<Sender, ClusterError> {
        let (sender, connection) = http2::Builder::new(Owned(self.tasks.clone()))
            .timer(TokioTimer::new())
            .adaptive_window(false)
            .initial_stream_window_size(limits::AGENT_STREAM_WINDOW)
            .initial_connection_window_size(limits::AGENT_CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ClusterError::broken)?;
        self.tasks.spawn("cluster-http2", |stop| async move {
            // Its end is seen by the streams that were open on it.
            drop(stop.run_until_cancelled(connection).await);
        });
        Ok(sender)
    }

    /// One request over HTTP/1.1; the connection ends with its answer.
    async fn send_alone(
        &self,
        stream: Box<Stream>,
        authority: &str,
        mut request: http::Request<Full<Bytes>>,
        is_long_running: bool,
    ) -> Result<ApiAnswer, ClusterError> {
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ClusterError::broken)?;
        self.tasks.spawn("cluster-http1", |stop| async move {
            drop(stop.run_until_cancelled(connection).await);
        });
        let malformed = |_error| ClusterError::Request("target is not a path with a query");
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(malformed)?;
        let host = http::HeaderValue::from_str(authority)
            .map_err(|_error| ClusterError::Request("has a malformed header"))?;
        request.headers_mut().insert(http::header::HOST, host);
        let response = sender
            .send_request(request)
            .await
            .map_err(ClusterError::broken)?;
        Ok(answer(response, None, is_long_running))
    }
}

fn answer(
    response: http::Response<Incoming>,
    place: Option<OwnedSemaphorePermit>,
    is_long_running: bool,
) -> ApiAnswer {
    let (head, incoming) = response.into_parts();
    ApiAnswer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: ApiBody::pooled(incoming, place, is_long_running),
    }
}

/// Lets the library start tasks that have an owner.
#[derive(Clone, Debug)]
struct Owned(Tasks);

impl<F> Executor<F> for Owned
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("cluster-http2-stream", |stop| async move {
            stop.run_until_cancelled(future).await;
        });
    }
}
