//! A socket that leaves nothing old in the buffer it is read into.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Overwrites the free part of the caller's buffer before each read.
///
/// rustls decrypts in place and reads again into the same buffer: without this, the tail of an
/// earlier record stays readable for as long as the connection is idle. A watch that waits has a
/// read pending, so its buffer is clean.
pub(super) struct Wiped<Io>(Io);

impl<Io> Wiped<Io> {
    pub(super) const fn new(io: Io) -> Self {
        Self(io)
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Wiped<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buffer.initialize_unfilled().fill(0);
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Wiped<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_pending_read_has_already_overwritten_what_was_there() {
        let (near, _far) = tokio::io::duplex(16);
        let mut wiped = Wiped::new(near);
        let mut old = *b"planted-value-of-an-earlier-record";
        let pending = poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut old);
            Poll::Ready(Pin::new(&mut wiped).poll_read(cx, &mut buffer).is_pending())
        });
        assert!(pending.await);
        assert!(old.iter().all(|byte| *byte == 0));
    }
}
