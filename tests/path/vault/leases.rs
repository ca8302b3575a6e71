//! Secrets that the engine makes and lends: here, users of a message broker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sortie::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::support::eventually::eventually;

/// The management interface of a broker: it takes everything, and knows which users it has.
struct Broker {
    url: String,
    users: Arc<Mutex<Vec<String>>>,
    tasks: Tasks,
}

impl Broker {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (users, tasks) = (Arc::new(Mutex::new(Vec::new())), Tasks::new());
        let kept = Arc::clone(&users);
        tasks.spawn("broker", move |stop| async move {
            while let Some(Ok((socket, _))) = stop.run_until_cancelled(listener.accept()).await {
                let answered = answer(socket, &kept);
                drop(stop.run_until_cancelled(answered).await);
            }
        });
        Self { url, users, tasks }
    }

    fn users(&self) -> Vec<String> {
        self.users.lock().unwrap().clone()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn answer(mut socket: TcpStream, users: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !is_whole(&request) {
        if socket.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    if let Some(name) = path.strip_prefix("/api/users/") {
        let mut users = users.lock().unwrap();
        match method {
            "PUT" => users.push(name.to_owned()),
            "DELETE" => users.retain(|user| user != name),
            _ => {}
        }
    }
    let answer = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    socket.write_all(answer).await?;
    socket.shutdown().await
}

/// Whether the head and the body that it announces are there.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0_usize)
}

/// Lets the engine make users of the broker, each for a minute.
async fn enable_broker(bench: &Bench, broker: &Broker) {
    let bao = &bench.bao;
    bao.write("sys/mounts/rabbit", &json!({"type": "rabbitmq"}))
        .await;
    let connection = json!({
        "connection_uri": broker.url, "username": "admin", "password": "admin",
        "verify_connection": false,
    });
    bao.write("rabbit/config/connection", &connection).await;
    bao.write("rabbit/config/lease", &json!({"ttl": 60, "max_ttl": 120}))
        .await;
    bao.write(
        "rabbit/roles/reader",
        &json!({"vhosts": "{}", "tags": "monitoring"}),
    )
    .await;
}

fn password() -> Reference {
    Reference {
        key: Key::Named("password".to_owned()),
        ..reference("rabbit", "creds/reader")
    }
}

const LEND: &str = r#"path "rabbit/creds/*" { capabilities = ["read"] }"#;

#[tokio::test]
async fn what_was_lent_under_a_login_of_ours_is_given_back_with_it() {
    let (bench, broker) = (Bench::start().await, Broker::start().await);
    enable_broker(&bench, &broker).await;
    bench.bao.policy("reader", LEND).await;
    let proof = bench.enable_userpass(json!({"token_ttl": "30s"})).await;
    let vault = bench.with_login("userpass", proof);
    let first = fetch(&vault, &password()).await;
    // The lease is for a minute, but the login under which it was given for half of one.
    let lease = first.lease.as_ref().expect("it is lent").time;
    assert!(
        lease <= Duration::from_secs(30) && !lease.is_zero(),
        "{lease:?}"
    );
    assert_eq!(first.version, None);
    let second = fetch(&vault, &password()).await;
    assert_ne!(text(&first), text(&second));
    assert_eq!(broker.users().len(), 2);
    vault.close().await;
    eventually("the users are gone", || {
        broker.users().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_lent_to_a_token_from_a_file_is_given_back_and_the_token_stays() {
    let (bench, broker) = (Bench::start().await, Broker::start().await);
    enable_broker(&bench, &broker).await;
    let policy = format!("{LEND}\npath \"sys/leases/revoke\" {{ capabilities = [\"update\"] }}");
    bench.bao.policy("lent", &policy).await;
    let vault = bench.with_token(&["lent"]).await;
    let lent = fetch(&vault, &password()).await;
    let time = lent.lease.as_ref().map(|lease| lease.time);
    assert_eq!(time, Some(Duration::from_mins(1)));
    assert_eq!(broker.users().len(), 1);
    vault.close().await;
    eventually("the user is gone", || {
        broker.users().is_empty().then_some(())
    })
    .await;
    let token = read(&bench.folder.path().join("token"));
    let path = "auth/token/lookup-self";
    bench.bao.ask_as(&token, Method::GET, path).await.success();
}

#[tokio::test]
async fn what_was_lent_stays_when_another_login_follows() {
    let (bench, broker) = (Bench::start().await, Broker::start().await);
    enable_broker(&bench, &broker).await;
    bench.bao.policy("reader", LEND).await;
    let proof = bench.enable_userpass(json!({})).await;
    let vault = bench.with_login("userpass", proof);
    let _first = fetch(&vault, &password()).await;
    // Denied: it logs in again, and may not end what the first login holds.
    refused(&vault, &reference("kv", "shop")).await;
    let _second = fetch(&vault, &password()).await;
    assert_eq!(broker.users().len(), 2);
    vault.close().await;
    eventually("the users are gone", || {
        broker.users().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_lent_is_given_back_when_it_is_over_where_the_policy_allows_it() {
    let (bench, broker) = (Bench::start().await, Broker::start().await);
    enable_broker(&bench, &broker).await;
    let policy = format!("{LEND}\npath \"sys/leases/revoke\" {{ capabilities = [\"update\"] }}");
    bench.bao.policy("reader", &policy).await;
    let proof = bench.enable_userpass(json!({})).await;
    for vault in [
        bench.with_login("userpass", proof),
        bench.with_token(&["reader"]).await,
    ] {
        let superseded = fetch(&vault, &password()).await;
        let before = broker.users();
        let in_use = fetch(&vault, &password()).await;
        drop(superseded);
        eventually("the user is gone that is not used", || {
            let users = broker.users();
            let is_gone = users.iter().all(|user| !before.contains(user));
            (users.len() == 1 && is_gone).then_some(())
        })
        .await;
        vault.close().await;
        eventually("the other one is gone as well", || {
            broker.users().is_empty().then_some(())
        })
        .await;
        drop(in_use);
    }
}
