//! The certificate kit makes what a strict peer accepts, and what it refuses.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConnection, ServerConfig, ServerConnection};
use time::{Duration, OffsetDateTime};

use crate::support::pki::{Authority, Identity, Leaf, client_config, server_config};

/// A server that demands a client certificate of this authority.
fn demanding(authority: &Authority, identity: &Identity) -> Option<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der()).ok()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .ok()?
        .with_client_cert_verifier(verifier.build().ok()?)
        .with_single_cert(identity.chain(), identity.key())
        .ok()
}

/// Both sides' TLS in memory, until neither has anything to say.
fn shake(client: rustls::ClientConfig, server: ServerConfig) -> Result<(), rustls::Error> {
    let name = rustls_pki_types::ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    let mut wire = Vec::new();
    while client.wants_write() || server.wants_write() {
        wire.clear();
        let _in_memory = client.write_tls(&mut wire);
        let _in_memory = server.read_tls(&mut wire.as_slice());
        server.process_new_packets()?;
        wire.clear();
        let _in_memory = server.write_tls(&mut wire);
        let _in_memory = client.read_tls(&mut wire.as_slice());
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn a_client_below_an_intermediate_is_accepted() {
    let root = Authority::root("root");
    let agents = root.below("agents");
    let server = demanding(&root, &root.issue(&Leaf::server())).unwrap();
    let identity = agents.issue(&Leaf::client("spiffe://example.org/agent/one"));
    assert_eq!(identity.chain().len(), 2);
    shake(client_config([root.der()], Some(&identity)), server).unwrap();
}

#[test]
fn an_expired_client_and_one_without_a_certificate_are_refused() {
    let root = Authority::root("root");
    let server = root.issue(&Leaf::server());
    let now = OffsetDateTime::now_utc();
    let expired = Leaf::client("spiffe://example.org/agent/one")
        .valid(now - Duration::HOUR, now - Duration::MINUTE);
    let expired = root.issue(&expired);
    for identity in [Some(&expired), None] {
        let client = client_config([root.der()], identity);
        let refused = shake(client, demanding(&root, &server).unwrap());
        assert!(refused.is_err());
    }
}

#[test]
fn a_server_of_another_authority_is_refused() {
    let root = Authority::root("root");
    let other = Authority::root("root"); // the same name, another key
    let server = server_config(&other.issue(&Leaf::server()), &[]);
    let refused = shake(client_config([root.der()], None), server);
    assert!(
        matches!(refused, Err(rustls::Error::InvalidCertificate(_))),
        "{refused:?}"
    );
}
