//! Heads of requests and answers.

use std::fmt;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use zeroize::Zeroizing;

use super::chunked::Chunked;
use crate::cluster::ClusterError;
use crate::cluster::request::Checked;

/// Largest head of an answer, in bytes.
pub(in crate::cluster) const HEAD_BYTES: usize = 64 * 1024;

/// Most headers of an answer.
const HEADERS: usize = 100;

/// The head of an answer.
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// As they came.
    pub headers: HeaderMap,
    /// Where the body ends.
    pub framing: Framing,
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("status", &self.status)
            .field("framing", &self.framing)
            .finish_non_exhaustive()
    }
}

/// Where the body ends.
#[derive(Debug)]
pub enum Framing {
    /// With its last chunk.
    Chunked(Chunked),
    /// Here: there is none, or all of it was read.
    Done,
    /// After this many bytes more.
    Length(u64),
    /// With the connection.
    UntilClose,
}

/// The head of `request` as it is sent; holds the credential, so it is wiped.
pub(super) fn write(request: &Checked) -> Zeroizing<Vec<u8>> {
    let length = request.body.as_ref().map(|body| body.len());
    let needs_length = matches!(request.method, Method::POST | Method::PUT | Method::PATCH);
    let mut parts: Vec<&[u8]> = vec![
        request.method.as_str().as_bytes(),
        b" ",
        request.path.as_bytes(),
        b" HTTP/1.1\r\nhost: ",
        request.authority.as_bytes(),
        b"\r\n",
    ];
    for (name, value) in &request.headers {
        let line: [&[u8]; 4] = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
        parts.extend(line);
    }
    let length = length
        .or(needs_length.then_some(0))
        .map(|length| length.to_string());
    if let Some(length) = &length {
        let line: [&[u8]; 3] = [b"content-length: ", length.as_bytes(), b"\r\n"];
        parts.extend(line);
    }
    if !request.long_running {
        parts.push(b"connection: close\r\n");
    }
    parts.push(b"\r\n");
    Zeroizing::new(parts.concat()) // exact capacity: no copies left behind
}

/// Reads the head at the start of `bytes` and tells its length; none if it is not complete.
///
/// # Errors
/// What is not an HTTP/1.x head, has too many headers, or leaves the body's length open to
/// interpretation (RFC 9112 §6.3).
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, ClusterError> {
    let mut slots = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut slots);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(ClusterError::Protocol("sent too many headers"));
        }
        Err(_) => return Err(ClusterError::Protocol("did not answer in HTTP")),
    };
    let malformed = ClusterError::Protocol("did not answer in HTTP");
    let Some(status) = response.code else {
        return Err(malformed);
    };
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for line in response.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line.value)) else {
            return Err(malformed);
        };
        headers.append(name, value);
    }
    let head = Head {
        status,
        framing: framing(status, &headers)?,
        headers,
    };
    Ok(Some((head, length)))
}

fn framing(status: u16, headers: &HeaderMap) -> Result<Framing, ClusterError> {
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(ClusterError::Protocol(
            "compressed its answer without being asked",
        ));
    }
    if status < 200 || matches!(status, 204 | 304) {
        return Ok(Framing::Done);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::UntilClose),
        (Some(coding), None) => {
            let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            if !is_chunked || codings.next().is_some() {
                return Err(ClusterError::Protocol("used an unknown transfer coding"));
            }
            Ok(Framing::Chunked(Chunked::new()))
        }
        (None, Some(length)) if lengths.next().is_none() => {
            let text = length.to_str().unwrap_or_default();
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            match text.parse() {
                Ok(0) if is_number => Ok(Framing::Done),
                Ok(length) if is_number => Ok(Framing::Length(length)),
                _ => Err(ClusterError::Protocol("gave a length that is no number")),
            }
        }
        (_, Some(_)) => Err(ClusterError::Protocol("gave its length twice")),
    }
}
