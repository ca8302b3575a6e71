//! The way to an issuer that a kubeconfig names: as to an engine, and not to where no issuer is.

use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls_pki_types::CertificateDer;

use super::fetch::Failure;
use super::server::{Exceptions, is_refused_address};
use super::transport;

/// A client for one errand: its authorities are these, else the system's, and the addresses that
/// it dials those that `exceptions` leave.
///
/// # Errors
/// Authorities that cannot be used, or none.
pub(super) async fn client(
    roots: Option<Vec<CertificateDer<'static>>>,
    exceptions: Exceptions,
    deadline: Duration,
) -> Result<reqwest::Client, Failure> {
    let tls = match roots {
        Some(roots) => transport::trusting(roots, None)?,
        None => transport::trusting_system().await?,
    };
    transport::contained(tls, deadline)
        .timeout(deadline)
        .dns_resolver(Arc::new(Resolver(exceptions)))
        .build()
        .map_err(|_error| Failure::unavailable("its TLS settings cannot be used"))
}

/// Keeps back the addresses that are refused.
struct Resolver(Exceptions);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let link_local = self.0.link_local;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str().to_owned(), 0)).await?;
            let accepted =
                found.filter(move |address| link_local || !is_refused_address(address.ip()));
            let addresses: Addrs = Box::new(accepted);
            Ok(addresses)
        })
    }
}
