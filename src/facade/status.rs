//! Refusals and failures as `Status` objects.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::{self, Body, CollectError};
use super::port::{Refusal, UpstreamError};
use crate::view::SelectorError;

/// A refusal or failure that is answered with a `Status`.
///
/// Sources: Kubernetes API reference, `Status`; `StatusReason` of apimachinery.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) code: StatusCode,
    reason: &'static str,
    message: String,
    field: Option<String>,
}

impl Failure {
    const fn new(code: StatusCode, reason: &'static str, message: String) -> Self {
        Self {
            code,
            reason,
            message,
            field: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message.into())
    }

    pub(super) fn unauthorized() -> Self {
        let message = "a client certificate of this hub is required".to_owned();
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message.into())
    }

    /// The words of an API server for a path that it does not know.
    pub(super) fn unknown_path() -> Self {
        let message = "the server could not find the requested resource".to_owned();
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub(super) fn no_account() -> Self {
        let message = "no such account; `sortie get accounts` lists them";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message.to_owned())
    }

    /// The words of an API server for an object that it does not have.
    pub(super) fn no_object(resource: &str, group: &str, name: &str) -> Self {
        let dot = if group.is_empty() { "" } else { "." };
        let message = format!("{resource}{dot}{group} \"{name}\" not found");
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource; \
                       an entry of the account's `operations` in agent.yaml would";
        let code = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(code, "MethodNotAllowed", message.to_owned())
    }

    pub(super) fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json";
        let code = StatusCode::NOT_ACCEPTABLE;
        Self::new(code, "NotAcceptable", message.to_owned())
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        let code = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(code, "ServiceUnavailable", message.into())
    }

    pub(super) fn expired() -> Self {
        let message = "too old resource version: what happened since is no longer known";
        Self::new(StatusCode::GONE, "Expired", message.to_owned())
    }

    /// The `Status` object.
    pub(super) fn status(&self) -> Value {
        let causes = self.field.iter().map(|field| {
            json!({
                "reason": "FieldValueInvalid",
                "message": self.message,
                "field": field,
            })
        });
        let causes: Vec<Value> = causes.collect();
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if let (Value::Object(status), false) = (&mut status, causes.is_empty()) {
            status.insert("details".into(), json!({ "causes": causes }));
        }
        status
    }

    /// The message alone.
    pub(super) fn text_response(&self) -> Response<Body> {
        let text = body::whole(self.message.clone());
        respond(self.code, "text/plain; charset=utf-8", text)
    }

    pub(super) fn response(&self) -> Response<Body> {
        json_response(self.code, self.status().to_string())
    }
}

impl From<SelectorError> for Failure {
    fn from(error: SelectorError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<CollectError> for Failure {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::TooLarge => {
                let message = "the request's body is larger than 3 MiB".to_owned();
                let code = StatusCode::PAYLOAD_TOO_LARGE;
                Self::new(code, "RequestEntityTooLarge", message)
            }
            CollectError::BrokenOff => Self::bad_request("the request's body broke off"),
        }
    }
}

/// What a client is told when there is no answer; the one place that decides it.
impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        let message = error.to_string();
        match error {
            UpstreamError::Away => Self::unavailable(message),
            UpstreamError::Busy => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
            }
            UpstreamError::Refused { kind, field, .. } => {
                let (code, reason) = match kind {
                    Refusal::Malformed => (StatusCode::BAD_REQUEST, "BadRequest"),
                    Refusal::MaskedContent => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
                    Refusal::NoAccount => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
                    Refusal::Policy => (StatusCode::FORBIDDEN, "Forbidden"),
                    Refusal::UnsupportedMediaType => {
                        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType")
                    }
                };
                Self {
                    field,
                    ..Self::new(code, reason, message)
                }
            }
            UpstreamError::TimedOut | UpstreamError::OutcomeUnknown => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
            }
            // `StatusReason` has no word for 502; clients show the code and the message.
            UpstreamError::Unfilterable => {
                Self::new(StatusCode::BAD_GATEWAY, "InternalError", message)
            }
        }
    }
}

/// A JSON answer.
pub(super) fn json_response(code: StatusCode, json: impl Into<String>) -> Response<Body> {
    let bytes = bytes::Bytes::from(json.into());
    respond(code, "application/json", body::whole(bytes))
}

/// An answer of a media type.
pub(super) fn respond(code: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
