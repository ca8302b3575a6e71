//! A small HTTP server for health and metrics.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Accepting;
use crate::tasks::Tasks;

/// Connections served at once.
const CONNECTIONS: usize = 32;

/// Time to send a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers a path with a status, a content type and a body.
pub(super) type Answer = Arc<dyn Fn(&str) -> (StatusCode, &'static str, String) + Send + Sync>;

/// Serves GET requests on `listener`, which the log calls `door`, until `tasks` stop.
pub(super) fn serve(tasks: &Tasks, door: &'static str, listener: TcpListener, answer: Answer) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let owner = tasks.clone();
    tasks.spawn("http", move |stop| async move {
        let mut accepting = Accepting::at(door);
        let serving = async {
            loop {
                let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
                    return;
                };
                let accepted = listener.accept().await;
                let Some((socket, _)) = accepting.take(accepted).await else {
                    continue;
                };
                let answer = Arc::clone(&answer);
                owner.spawn("http-connection", move |stop| async move {
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let response = respond(&answer, &request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let serving = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(REQUEST_TIMEOUT)
                        .serve_connection(TokioIo::new(socket), service);
                    let _ended = stop.run_until_cancelled(serving).await;
                    drop(permit);
                });
            }
        };
        let _stopped = stop.run_until_cancelled(serving).await;
    });
}

fn respond(answer: &Answer, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, kind, body) = if request.method() == http::Method::GET {
        answer(request.uri().path())
    } else {
        (
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "only GET\n".to_owned(),
        )
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static(kind),
    );
    response
}
