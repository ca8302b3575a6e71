//! From a credential to an open TLS connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::anybody::TrustAnybody;
use super::link::Link;
use super::{ClusterError, proxy, socks};
use crate::credential::{Credential, ProxyKind, Server, Trust};
use crate::fault::Advised;

/// Time for name resolution, TCP and TLS together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Most addresses of one name that are tried.
const ADDRESSES: usize = 8;

/// Silence after which TCP asks whether the peer is still there; a watch may be silent for long.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Pause between two such questions.
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Questions without an answer after which the connection counts as broken.
const TCP_KEEPALIVE_RETRIES: u32 = 3;

/// Opens connections to one API server.
pub(super) struct Connector {
    name: ServerName<'static>,
    credential: Arc<Credential>,
    tls: TlsConnector,
}

impl Connector {
    /// A connector that shows `certificate` and offers the protocols `alpn`.
    pub(super) fn new(
        credential: Arc<Credential>,
        certificate: Option<&Arc<CertifiedKey>>,
        alpn: &[&[u8]],
    ) -> Result<Self, ClusterError> {
        let unusable = |_error: rustls::Error| ClusterError::Untrusted {
            server: credential.server().to_string(),
            source: Advised::new("the credential's certificates cannot be used for TLS", ""),
        };
        let provider = Arc::new(provider());
        let verifier = verifier(&credential, &provider).map_err(unusable)?;
        // API servers may be old, so 1.2 is accepted; what they are trusted by is the same.
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match certificate {
            Some(key) => {
                let resolver = SingleCertAndKey::from(Arc::clone(key));
                config.with_client_cert_resolver(Arc::new(resolver))
            }
            None => config.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Self {
            name: credential.server_name().clone(),
            credential,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Opens a connection whose socket is seen by TLS through `wrap`.
    pub(super) async fn connect<Io>(
        &self,
        wrap: impl FnOnce(TcpStream) -> Io,
    ) -> Result<Link<Io>, ClusterError>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let opening = async {
            let socket = self.dial().await?;
            let io = wrap(socket);
            if self.credential.server().is_plain() {
                return Ok(Link::Plain(io));
            }
            let stream = self.tls.connect(self.name.clone(), io).await?;
            Ok(Link::Tls(Box::new(stream)))
        };
        match timeout(CONNECT_TIMEOUT, opening).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                let server = self.credential.server().to_string();
                Err(ClusterError::connecting(&server, error))
            }
            Err(_elapsed) => Err(ClusterError::TimedOut {
                what: "a connection",
                after: CONNECT_TIMEOUT,
            }),
        }
    }

    async fn dial(&self) -> io::Result<TcpStream> {
        let server = self.credential.server();
        let Some(proxy) = self.credential.proxy() else {
            return dial(server).await;
        };
        let mut socket = dial(proxy.server())
            .await
            .map_err(|error| io::Error::new(error.kind(), Behind(error)))?;
        match proxy.kind() {
            ProxyKind::Http => proxy::connect(&mut socket, proxy, server).await?,
            ProxyKind::Socks5 => socks::connect(&mut socket, proxy.user(), server).await?,
        }
        Ok(socket)
    }
}

/// A failure on the way to the proxy.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach the proxy of `proxy-url`")]
struct Behind(#[source] io::Error);

async fn dial(server: &Server) -> io::Result<TcpStream> {
    let found = tokio::net::lookup_host((server.host(), server.port())).await?;
    let accepted: Vec<SocketAddr> = found
        .filter(|address| server.accepts(address.ip()))
        .take(ADDRESSES)
        .collect();
    if accepted.is_empty() {
        let problem = "resolves to no address that an API server can have";
        return Err(io::Error::other(problem));
    }
    let socket = TcpStream::connect(accepted.as_slice()).await?;
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(TCP_KEEPALIVE)
        .with_interval(TCP_KEEPALIVE_INTERVAL)
        .with_retries(TCP_KEEPALIVE_RETRIES);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    Ok(socket)
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("server", &format_args!("{}", self.credential.server()))
            .finish_non_exhaustive()
    }
}

fn verifier(
    credential: &Credential,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    let Trust::Authorities(authorities) = credential.trust() else {
        return Ok(Arc::new(TrustAnybody(Arc::clone(provider))));
    };
    let mut roots = RootCertStore::empty();
    for root in authorities {
        roots.add(root.clone())?;
    }
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let built = built.build();
    Ok(built.map_err(|error| rustls::Error::General(error.to_string()))?)
}

/// aws-lc-rs with the post-quantum hybrid first, whatever the features of the build say.
fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}
