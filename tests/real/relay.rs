//! The relay: what it passes, and how it stands in the way.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::support::eventually::{bounded, eventually};
use crate::support::relay::{Link, Relay, Silence};

/// Both ends of a connection through a relay.
struct Ends {
    relay: Relay,
    client: TcpStream,
    server: TcpStream,
}

async fn connect(link: Link) -> std::io::Result<Ends> {
    let connected = async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let relay = Relay::shaped(listener.local_addr()?, link);
        let client = TcpStream::connect(relay.address()).await?;
        let (server, _peer) = listener.accept().await?;
        Ok(Ends {
            relay,
            client,
            server,
        })
    };
    bounded("a connection through the relay", connected).await
}

#[tokio::test]
async fn bytes_pass_both_ways_and_an_end_is_passed_on() {
    let Ends {
        relay,
        mut client,
        mut server,
    } = connect(Link::default()).await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    bounded("the question", server.read_to_string(&mut text))
        .await
        .unwrap();
    server.write_all(b"reply").await.unwrap();
    drop(server);
    bounded("the reply", client.read_to_string(&mut text))
        .await
        .unwrap();
    assert_eq!(text, "questionreply");
    assert_eq!(relay.passed(), (8, 5));
    eventually("the connection is closed", || {
        (relay.open() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cut_resets_both_ends() {
    let Ends {
        relay,
        mut client,
        mut server,
    } = connect(Link::default()).await.unwrap();
    relay.cut();
    for end in [&mut client, &mut server] {
        let read = bounded("the reset", end.read_u8()).await;
        assert_eq!(
            read.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionReset
        );
    }
}

#[tokio::test]
async fn silence_tells_nobody_and_loses_nothing() {
    let Ends {
        relay,
        mut client,
        mut server,
    } = connect(Link::default()).await.unwrap();
    relay.silence(Silence::Both);
    client.write_all(b"x").await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(100), server.read_u8()).await;
    assert!(silence.is_err());
    relay.silence(Silence::None);
    assert_eq!(bounded("the byte", server.read_u8()).await.unwrap(), b'x');
}

#[tokio::test]
async fn one_way_can_be_silent_alone() {
    let Ends {
        relay,
        mut client,
        mut server,
    } = connect(Link::default()).await.unwrap();
    relay.silence(Silence::Up);
    client.write_all(b"u").await.unwrap();
    server.write_all(b"d").await.unwrap();
    assert_eq!(bounded("the byte", client.read_u8()).await.unwrap(), b'd');
    let silence = tokio::time::timeout(Duration::from_millis(100), server.read_u8()).await;
    assert!(silence.is_err());
    relay.silence(Silence::Down);
    assert_eq!(bounded("the byte", server.read_u8()).await.unwrap(), b'u');
}

#[tokio::test]
async fn a_throttled_and_delayed_link_takes_its_time() {
    const BYTES: usize = 100_000;
    let link = Link {
        delay: Duration::from_millis(50),
        up: Some(500_000),
        buffers: Some(16 * 1024),
        ..Link::default()
    };
    let Ends {
        relay: _relay,
        mut client,
        mut server,
    } = connect(link).await.unwrap();
    let start = Instant::now();
    let send = async {
        client.write_all(&vec![7; BYTES]).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let receive = server.read_to_end(&mut received);
    let (_sent, read) = bounded("all bytes", async { tokio::join!(send, receive) }).await;
    assert_eq!(read.unwrap(), BYTES);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(200), "{took:?}");
}

#[tokio::test]
async fn a_refusing_relay_resets_who_comes() {
    let Ends { relay, .. } = connect(Link::default()).await.unwrap();
    relay.refuse(true);
    let refused = async {
        let mut client = TcpStream::connect(relay.address()).await?;
        client.read_u8().await
    };
    assert!(bounded("the refusal", refused).await.is_err());
    assert_eq!(relay.accepted(), 1);
}
