//! Our own HTTP/1.1 client for answers that hold secrets.
//!
//! ```text
//! socket ──Wiped (zeroes the target first)──▶ rustls ──▶ raw Buffer ──unchunk──▶ caller's Buffer
//! ```
//! Every buffer on the way is wiped: rustls decrypts inside the buffer that it reads into, and that
//! buffer is zeroed before the next read; what it hands out lands in [`Buffer`]s only.
//!
//! One connection per request, identity encoding, no upgrade, no retry.

mod chunked;
mod head;
mod io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub use self::chunked::{Chunked, Step as ChunkStep};
pub(super) use self::head::HEAD_BYTES;
pub use self::head::{Framing, Head, parse as parse_head};
use self::io::Wiped;
use super::body::fill;
use super::connect::Connector;
use super::link::Link;
use super::request::Checked;
use super::{ApiAnswer, ApiBody, ClusterError};
use crate::secret::Buffer;

type Stream = Link<Wiped<TcpStream>>;

/// Interim answers (1xx) that are skipped before the real one.
const INTERIM: usize = 4;

/// The body of an answer on its own connection.
pub(super) struct Body {
    stream: Stream,
    /// Received and not decoded.
    raw: Buffer,
    framing: Framing,
}

/// Sends a request on a connection of its own and reads the head of the answer.
pub(super) async fn send(
    connector: &Connector,
    request: Checked,
) -> Result<ApiAnswer, ClusterError> {
    let is_long_running = request.long_running;
    let mut stream = connector.connect(Wiped::new).await?;
    write(&mut stream, request).await?;
    let mut raw = Buffer::new(HEAD_BYTES);
    let head = read_head(&mut stream, &mut raw).await?;
    let body = Body {
        stream,
        raw,
        framing: head.framing,
    };
    Ok(ApiAnswer {
        status: head.status,
        headers: head.headers,
        body: ApiBody::wiping(Box::new(body), is_long_running),
    })
}

async fn write(stream: &mut Stream, request: Checked) -> Result<(), ClusterError> {
    let head = head::write(&request);
    let body = request.body;
    let writing = async {
        stream.write_all(&head).await?;
        if let Some(body) = &body {
            stream.write_all(body).await?;
        }
        stream.flush().await
    };
    writing.await.map_err(ClusterError::broken)
}

async fn read_head(stream: &mut Stream, raw: &mut Buffer) -> Result<Head, ClusterError> {
    let mut interim = 0;
    loop {
        match head::parse(raw.filled())? {
            Some((head, length)) if (100..200).contains(&head.status) => {
                interim += 1;
                if head.status == 101 || interim > INTERIM {
                    return Err(ClusterError::Protocol(
                        "switches protocols without being asked",
                    ));
                }
                raw.consume(length);
            }
            Some((head, length)) => {
                raw.consume(length);
                return Ok(head);
            }
            None => {
                receive(stream, raw, "closed the connection before its answer").await?;
            }
        }
    }
}

/// Receives at least one byte. Cancel-safe: a byte that was received is in `raw`.
async fn receive(
    stream: &mut Stream,
    raw: &mut Buffer,
    at_end: &'static str,
) -> Result<(), ClusterError> {
    let space = raw.space();
    if space.is_empty() {
        return Err(ClusterError::TooLarge {
            what: "the head of the answer",
            max: HEAD_BYTES,
        });
    }
    let read = stream.read(space).await.map_err(ClusterError::broken)?;
    raw.advance(read);
    if read == 0 {
        return Err(ClusterError::Protocol(at_end));
    }
    Ok(())
}

impl Body {
    /// As [`ApiBody::read`]; `into` has space.
    pub(super) async fn read(&mut self, into: &mut Buffer) -> Result<usize, ClusterError> {
        loop {
            let moved = self.decode(into)?;
            if moved > 0 || matches!(self.framing, Framing::Done) {
                return Ok(moved);
            }
            if matches!(self.framing, Framing::UntilClose) {
                let space = self.raw.space();
                let read = self
                    .stream
                    .read(space)
                    .await
                    .map_err(ClusterError::broken)?;
                self.raw.advance(read);
                if read == 0 {
                    self.framing = Framing::Done;
                }
            } else {
                let broke_off = "broke off its answer";
                receive(&mut self.stream, &mut self.raw, broke_off).await?;
            }
        }
    }

    /// Moves body bytes that are already here; 0 if there are none, or no more.
    fn decode(&mut self, into: &mut Buffer) -> Result<usize, ClusterError> {
        match &mut self.framing {
            Framing::Done => Ok(0),
            Framing::UntilClose => {
                let moved = fill(into, self.raw.filled());
                self.raw.consume(moved);
                Ok(moved)
            }
            Framing::Length(left) => {
                let here = self.raw.filled();
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(here.len());
                let moved = fill(into, here.get(..wanted).unwrap_or_default());
                self.raw.consume(moved);
                *left = left.saturating_sub(moved as u64);
                if *left == 0 {
                    self.framing = Framing::Done;
                }
                Ok(moved)
            }
            Framing::Chunked(chunked) => {
                let step = chunked.step(self.raw.filled())?;
                match step {
                    ChunkStep::More { skip } => {
                        self.raw.consume(skip);
                        Ok(0)
                    }
                    ChunkStep::Data { skip, length } => {
                        self.raw.consume(skip);
                        let data = self.raw.filled().get(..length).unwrap_or_default();
                        let moved = fill(into, data);
                        self.raw.consume(moved);
                        chunked.taken(moved);
                        Ok(moved)
                    }
                    ChunkStep::End => {
                        self.framing = Framing::Done;
                        Ok(0)
                    }
                }
            }
        }
    }
}
