//! Bodies: reading requests into wiped memory, and answers in pieces.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt as _};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::limits::REQUEST_BODY_BYTES;
use crate::secret::Buffer;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Bytes of an answer that are put together before they are sent.
const PIECE_BYTES: usize = 64 * 1024;

/// A body that ends early. The client sees the connection or its stream cut.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BodyError {
    /// The cluster's answer broke off.
    #[error("the cluster's answer broke off")]
    BrokenOff,
    /// The hub stops, or does not let the client have more of it.
    #[error("the answer was ended early")]
    Ended,
    /// The agent met something it could not filter.
    #[error("the cluster's answer could not be filtered")]
    Unfilterable,
}

/// A whole body.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that is passed on as it comes.
pub(super) fn streamed<S>(pieces: S) -> Body
where
    S: Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
{
    // hyper was seen to poll a body again after its end.
    StreamBody::new(pieces.fuse().map(|piece| piece.map(Frame::data))).boxed_unsync()
}

/// A body that ends with `ends`; with an error, if what it was cut off from is missed.
pub(super) fn until<E>(body: Body, ends: E, is_missed: bool) -> Body
where
    E: Future<Output = ()> + Send + 'static,
{
    let cut = CancellationToken::new();
    let cutting = cut.clone();
    let pieces = body.into_data_stream().take_until(async move {
        ends.await;
        cutting.cancel();
    });
    let end = stream::once(async move {
        let is_cut = is_missed && cut.is_cancelled();
        is_cut.then_some(Err(BodyError::Ended))
    });
    streamed(pieces.chain(end.filter_map(std::future::ready)))
}

/// A body written by `write` until it says that it is done, a piece at a time.
pub(super) fn written<W>(write: W) -> Body
where
    W: FnMut(&mut BytesMut) -> Written + Send + 'static,
{
    let pieces = stream::unfold(Some(write), |writer| async move {
        let mut write = writer?;
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        while piece.len() < PIECE_BYTES {
            if write(&mut piece) == Written::Everything {
                return Some((Ok(piece.freeze()), None));
            }
        }
        Some((Ok(piece.freeze()), Some(write)))
    });
    streamed(pieces)
}

/// Whether there is more to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Everything,
    More,
}

/// Why a request's body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CollectError {
    TooLarge,
    BrokenOff,
}

/// Reads a request's body, at most [`REQUEST_BODY_BYTES`], into memory that is wiped.
pub(super) async fn collect<B>(body: B) -> Result<Zeroizing<Vec<u8>>, CollectError>
where
    B: http_body::Body<Data = Bytes> + Send,
{
    if body.size_hint().lower() > REQUEST_BODY_BYTES as u64 {
        return Err(CollectError::TooLarge);
    }
    let mut body = std::pin::pin!(body);
    let mut buffer = Buffer::new(REQUEST_BODY_BYTES);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_cut| CollectError::BrokenOff)?;
        if let Some(bytes) = frame.data_ref()
            && !buffer.push(bytes)
        {
            return Err(CollectError::TooLarge);
        }
    }
    Ok(Zeroizing::new(buffer.filled().to_vec()))
}
