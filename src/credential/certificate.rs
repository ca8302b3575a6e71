//! Client certificates with their keys.

use std::time::SystemTime;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::kubeconfig::parse_certificates;
use crate::clock::from_unix_seconds;

/// Which of the two cannot be used, and why; fixed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    Chain(&'static str),
    Key(&'static str),
}

/// The certificates in `chain`, the client's own first, with their key; both in PEM.
pub(super) fn pair(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, Unusable> {
    let chain = parse_certificates(chain).map_err(Unusable::Chain)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_error| Unusable::Key("holds no private key in PEM form"))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|_error| Unusable::Key("is not the key of the client certificate"))
}

/// When a certificate ends; none if it cannot be read.
pub(super) fn ends_at(der: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let end = certificate.validity().not_after.timestamp();
    u64::try_from(end).ok().map(from_unix_seconds)
}
