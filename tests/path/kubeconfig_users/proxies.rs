//! Through proxies.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sortie::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::{CA, account, kubeconfig, plan};
use crate::support::stand::Stand;
use crate::support::testbed::Testbed;

/// A proxy that connects those who know its password, until it is dropped.
struct ConnectProxy {
    address: SocketAddr,
    tunnels: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl ConnectProxy {
    async fn start(user: &str) -> Self {
        let wanted = format!("proxy-authorization: Basic {}\r\n", STANDARD.encode(user));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, tunnels) = (Tasks::new(), Arc::new(AtomicUsize::new(0)));
        let (connections, count) = (tasks.clone(), Arc::clone(&tunnels));
        tasks.spawn("proxy", move |stop| async move {
            while let Some(Ok((socket, _))) = stop.run_until_cancelled(listener.accept()).await {
                let (wanted, count) = (wanted.clone(), Arc::clone(&count));
                connections.spawn("tunnel", move |stop| async move {
                    let tunnel = tunnel(socket, &wanted, &count);
                    drop(stop.run_until_cancelled(tunnel).await);
                });
            }
        });
        Self {
            address,
            tunnels,
            tasks,
        }
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn tunnel(mut socket: TcpStream, wanted: &str, count: &AtomicUsize) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    if !head.contains(wanted) {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
        return socket.write_all(refusal).await;
    }
    let target = head.strip_prefix("CONNECT ").unwrap();
    let (target, _) = target.split_once(' ').unwrap();
    let mut server = TcpStream::connect(target).await?;
    socket
        .write_all(b"HTTP/1.1 200 Connected\r\nvia: test\r\n\r\n")
        .await?;
    count.fetch_add(1, Ordering::Relaxed);
    copy_bidirectional(&mut socket, &mut server).await?;
    Ok(())
}

#[tokio::test]
async fn an_account_is_reached_through_a_proxy_that_wants_a_password() {
    let cluster = Testbed::shared().await.cluster();
    let folder = tempfile::tempdir().unwrap();
    let proxy = ConnectProxy::start("agent:planted@proxy").await;
    let user = format!("    token: {}\n", cluster.token);
    let through = |name: &str, password: &str| {
        let url = format!("http://agent:{password}@{}", proxy.address);
        let more = format!("{CA}    proxy-url: '{url}'\n");
        let path = kubeconfig(folder.path(), name, cluster, &more, &user);
        (name.to_owned(), account(name, &path, ""))
    };
    let (good, bad) = (
        through("proxied", "planted%40proxy"),
        through("refused", "planted"),
    );
    let stand = Stand::joining(plan(&[("proxied", good.1), ("refused", bad.1)])).await;
    stand.wait("proxied", "ACTIVE").await;
    assert!(proxy.tunnels.load(Ordering::Relaxed) >= 1);
    stand.wait("refused", "FAILED").await;
    let row = stand.account("refused").await;
    assert_eq!(row["reason"], "ApiUnreachable", "{row}");
    let message = row["message"].as_str().unwrap();
    assert!(
        message.contains("does not accept the user and password"),
        "{row}"
    );
    assert!(!message.contains("planted"), "{row}");
    stand
        .agent
        .log()
        .assert_without(&["planted", &cluster.token]);
}
