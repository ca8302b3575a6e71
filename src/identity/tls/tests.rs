//! Real handshakes.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, HandshakeKind, NamedGroup, ServerConfig,
    SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::config::Time;
use super::*;
use crate::clock::SharedClock;
use crate::identity::fixtures::{Forge, House, domain};
use crate::identity::verify::{
    self, Admission, AdmitAll, HubVerifier, PeerError, Refusal, VerifiedPeer,
};
use crate::identity::{AcceptError, Accepted, KeyPair, Protocol, Role, accept};

fn host(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

fn clock(house: &House) -> SharedClock {
    Arc::clone(&house.clock) as _
}

fn data(house: &House) -> Arc<ServerConfig> {
    data_admitting(house, Arc::new(AdmitAll))
}

fn data_admitting(house: &House, admission: Arc<dyn Admission>) -> Arc<ServerConfig> {
    let published = house.material(Role::Hub, "hub-1").publish();
    data_server(&published, &domain(), admission, clock(house)).unwrap()
}

fn agent(house: &House) -> Arc<ClientConfig> {
    data_client(&house.material(Role::Agent, "prod"), clock(house)).unwrap()
}

/// What the client saw: how the handshake went, and the alert that came after it.
#[derive(Debug)]
struct Seen {
    group: Option<NamedGroup>,
    kind: Option<HandshakeKind>,
    alert: Option<AlertDescription>,
    verdict: Option<Result<VerifiedPeer, PeerError>>,
}

/// One handshake, with one byte back from the hub if it accepts.
async fn shake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> (Result<Accepted<tokio::io::DuplexStream>, AcceptError>, Seen) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let hub = async {
        let mut accepted = accept(Arc::clone(server), far).await?;
        accepted.stream.write_all(b"!").await.unwrap();
        Ok(accepted)
    };
    let connector = TlsConnector::from(Arc::clone(client));
    let agent = async {
        let (outcome, verdict) = verify::observed(connector.connect(host(name), near)).await;
        let mut seen = Seen {
            group: None,
            kind: None,
            alert: None,
            verdict,
        };
        let answer = match outcome {
            Ok(mut stream) => {
                let answer = stream.read_u8().await.map(|_byte| ());
                let connection = stream.get_ref().1;
                seen.group = connection
                    .negotiated_key_exchange_group()
                    .map(rustls::crypto::SupportedKxGroup::name);
                seen.kind = connection.handshake_kind();
                answer
            }
            Err(error) => Err(error),
        };
        if let Err(error) = answer
            && let Some(rustls::Error::AlertReceived(alert)) =
                error.get_ref().and_then(|inner| inner.downcast_ref())
        {
            seen.alert = Some(*alert);
        }
        seen
    };
    tokio::join!(hub, agent)
}

/// A client like an agent's, but with the tests' own ideas.
fn rogue(
    house: &House,
    versions: &[&'static SupportedProtocolVersion],
    certified: Option<(Vec<CertificateDer<'static>>, KeyPair)>,
) -> ClientConfig {
    let verifier = HubVerifier::joined(house.trust(), domain());
    let builder =
        ClientConfig::builder_with_details(Arc::clone(provider()), Arc::new(Time(clock(house))))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match certified {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let key = CertifiedKey::new(chain, key.tls_key());
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config
}

#[tokio::test]
async fn an_agent_and_a_hub_know_each_other_over_a_hybrid_key_exchange() {
    let house = House::new();
    let (accepted, seen) = shake(&data(&house), &agent(&house), "localhost").await;
    let accepted = accepted.unwrap();
    assert_eq!(accepted.protocol, Protocol::Http2);
    let peer = accepted.peer.unwrap();
    assert_eq!(
        peer.id().to_string(),
        "spiffe://spinnaker.example/agent/prod"
    );
    assert_eq!(seen.group, Some(NamedGroup::X25519MLKEM768));
    let hub = seen.verdict.unwrap().unwrap();
    assert_eq!(hub.id().to_string(), "spiffe://spinnaker.example/hub/hub-1");
    let (_, by_address) = shake(&data(&house), &agent(&house), "127.0.0.1").await;
    assert!(by_address.verdict.unwrap().is_ok());
}

#[tokio::test]
async fn strangers_are_refused_with_the_fitting_alert() {
    let (house, foreign) = (House::new(), House::new());
    let server = data(&house);
    let forge = Forge::new();
    let from = |house: &House, role, name| {
        let (key, issued) = house.issue(role, name);
        Some((issued.chain, key))
    };
    let forged = KeyPair::generate().unwrap();
    let cases = [
        (
            "no certificate",
            None,
            "tls",
            AlertDescription::CertificateRequired,
        ),
        (
            "another CA",
            from(&foreign, Role::Agent, "prod"),
            "untrusted_root",
            AlertDescription::UnknownCA,
        ),
        (
            "a forger's root",
            Some((
                vec![forge.leaf_for(&forged, |_params| {}), forge.root.clone()],
                forged,
            )),
            "untrusted_root",
            AlertDescription::UnknownCA,
        ),
        (
            "a hub's certificate",
            from(&house, Role::Hub, "hub-2"),
            "usage",
            AlertDescription::UnsupportedCertificate,
        ),
        (
            "a client's certificate",
            from(&house, Role::Client, "kubectl"),
            "role",
            AlertDescription::AccessDenied,
        ),
        (
            "a chain too long",
            from(&house, Role::Agent, "prod")
                .map(|(chain, key)| (chain.iter().cycle().take(9).cloned().collect(), key)),
            "chain_length",
            AlertDescription::CertificateUnknown,
        ),
    ];
    for (what, certified, label, alert) in cases {
        let client = Arc::new(rogue(&house, &[&TLS13], certified));
        let (accepted, seen) = shake(&server, &client, "localhost").await;
        assert_eq!(accepted.unwrap_err().label(), label, "{what}");
        assert_eq!(seen.alert, Some(alert), "{what}");
    }
}

#[tokio::test]
async fn a_refused_client_that_goes_on_writing_reads_why() {
    let house = House::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (server, stranger) = (data(&house), Arc::new(rogue(&house, &[&TLS13], None)));
    let hub = async {
        let (socket, _) = listener.accept().await.unwrap();
        accept(server, socket).await.map(|_accepted| ())
    };
    let client = async {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(stranger);
        let mut stream = connector.connect(host("localhost"), socket).await.unwrap();
        // As kubectl does: the request goes out before anything is read.
        stream.get_ref().0.readable().await.unwrap();
        for _ in 0..20 {
            tokio::task::yield_now().await;
            stream.write_all(&[b'x'; 1024]).await.expect("it is read");
            stream.flush().await.expect("it is read");
        }
        stream.read_u8().await.unwrap_err().to_string()
    };
    let (refused, told) = tokio::join!(hub, client);
    assert_eq!(refused.unwrap_err().label(), "tls");
    assert!(told.contains("CertificateRequired"), "{told}");
}

#[tokio::test]
async fn a_lapsed_certificate_is_refused() {
    let house = House::new();
    let client = agent(&house);
    house
        .clock
        .advance(Duration::from_hours(24) + Duration::from_secs(1));
    let (accepted, seen) = shake(&data(&house), &client, "localhost").await;
    assert_eq!(accepted.unwrap_err().label(), "expired");
    assert_eq!(seen.alert, Some(AlertDescription::CertificateExpired));
}

#[tokio::test]
async fn tls_1_2_and_peers_without_a_protocol_are_refused() {
    let house = House::new();
    let server = data(&house);
    let (key, issued) = house.issue(Role::Agent, "prod");
    let certified = Some((issued.chain, key));
    let old = rogue(&house, &[&TLS12], certified.clone());
    let (accepted, seen) = shake(&server, &Arc::new(old), "localhost").await;
    assert_eq!(accepted.unwrap_err().label(), "tls");
    assert_eq!(seen.alert, Some(AlertDescription::ProtocolVersion));
    let mut silent = rogue(&house, &[&TLS13], certified);
    silent.alpn_protocols.clear();
    let (accepted, _) = shake(&server, &Arc::new(silent), "localhost").await;
    assert!(matches!(accepted, Err(AcceptError::Alpn)));
}

#[tokio::test]
async fn the_facade_speaks_both_versions_of_http_to_clients_and_to_nobody_else() {
    let house = House::new();
    let published = house.material(Role::Hub, "hub-1").publish();
    let server = facade_server(&published, &domain(), Arc::new(AdmitAll), clock(&house)).unwrap();
    let with = |role, alpn: &[&[u8]]| {
        let (key, issued) = house.issue(role, "kubectl");
        let mut config = rogue(&house, &[&TLS13], Some((issued.chain, key)));
        config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
        Arc::new(config)
    };
    let spoken: [(&[&[u8]], Protocol); 3] = [
        (&[ALPN_H2], Protocol::Http2),
        (&[ALPN_HTTP1], Protocol::Http1),
        // HTTPS without ALPN is HTTP/1.1.
        (&[], Protocol::Http1),
    ];
    for (alpn, protocol) in spoken {
        let (accepted, _) = shake(&server, &with(Role::Client, alpn), "localhost").await;
        assert_eq!(accepted.unwrap().protocol, protocol);
        for role in [Role::Admin, Role::Agent] {
            let (accepted, _) = shake(&server, &with(role, alpn), "localhost").await;
            assert_eq!(accepted.unwrap_err().label(), "role");
        }
    }
}

#[derive(Debug)]
struct Bans(&'static str);

impl Admission for Bans {
    fn refusal(&self, peer: &VerifiedPeer) -> Option<Refusal> {
        (peer.id().name.as_str() == self.0).then_some(Refusal::Name)
    }
}

#[tokio::test]
async fn a_banned_peer_is_refused_and_named_to_the_hub() {
    let house = House::new();
    let server = data_admitting(&house, Arc::new(Bans("prod")));
    let (accepted, seen) = shake(&server, &agent(&house), "localhost").await;
    let Err(AcceptError::Refused(PeerError::Denied { id, refusal })) = accepted else {
        panic!("{accepted:?}");
    };
    assert_eq!((id.name.as_str(), refusal), ("prod", Refusal::Name));
    assert_eq!(seen.alert, Some(AlertDescription::CertificateRevoked));
}

#[tokio::test]
async fn no_connection_is_ever_resumed() {
    let house = House::new();
    let server = data(&house);
    let (key, issued) = house.issue(Role::Agent, "prod");
    // A client that would resume if it could.
    let keen = Arc::new(rogue(&house, &[&TLS13], Some((issued.chain, key))));
    for _ in 0..1000 {
        let (accepted, seen) = shake(&server, &keen, "localhost").await;
        assert!(accepted.is_ok());
        assert_ne!(seen.kind, Some(HandshakeKind::Resumed));
    }
    // The same client does resume where tickets are on: the test can see what it looks for.
    let mut lax = ServerConfig::clone(&server);
    lax.session_storage = rustls::server::ServerSessionMemoryCache::new(256);
    lax.send_tls13_tickets = 2;
    let lax = Arc::new(lax);
    let mut resumed = 0;
    for _ in 0..10 {
        let (_, seen) = shake(&lax, &keen, "localhost").await;
        resumed += usize::from(seen.kind == Some(HandshakeKind::Resumed));
    }
    assert!(resumed >= 8, "{resumed} of 10");
    // And our own client does not even there.
    let ours = agent(&house);
    for _ in 0..10 {
        let (_, seen) = shake(&lax, &ours, "localhost").await;
        assert_ne!(seen.kind, Some(HandshakeKind::Resumed));
    }
}

#[tokio::test]
async fn an_agent_refuses_a_hub_of_another_name_and_says_which_names_it_has() {
    let house = House::new();
    let (_, seen) = shake(&data(&house), &agent(&house), "hub.example.com").await;
    let error = seen.verdict.unwrap().unwrap_err().to_string();
    assert!(
        error.contains("hub.example.com") && error.contains("localhost, 127.0.0.1"),
        "{error}"
    );
}

#[tokio::test]
async fn an_agent_refuses_a_hub_of_another_authority() {
    let (house, foreign) = (House::new(), House::new());
    let (_, seen) = shake(&data(&foreign), &agent(&house), "localhost").await;
    assert_eq!(seen.verdict.unwrap().unwrap_err().label(), "untrusted_root");
}

#[tokio::test]
async fn only_the_pinned_root_is_accepted_at_enrolment() {
    let (house, foreign) = (House::new(), House::new());
    let published = house.material(Role::Hub, "hub-1").publish();
    let enrol = enrol_server(&published, clock(&house)).unwrap();
    let pin = |house: &House| house.trust().pins().next().unwrap();
    let client = |pin| enrol_client(pin, clock(&house)).unwrap();
    let (accepted, seen) = shake(&enrol, &client(pin(&house)), "localhost").await;
    assert_eq!(accepted.unwrap().peer, None);
    assert!(seen.verdict.unwrap().is_ok());
    let (_, seen) = shake(&enrol, &client(pin(&foreign)), "localhost").await;
    assert_eq!(seen.verdict.unwrap().unwrap_err(), PeerError::Unpinned);
    let (_, seen) = shake(&enrol, &client(pin(&house)), "elsewhere").await;
    assert_eq!(seen.verdict.unwrap().unwrap_err().label(), "host");
    // A stranger who presents the pinned root beside its own chain gains nothing.
    let (key, issued) = foreign.issue(Role::Hub, "hub-1");
    let mut chain = issued.chain;
    chain.extend(house.trust().roots_der().cloned());
    let stranger = CertifiedKey::new(chain, key.tls_key());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(stranger)));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    let (_, seen) = shake(&Arc::new(config), &client(pin(&house)), "localhost").await;
    assert_eq!(seen.verdict.unwrap().unwrap_err().label(), "untrusted_root");
}

#[tokio::test]
async fn new_material_is_used_from_the_next_handshake_on() {
    let house = House::new();
    let published = house.material(Role::Hub, "hub-1").publish();
    let server = data_server(&published, &domain(), Arc::new(AdmitAll), clock(&house)).unwrap();
    let client = agent(&house);
    let serial = |seen: Seen| seen.verdict.unwrap().unwrap().serial().to_owned();
    let (_, first) = shake(&server, &client, "localhost").await;
    published.store(Arc::new(house.material(Role::Hub, "hub-1")));
    let (_, second) = shake(&server, &client, "localhost").await;
    assert_ne!(serial(first), serial(second));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_let_go() {
    let house = House::new();
    let (_near, far) = tokio::io::duplex(1024);
    assert!(matches!(
        accept(data(&house), far).await,
        Err(AcceptError::Timeout)
    ));
}

#[test]
fn material_of_a_key_that_is_not_certified_is_refused() {
    let house = House::new();
    let (_, issued) = house.issue(Role::Agent, "prod");
    let other = KeyPair::generate().unwrap();
    let refused = Material::new(&other, &issued.chain, house.trust(), house.now());
    assert!(matches!(refused, Err(TlsError::KeyMismatch)));
    let foreign = House::new();
    let refused = Material::new(&other, &issued.chain, foreign.trust(), house.now());
    assert!(matches!(refused, Err(TlsError::Chain(_))));
}
