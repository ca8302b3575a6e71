//! The way to an issuer that a kubeconfig names: as to an engine, and not to where no issuer is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

use super::fetch::Failure;
use super::server::{Exceptions, is_refused_address};
use super::transport;

/// A client for one errand: its authorities are these, else the system's, and the addresses that
/// it dials those that `exceptions` leave.
///
/// # Errors
/// Authorities that cannot be used, or none.
pub(super) fn client(
    roots: Option<Vec<CertificateDer<'static>>>,
    exceptions: Exceptions,
    deadline: Duration,
) -> Result<reqwest::Client, Failure> {
    let unusable = Failure::unavailable("its TLS settings cannot be used");
    let roots = roots.unwrap_or_else(|| rustls_native_certs::load_native_certs().certs);
    let mut store = RootCertStore::empty();
    let (usable, _ignored) = store.add_parsable_certificates(roots);
    if usable == 0 {
        let hint = "the system has no certificate authorities; give idp-certificate-authority-data";
        return Err(Failure::unavailable(hint));
    }
    let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|_error| unusable.clone())?
        .with_root_certificates(store)
        .with_no_client_auth();
    tls.resumption = rustls::client::Resumption::disabled();
    let client = transport::contained(tls, deadline).dns_resolver(Arc::new(Resolver(exceptions)));
    client.build().map_err(|_error| unusable)
}

/// Keeps back the addresses that are refused.
struct Resolver(Exceptions);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let link_local = self.0.link_local;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let accepted: Vec<SocketAddr> = found
                .filter(|address| link_local || !is_refused_address(address.ip()))
                .collect();
            let addresses: Addrs = Box::new(accepted.into_iter());
            Ok(addresses)
        })
    }
}
