//! The foreign TLS client speaks both versions: a refusal it meets is the server's.

use crate::support::double::{Double, Settings};
use crate::support::foreign_tls::{Offer, Version, handshake};

#[test]
fn tls_1_3_is_accepted_and_tls_1_2_refused_by_a_server_of_our_library() {
    let double = Double::start(Settings::default());
    let ca_file = double.ca_file();
    let offer = |version| Offer {
        ca_file: &ca_file,
        version,
        alpn: "http/1.1",
        identity: None,
    };
    let accepted = handshake(double.address(), &offer(Version::Tls13));
    assert_eq!(accepted.as_deref(), Ok("TLSv1.3 http/1.1"));
    let refused = handshake(double.address(), &offer(Version::Tls12)).unwrap_err();
    assert!(refused.contains("PROTOCOL_VERSION"), "{refused}");
}

#[tokio::test]
async fn tls_1_2_is_accepted_by_a_server_that_speaks_it() {
    let cluster = crate::support::testbed::Testbed::shared().await.cluster();
    let address = cluster
        .url
        .strip_prefix("https://")
        .unwrap()
        .parse()
        .unwrap();
    let offer = Offer {
        ca_file: cluster.ca.as_ref(),
        version: Version::Tls12,
        alpn: "h2",
        identity: None,
    };
    assert_eq!(handshake(address, &offer).as_deref(), Ok("TLSv1.2 h2"));
}
