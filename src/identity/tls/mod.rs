//! TLS configurations: 1.3 only, hybrid key exchange first, no resumption, ALPN always.
//!
//! A server's configuration is built once; what changes is the [`Material`] behind it, swapped as a
//! whole. A client's configuration belongs to one certificate, as its connection does.

mod config;
mod material;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use thiserror::Error;

use super::verify::PeerError;

#[cfg(test)]
pub(super) use config::client;
pub use config::{data_client, data_probe, data_server, enrol_client, enrol_server, facade_server};
pub use material::{Material, Published};

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
