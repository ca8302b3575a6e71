//! Through proxies.
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sortie::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::{CA, account, kubeconfig, plan};
use crate::support::eventually::bounded;
use crate::support::fake::Client;
use crate::support::kube::Api;
use crate::support::socks::{BEHIND, Manner, SocksProxy};
use crate::support::stand::Stand;
use crate::support::testbed::{Cluster, Testbed};

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

/// A kubeconfig that names its API server as only `proxy` knows it, to whom it sends `login`.
fn behind(folder: &Path, cluster: &Cluster, name: &str, proxy: &SocksProxy, login: &str) -> String {
    let user = format!("    token: {}\n", cluster.token);
    let url = format!("socks5://{login}{}", proxy.address);
    let more = format!("{CA}    proxy-url: '{url}'\n    tls-server-name: 127.0.0.1\n");
    let path = kubeconfig(folder, name, cluster, &more, &user);
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace(
        "server: https://127.0.0.1:",
        &format!("server: https://{BEHIND}:"),
    );
    fs::write(&path, text).unwrap();
    account(name, &path, "")
}

#[tokio::test]
async fn an_account_behind_a_socks_proxy_is_served_by_a_name_that_only_the_proxy_knows() {
    let cluster = Testbed::shared().await.cluster();
    let folder = tempfile::tempdir().unwrap();
    let proxy = SocksProxy::start(Manner::Login("agent", "planted@:proxy")).await;
    let login = "agent:planted%40%3Aproxy@";
    let yaml = behind(folder.path(), cluster, "proxied", &proxy, login);
    let stand = Stand::start(plan(&[("proxied", yaml)])).await;
    stand.wait("proxied", "ACTIVE").await;

    let api = cluster.api();
    let namespace = api.namespace("socks").await;
    let services = format!("/api/v1/namespaces/{namespace}/services");
    let client = Client::read(&stand.kubeconfig("proxied", "visitor").await);
    let watched = format!("{}{services}?watch=1", client.path);
    let mut watch = Api::of(client.https()).watch(&watched).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "streamed" },
        "spec": { "clusterIP": "None" },
    });
    api.create(&services, &service).await;
    let event = bounded("the new object", watch.next()).await.unwrap();
    assert_eq!(event["object"]["metadata"]["name"], "streamed", "{event}");

    let asked = proxy.asked();
    assert!(
        !asked.is_empty() && asked.iter().all(|host| host == BEHIND),
        "{asked:?}"
    );
    let log = stand.agent.log();
    log.assert_without(&["planted", &cluster.token]);
}

#[tokio::test]
async fn what_a_socks_proxy_answers_in_place_of_a_connection_is_told() {
    let cluster = Testbed::shared().await.cluster();
    let folder = tempfile::tempdir().unwrap();
    let strict = SocksProxy::start(Manner::Login("agent", "right")).await;
    let closed = SocksProxy::start(Manner::Refuses(2)).await;
    let silent = SocksProxy::start(Manner::Silent).await;
    let http = SocksProxy::start(Manner::Says(b"HTTP/1.1 400 Bad Request\r\n\r\n")).await;
    let cases = [
        (
            "wrong-password",
            &strict,
            "agent:planted@",
            "does not accept the user and password of `proxy-url`",
        ),
        (
            "no-password",
            &strict,
            "",
            "`proxy-url` has no user and password",
        ),
        (
            "refused",
            &closed,
            "",
            "does not connect to the API server: its rules do not allow it (reply 2)",
        ),
        ("garbage", &http, "", "does not answer as a SOCKS 5 proxy"),
        ("silent", &silent, "", "did not give a connection within 5s"),
    ];
    let accounts = cases
        .map(|(name, proxy, login, _)| (name, behind(folder.path(), cluster, name, proxy, login)));
    let stand = Stand::joining(plan(&accounts)).await;
    for (name, _, _, told) in cases {
        stand.wait(name, "FAILED").await;
        let row = stand.account(name).await;
        assert_eq!(row["reason"], "ApiUnreachable", "{row}");
        let message = row["message"].as_str().unwrap();
        assert!(message.contains(told), "{message}\nnot: {told}");
        assert!(!message.contains("planted"), "{row}");
    }
    let log = stand.agent.log();
    log.assert_without(&["planted", &cluster.token]);
}
