//! The body of an answer, read in steps into a buffer that wipes itself.

use std::fmt;

use bytes::{Buf, Bytes};
use futures_util::FutureExt as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::ClusterError;
use super::wiping;
use crate::limits;
use crate::secret::Buffer;

/// The body of an answer. Dropping it closes its stream or connection.
pub struct ApiBody {
    source: Body,
    is_long_running: bool,
}

enum Body {
    Pooled {
        incoming: Incoming,
        /// What the last frame brought and the buffer had no space for.
        rest: Bytes,
        /// The stream's place on its connection; none over HTTP/1.1.
        _place: Option<OwnedSemaphorePermit>,
    },
    Wiping(Box<wiping::Body>),
}

impl ApiBody {
    pub(super) const fn pooled(
        incoming: Incoming,
        place: Option<OwnedSemaphorePermit>,
        is_long_running: bool,
    ) -> Self {
        Self {
            source: Body::Pooled {
                incoming,
                rest: Bytes::new(),
                _place: place,
            },
            is_long_running,
        }
    }

    pub(super) const fn wiping(body: Box<wiping::Body>, is_long_running: bool) -> Self {
        Self {
            source: Body::Wiping(body),
            is_long_running,
        }
    }

    /// Reads some bytes into `into` and tells how many; 0 is the end of the body.
    ///
    /// Cancel-safe: what has been received is either in `into` or still here.
    ///
    /// # Errors
    /// A body that breaks off or breaks the protocol; [`ClusterError::TooLarge`] if `into` is full
    /// to its cap; no byte within [`limits::ANSWER_TIMEOUT`] unless the request was long-running.
    pub async fn read(&mut self, into: &mut Buffer) -> Result<usize, ClusterError> {
        if into.is_full() {
            return Err(ClusterError::TooLarge {
                what: "the answer",
                max: into.len(),
            });
        }
        let reading = async {
            match &mut self.source {
                Body::Pooled { incoming, rest, .. } => read_frames(incoming, rest, into).await,
                Body::Wiping(body) => body.read(into).await,
            }
        };
        if self.is_long_running {
            return reading.await;
        }
        timeout(limits::ANSWER_TIMEOUT, reading)
            .await
            .unwrap_or(Err(ClusterError::TimedOut {
                what: "more of its answer",
                after: limits::ANSWER_TIMEOUT,
            }))
    }
}

async fn read_frames(
    incoming: &mut Incoming,
    rest: &mut Bytes,
    into: &mut Buffer,
) -> Result<usize, ClusterError> {
    while rest.is_empty() {
        let frame = if let Some(frame) = incoming.frame().now_or_never() {
            frame
        } else {
            // Most watches wait most of the time, and an agent may have thousands of them.
            into.release();
            incoming.frame().await
        };
        let Some(frame) = frame else { return Ok(0) };
        // Trailers say nothing that is used.
        if let Ok(data) = frame.map_err(ClusterError::broken)?.into_data() {
            *rest = data;
        }
    }
    let count = fill(into, rest);
    rest.advance(count);
    if rest.is_empty() {
        // Even an empty rest keeps the whole block that its frame was received in.
        *rest = Bytes::new();
    }
    Ok(count)
}

/// Copies as much of `from` as there is space for at once.
pub(super) fn fill(into: &mut Buffer, from: &[u8]) -> usize {
    let space = into.space();
    let count = space.len().min(from.len());
    if let (Some(to), Some(from)) = (space.get_mut(..count), from.get(..count)) {
        to.copy_from_slice(from);
    }
    into.advance(count);
    count
}

impl fmt::Debug for ApiBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Body::Pooled { .. } => "ApiBody(pooled)",
            Body::Wiping(_) => "ApiBody(wiping)",
        })
    }
}
