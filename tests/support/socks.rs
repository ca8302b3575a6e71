//! A SOCKS 5 proxy (RFC 1928, RFC 1929).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use sortie::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// The one name that a [`SocksProxy`] can resolve, as nobody else can: it stands for this machine.
pub(crate) const BEHIND: &str = "api.behind-the-proxy.invalid";

/// How a [`SocksProxy`] treats who comes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Connects who knows user and password.
    Login(&'static str, &'static str),
    /// Wants no login and answers every request with this reply.
    Refuses(u8),
    /// Says this to everybody.
    Says(&'static [u8]),
    /// Says nothing.
    Silent,
}

/// A proxy that lives until it is dropped.
pub(crate) struct SocksProxy {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    tasks: Tasks,
}

impl SocksProxy {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, asked) = (Tasks::new(), Arc::default());
        let (connections, shared) = (tasks.clone(), Arc::clone(&asked));
        tasks.spawn("socks", move |stop| async move {
            while let Some(Ok((socket, _))) = stop.run_until_cancelled(listener.accept()).await {
                let asked = Arc::clone(&shared);
                connections.spawn("socks-tunnel", move |stop| async move {
                    let tunnel = tunnel(socket, manner, &asked);
                    drop(stop.run_until_cancelled(tunnel).await);
                });
            }
        });
        Self {
            address,
            asked,
            tasks,
        }
    }

    /// The hosts to which it was asked to connect, as they were written.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for SocksProxy {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn tunnel(
    mut socket: TcpStream,
    manner: Manner,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let version = socket.read_u8().await?;
    let ways = field(&mut socket).await?;
    match manner {
        Manner::Says(words) => return socket.write_all(words).await,
        Manner::Silent => return std::future::pending().await,
        Manner::Login(..) | Manner::Refuses(_) => {}
    }
    assert_eq!(version, 5);
    let wanted = if matches!(manner, Manner::Login(..)) {
        2
    } else {
        0
    };
    if !ways.contains(&wanted) {
        return socket.write_all(&[5, 0xff]).await;
    }
    socket.write_all(&[5, wanted]).await?;
    if let Manner::Login(user, password) = manner {
        assert_eq!(socket.read_u8().await?, 1);
        let shown = (field(&mut socket).await?, field(&mut socket).await?);
        let knows = shown == (user.as_bytes().to_vec(), password.as_bytes().to_vec());
        socket.write_all(&[1, u8::from(!knows)]).await?;
        if !knows {
            return Ok(());
        }
    }
    let mut head = [0; 4];
    socket.read_exact(&mut head).await?;
    let host = match head {
        [5, 1, 0, 1] => std::net::Ipv4Addr::from(socket.read_u32().await?).to_string(),
        [5, 1, 0, 3] => String::from_utf8(field(&mut socket).await?).unwrap(),
        _ => panic!("not a request that is used: {head:?}"),
    };
    let port = socket.read_u16().await?;
    asked.lock().unwrap().push(host.clone());
    if let Manner::Refuses(reply) = manner {
        return socket.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    }
    let target = if host == BEHIND { "127.0.0.1" } else { &host };
    let mut server = TcpStream::connect((target, port)).await?;
    // Where it connects from, which it tells by a name.
    socket
        .write_all(b"\x05\x00\x00\x03\x05proxy\x10\x92")
        .await?;
    copy_bidirectional(&mut socket, &mut server).await?;
    Ok(())
}

/// Bytes behind their number.
async fn field(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(socket.read_u8().await?)];
    socket.read_exact(&mut bytes).await?;
    Ok(bytes)
}
