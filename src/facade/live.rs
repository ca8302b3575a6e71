//! Requests that go to the cluster, and their answers on the way back.

use std::time::Duration;

use http::header::{
    ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT, WARNING,
};
use http::{Method, Response, StatusCode};
use zeroize::Zeroizing;

use super::body::{Body, streamed};
use super::port::{LiveAnswer, LiveRequest};

/// Request headers that an API server may know of; all others, credentials above all, stay here.
const FORWARDED: [HeaderName; 5] = [
    ACCEPT,
    CONTENT_TYPE,
    USER_AGENT,
    HeaderName::from_static("kubectl-command"),
    HeaderName::from_static("kubectl-session"),
];

/// Headers of an answer that the client gets.
const RETURNED: [HeaderName; 2] = [CONTENT_TYPE, WARNING];

/// A request for the cluster.
pub(super) fn request(
    method: &Method,
    target: String,
    headers: &HeaderMap,
    body: Zeroizing<Vec<u8>>,
    timeout: Duration,
) -> LiveRequest {
    LiveRequest {
        method: method.clone(),
        target,
        headers: only(headers, &FORWARDED),
        body,
        timeout,
    }
}

/// The answer as the client gets it.
pub(super) fn response(answer: LiveAnswer) -> Response<Body> {
    let mut response = Response::new(streamed(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = returned(&answer.headers);
    response
}

/// The headers of an answer that the client gets.
pub(super) fn returned(headers: &HeaderMap) -> HeaderMap {
    let mut kept = only(headers, &RETURNED);
    // kubectl repeats a read ten times when it is told to come back; writes are told to.
    if let Some(after) = headers.get(RETRY_AFTER) {
        kept.insert(RETRY_AFTER, after.clone());
    }
    kept
}

fn only(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in names {
        for value in headers.get_all(name) {
            kept.append(name, HeaderValue::clone(value));
        }
    }
    kept
}

/// Whether an answer to a read says that the cluster or the agent's credential is out of order,
/// rather than what there is.
pub(super) fn is_outage(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
        )
}
