//! The listener: TCP, TLS, HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::api::Api;
use crate::limits::HANDSHAKE_TIMEOUT;
use crate::retry::pause_unless;
use crate::tasks::Tasks;

/// Connections open at once; further ones wait to be accepted.
const CONNECTIONS: usize = 512;

/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Streams per HTTP/2 connection, as kube-apiserver allows.
const STREAMS: u32 = 100;

/// Runs what hyper starts as tasks of the cluster.
#[derive(Clone, Debug)]
struct OnTasks(Tasks);

impl<Fut> Executor<Fut> for OnTasks
where
    Fut: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: Fut) {
        self.0.spawn("cluster-stream", |stop| async move {
            // A stop drops the request; its client sees the connection end.
            let _stopped = stop.run_until_cancelled(future).await;
        });
    }
}

/// Accepts connections until stopped.
pub(super) async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    api: Arc<Api>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = stop.run_until_cancelled(next(&listener, &places)).await;
        let Some(accepted) = accepted else {
            return;
        };
        let Some((socket, place)) = accepted else {
            // Out of descriptors, say: trying again at once would only burn the processor.
            pause_unless(&stop, ACCEPT_PAUSE).await;
            continue;
        };
        let (tls, api) = (tls.clone(), Arc::clone(&api));
        api.tasks
            .clone()
            .spawn("cluster-connection", |stop| async move {
                // A stop cuts the connection.
                let _stopped = stop.run_until_cancelled(serve(socket, tls, api)).await;
                drop(place);
            });
    }
}

async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    let (socket, _) = listener.accept().await.ok()?;
    Some((socket, place))
}

async fn serve(socket: TcpStream, tls: TlsAcceptor, api: Arc<Api>) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "embedded cluster could not set a socket option");
    }
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(socket)).await;
    let Ok(Ok(stream)) = handshake else {
        return;
    };
    let mut builder = auto::Builder::new(OnTasks(api.tasks.clone()));
    builder.http1().timer(TokioTimer::new());
    builder.http2().max_concurrent_streams(STREAMS);
    let service = service_fn(|request: Request<Incoming>| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    if let Err(error) = builder
        .serve_connection(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(%error, "embedded cluster connection ended");
    }
}
