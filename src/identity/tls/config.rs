//! The configurations of each listener and of an agent's two connections.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use super::{ALPN_H2, ALPN_HTTP1, Material, Published, TlsError, provider};
use crate::clock::SharedClock;
use crate::identity::id::{Role, TrustDomain};
use crate::identity::public_key::SpkiSha256;
use crate::identity::trust::TrustBundle;
use crate::identity::verify::{Admission, ClientVerifier, HubVerifier};

/// The data listener: agents only, certificate mandatory, HTTP/2 only.
pub fn data_server(
    published: &Published,
    trust_domain: &TrustDomain,
    admission: Arc<dyn Admission>,
    clock: SharedClock,
) -> Result<Arc<ServerConfig>, TlsError> {
    let clients = clients(published, trust_domain, &[Role::Agent], admission);
    server(published, Some(clients), Chain::Usual, &[ALPN_H2], clock)
}

/// The enrol listener: anybody, HTTP/2 only; presents the root as well, so that it can be pinned.
pub fn enrol_server(
    published: &Published,
    clock: SharedClock,
) -> Result<Arc<ServerConfig>, TlsError> {
    server(published, None, Chain::WithRoot, &[ALPN_H2], clock)
}

/// The facade's listener: clients only, certificate mandatory, HTTP/2 or HTTP/1.1.
pub fn facade_server(
    published: &Published,
    trust_domain: &TrustDomain,
    admission: Arc<dyn Admission>,
    clock: SharedClock,
) -> Result<Arc<ServerConfig>, TlsError> {
    let clients = clients(published, trust_domain, &[Role::Client], admission);
    server(
        published,
        Some(clients),
        Chain::Usual,
        &[ALPN_H2, ALPN_HTTP1],
        clock,
    )
}

/// An agent's connection to the data listener, with its certificate.
pub fn data_client(material: &Material, clock: SharedClock) -> Result<Arc<ClientConfig>, TlsError> {
    let domain = material.id().trust_domain.clone();
    let verifier = HubVerifier::joined(material.trust().clone(), domain);
    client(verifier, Some(Arc::clone(&material.certified)), clock)
}

/// An agent's connection to the enrol listener: no certificate yet, one pinned root.
pub fn enrol_client(pin: SpkiSha256, clock: SharedClock) -> Result<Arc<ClientConfig>, TlsError> {
    client(HubVerifier::pinned(pin), None, clock)
}

/// A look at the data listener without a certificate, by roots that are known already.
pub fn data_probe(
    trust: TrustBundle,
    domain: TrustDomain,
    clock: SharedClock,
) -> Result<Arc<ClientConfig>, TlsError> {
    client(HubVerifier::joined(trust, domain), None, clock)
}

fn clients(
    published: &Published,
    trust_domain: &TrustDomain,
    roles: &'static [Role],
    admission: Arc<dyn Admission>,
) -> Arc<dyn ClientCertVerifier> {
    let verifier = ClientVerifier::new(
        Arc::clone(published),
        trust_domain.clone(),
        roles,
        admission,
    );
    Arc::new(verifier)
}

fn server(
    published: &Published,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    chain: Chain,
    protocols: &[&[u8]],
    clock: SharedClock,
) -> Result<Arc<ServerConfig>, TlsError> {
    let time = Arc::new(Time(clock));
    let builder = ServerConfig::builder_with_details(Arc::clone(provider()), time)
        .with_protocol_versions(&[&TLS13])?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    let published = Arc::clone(published);
    let mut config = builder.with_cert_resolver(Arc::new(Resolver { published, chain }));
    // A resumed session skips the judge: neither expiry nor a ban would be seen.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

pub(in crate::identity) fn client(
    verifier: HubVerifier,
    certified: Option<Arc<CertifiedKey>>,
    clock: SharedClock,
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = Arc::new(verifier);
    let time = Arc::new(Time(clock));
    let builder = ClientConfig::builder_with_details(Arc::clone(provider()), time)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match certified {
        Some(certified) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(Arc::new(config))
}

/// Which chain a listener presents.
#[derive(Clone, Copy, Debug)]
enum Chain {
    Usual,
    WithRoot,
}

#[derive(Debug)]
struct Resolver {
    published: Published,
    chain: Chain,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let material = self.published.load();
        Some(Arc::clone(match self.chain {
            Chain::Usual => &material.certified,
            Chain::WithRoot => &material.with_root,
        }))
    }
}

/// Our clock, as rustls asks for the time.
#[derive(Debug)]
pub(super) struct Time(pub(super) SharedClock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0.now().duration_since(SystemTime::UNIX_EPOCH);
        since.ok().map(UnixTime::since_unix_epoch)
    }
}
