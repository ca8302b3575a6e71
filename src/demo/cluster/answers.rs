//! Bodies and media types: reading requests, writing answers.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::discovery;
use super::objects::PatchForm;
use super::refusal::Refusal;
use crate::limits::REQUEST_BODY_BYTES;

/// The body of an answer.
pub(super) type Body = BoxBody<Bytes, Infallible>;

/// Reads a request body up to the API server's own limit.
pub(super) async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    let collected = Limited::new(body, REQUEST_BODY_BYTES).collect().await;
    let collected =
        collected.map_err(|_too_long_or_broken| Refusal::too_large(REQUEST_BODY_BYTES))?;
    Ok(collected.to_bytes())
}

pub(super) fn parse(headers: &HeaderMap, body: &Bytes) -> Result<Value, Refusal> {
    match media_type(headers) {
        "" | "application/json" => parse_json(body),
        _ => Err(Refusal::unsupported_media()),
    }
}

pub(super) fn parse_json(body: &Bytes) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|_malformed| Refusal::bad_request("the body is not JSON"))
}

pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let said = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    said.unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
}

pub(super) fn patch_form(headers: &HeaderMap) -> Result<PatchForm, Refusal> {
    match media_type(headers) {
        // kubectl's apply patch is JSON, which is YAML too.
        "application/apply-patch+yaml" => Ok(PatchForm::Apply),
        "application/json-patch+json" => Ok(PatchForm::Json),
        "application/merge-patch+json" => Ok(PatchForm::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchForm::Strategic),
        _ => Err(Refusal::unsupported_media()),
    }
}

/// The aggregated discovery form that is asked for, if any.
pub(super) fn aggregated_form(headers: &HeaderMap) -> Option<&'static str> {
    let accepted = headers.get(ACCEPT)?.to_str().ok()?;
    let asks = |form: &str| {
        accepted.split(',').any(|one| {
            let mut parameters = one.split(';').map(str::trim);
            parameters.clone().any(|p| p == "as=APIGroupDiscoveryList")
                && parameters.any(|p| p.strip_prefix("v=") == Some(form))
        })
    };
    ["v2", "v2beta1"].into_iter().find(|form| asks(form))
}

pub(super) fn aggregated_answer(core: bool, form: &'static str) -> Response<Body> {
    let media = format!("application/json;g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList");
    let body = discovery::aggregated(core, form).to_string();
    answer(StatusCode::OK, &media, Full::new(body.into()).boxed())
}

pub(super) fn json_answer(code: StatusCode, value: &Value) -> Response<Body> {
    answer(
        code,
        "application/json",
        Full::new(value.to_string().into()).boxed(),
    )
}

pub(super) fn text_answer(text: &str) -> Response<Body> {
    let body = Full::new(text.to_owned().into()).boxed();
    answer(StatusCode::OK, "text/plain", body)
}

pub(super) fn answer(code: StatusCode, media: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    if let Ok(media) = media.parse() {
        response.headers_mut().insert(CONTENT_TYPE, media);
    }
    response
}

/// How the client names itself.
pub(super) fn agent_of(headers: &HeaderMap) -> &str {
    let said = headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok());
    said.unwrap_or_default()
}
