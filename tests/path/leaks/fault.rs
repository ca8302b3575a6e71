//! An engine that answers as it is told: whatever is wrong about an answer, and a planted value in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use sortie::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::pki::{self, Authority, Leaf};

/// Largest head of a request, in bytes.
const HEAD_BYTES: usize = 64 * 1024;

/// What the server does when a path is asked for.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// Writes this and closes.
    Bytes(Vec<u8>),
    /// Writes the first and then the second again and again, until nobody reads.
    Endless(Vec<u8>, Vec<u8>),
    /// Writes this and nothing more, for as long as the connection is open.
    Hang(Vec<u8>),
}

impl Reply {
    pub(super) fn json(status: u16, body: &str) -> Self {
        Self::of(status, "content-type: application/json\r\n", body)
    }

    pub(super) fn of(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n");
        Self::Bytes(format!("{head}connection: close\r\n\r\n{body}").into_bytes())
    }
}

/// The server; it ends when this is dropped.
pub(super) struct Fault {
    pub(super) address: SocketAddr,
    tasks: Tasks,
}

impl Fault {
    /// Answers each path (without its query) as `replies` says; 404 for others.
    pub(super) async fn start(authority: &Authority, replies: BTreeMap<String, Reply>) -> Self {
        let tls = pki::server_config(&authority.issue(&Leaf::server()), &[]);
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (tasks, replies) = (Tasks::new(), Arc::new(replies));
        let connections = tasks.clone();
        tasks.spawn("fault", move |stop| async move {
            while let Some(Ok((socket, _))) = stop.run_until_cancelled(listener.accept()).await {
                let (acceptor, replies) = (acceptor.clone(), Arc::clone(&replies));
                connections.spawn("fault-connection", move |stop| async move {
                    let serving = serve(&acceptor, socket, &replies);
                    // Who is served badly goes away in many ways.
                    let _ended = stop.run_until_cancelled(serving).await;
                });
            }
        });
        Self { address, tasks }
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn serve(
    acceptor: &TlsAcceptor,
    socket: TcpStream,
    replies: &BTreeMap<String, Reply>,
) -> std::io::Result<()> {
    let mut stream = acceptor.accept(socket).await?;
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head);
    let target = text.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let missing = Reply::json(404, r#"{"errors":[]}"#);
    match replies.get(path).unwrap_or(&missing) {
        Reply::Bytes(bytes) => {
            stream.write_all(bytes).await?;
            stream.shutdown().await
        }
        Reply::Endless(first, then) => {
            stream.write_all(first).await?;
            loop {
                stream.write_all(then).await?;
            }
        }
        Reply::Hang(bytes) => {
            stream.write_all(bytes).await?;
            stream.flush().await?;
            while stream.read_u8().await.is_ok() {}
            Ok(())
        }
    }
}
