//! TLS configurations: 1.3 only, hybrid key exchange first, no resumption, ALPN always.
//!
//! A server's configuration is built once; what changes is the [`Material`] behind it, swapped as a
//! whole. A client's configuration belongs to one certificate, as its connection does.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use std::sync::LazyLock;
use thiserror::Error;

use super::id::{Role, SpiffeId, TrustDomain};
use super::key::KeyPair;
use super::profile::{Usage, profile};
use super::public_key::SpkiSha256;
use super::trust::TrustBundle;
use super::verify::{self, Admission, ClientVerifier, HubVerifier, PeerError, Wanted};
use crate::clock::SharedClock;

/// ALPN of gRPC.
pub const ALPN_H2: &[u8] = b"h2";

/// ALPN of what kubectl falls back to.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Why there is no TLS configuration.
#[derive(Debug, Error)]
pub enum TlsError {
    /// Our own chain does not pass the checks that a peer will make.
    #[error("our own certificate chain would be refused")]
    Chain(#[source] PeerError),
    /// The certificate is for another key.
    #[error("the certificate is for another key than the private one")]
    KeyMismatch,
    /// rustls refused the configuration.
    #[error("could not build the TLS configuration")]
    Rustls(#[from] rustls::Error),
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        // Set here, not left to a feature of rustls: dependencies take rustls without
        // `prefer-post-quantum`, and the hybrid group would then be last.
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    })
});

/// The crypto provider of every connection.
pub fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// Makes the provider the process's default, for libraries that ask for that. Call it first.
pub fn install_provider() {
    // A second call finds the first one's provider, which is the same.
    let _installed_before = CryptoProvider::clone(provider()).install_default();
}

/// One certificate with its key, and the roots to trust: what changes together.
#[derive(Debug)]
pub struct Material {
    id: SpiffeId,
    not_after: SystemTime,
    certified: Arc<CertifiedKey>,
    with_root: Arc<CertifiedKey>,
    trust: TrustBundle,
}

/// The material of the moment.
pub type Published = Arc<ArcSwap<Material>>;

impl Material {
    /// Checks that `chain` (leaf first) is for `key` and would pass a peer's checks at `now`.
    pub fn new(
        key: &KeyPair,
        chain: &[CertificateDer<'static>],
        trust: TrustBundle,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let (peer, usage) = own_peer(chain, &trust, now).map_err(TlsError::Chain)?;
        if peer.spki_sha256() != key.spki_sha256() {
            return Err(TlsError::KeyMismatch);
        }
        let root = verify::anchor_of(chain, trust.roots(), usage, now).map_err(TlsError::Chain)?;
        let mut longer = chain.to_vec();
        if !longer.contains(&root.der) {
            longer.push(root.der.clone());
        }
        Ok(Self {
            id: peer.id().clone(),
            not_after: peer.not_after(),
            certified: Arc::new(CertifiedKey::new(chain.to_vec(), key.tls_key())),
            with_root: Arc::new(CertifiedKey::new(longer, key.tls_key())),
            trust,
        })
    }

    /// Ready to be shared and swapped.
    pub fn publish(self) -> Published {
        Arc::new(ArcSwap::from_pointee(self))
    }

    /// Whose certificate this is.
    pub const fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// When the chain ends: the earliest end of any certificate in it.
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The roots to trust.
    pub const fn trust(&self) -> &TrustBundle {
        &self.trust
    }
}

fn own_peer(
    chain: &[CertificateDer<'_>],
    trust: &TrustBundle,
    now: SystemTime,
) -> Result<(verify::VerifiedPeer, Usage), PeerError> {
    let of = |roles: &[Role], usage| {
        verify::peer(
            chain,
            trust,
            Wanted {
                usage,
                roles,
                trust_domain: None,
            },
            now,
        )
    };
    match of(&[Role::Hub], profile(Role::Hub).usage) {
        Ok(peer) => Ok((peer, Usage::Server)),
        Err(_not_a_hub) => of(&[Role::Admin, Role::Agent, Role::Client], Usage::Client)
            .map(|peer| (peer, Usage::Client)),
    }
}

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

/// A listener for administrators: certificate mandatory, HTTP/2 only.
pub fn admin_server(
    published: &Published,
    trust_domain: &TrustDomain,
    admission: Arc<dyn Admission>,
    clock: SharedClock,
) -> Result<Arc<ServerConfig>, TlsError> {
    let clients = clients(published, trust_domain, &[Role::Admin], admission);
    server(published, Some(clients), Chain::Usual, &[ALPN_H2], clock)
}

/// An agent's connection to the data listener, with its certificate.
pub fn data_client(material: &Material, clock: SharedClock) -> Result<Arc<ClientConfig>, TlsError> {
    let domain = material.id.trust_domain.clone();
    let verifier = HubVerifier::joined(material.trust.clone(), domain);
    client(verifier, Some(Arc::clone(&material.certified)), clock)
}

/// An agent's connection to the enrol listener: no certificate yet, one pinned root.
pub fn enrol_client(pin: SpkiSha256, clock: SharedClock) -> Result<Arc<ClientConfig>, TlsError> {
    client(HubVerifier::pinned(pin), None, clock)
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

pub(super) fn client(
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
struct Time(SharedClock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0.now().duration_since(SystemTime::UNIX_EPOCH);
        since.ok().map(UnixTime::since_unix_epoch)
    }
}

#[cfg(test)]
mod tests;
