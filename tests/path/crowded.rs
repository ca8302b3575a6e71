//! Many connections from one address: they wait for a turn, and others do not notice.
#![expect(clippy::expect_used, reason = "helpers of tests fail their test")]

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use rustls::{ClientConfig, HandshakeKind};
use sortie::limits;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::fake::{Client, Fake, shake, shake_over};
use crate::support::sortie::{Sortie, http_get};
use crate::support::stand;

/// A hub and what gets into its facade.
async fn facade() -> (Sortie, SocketAddr, Arc<ClientConfig>) {
    let hub = stand::hub("24h").await;
    let agent = Fake::enrol(&hub, "lab", &["lab"]).await;
    let mut session = agent.hello(1).await.expect("a session");
    session.offer("lab", "uid-1").await;
    let client = Client::read(&stand::kubeconfig(&hub, "lab", "visitor").await);
    let address = hub.address("facade").await;
    (hub, address, Arc::new(client.tls(&[b"h2"])))
}

/// Takes every turn of this address, and says nothing.
async fn crowd(facade: SocketAddr) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..limits::HANDSHAKES_PER_ADDRESS {
        silent.push(TcpStream::connect(facade).await.expect("it listens"));
    }
    silent
}

async fn crowded(hub: &Sortie) -> String {
    let metrics = hub.address("metrics").await;
    let metrics = http_get(metrics, "/metrics").await.expect("metrics");
    let name = "sortie_hub_handshakes_total{door=\"facade\",outcome=\"crowded\"} ";
    let told = metrics.lines().find_map(|line| line.strip_prefix(name));
    told.unwrap_or("0").to_owned()
}

#[tokio::test]
async fn who_comes_to_a_crowded_door_waits_for_a_turn_and_another_address_does_not() {
    let (hub, facade, config) = facade().await;
    let mut silent = crowd(facade).await;
    let mut late = pin!(shake(facade, &config));
    let elsewhere = async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let tcp = socket.connect(facade).await.unwrap();
        shake_over(tcp, &config).await
    };
    let elsewhere = tokio::select! {
        biased;
        early = &mut late => panic!("it did not wait: {early:?}"),
        elsewhere = elsewhere => elsewhere,
    };
    assert_eq!(elsewhere, Ok(HandshakeKind::Full));
    drop(silent.pop());
    assert_eq!(late.await, Ok(HandshakeKind::Full));
    assert_eq!(crowded(&hub).await, "0");
}

#[tokio::test]
async fn who_waits_in_vain_is_closed_and_counted() {
    let (hub, facade, config) = facade().await;
    let silent = crowd(facade).await;
    assert!(shake(facade, &config).await.is_err());
    assert_eq!(crowded(&hub).await, "1");
    // Those that say nothing lose their turns as well.
    assert_eq!(shake(facade, &config).await, Ok(HandshakeKind::Full));
    drop(silent);
}
