//! Certificate signing requests (RFC 2986), of which only the public key is ever used.

use rcgen::{CertificateParams, DistinguishedName};
use rustls::pki_types::CertificateSigningRequestDer;
use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::key::KeyPair;
use super::public_key::{Kind, PublicKey, UnsupportedKey};

/// Largest request that is read, in bytes; one for a P-384 key has about 300.
pub const CSR_BYTES: usize = 8 * 1024;

/// Why a request is refused.
#[derive(Debug, Error)]
pub enum CsrError {
    /// Could not be written.
    #[error("could not write a certificate signing request")]
    Make(#[source] rcgen::Error),
    /// Not DER of a request, or something follows it.
    #[error("the certificate signing request is not well-formed")]
    Malformed,
    /// The signature is not by the key in the request.
    #[error("the certificate signing request is not signed by its own key")]
    Signature,
    /// Over [`CSR_BYTES`].
    #[error("the certificate signing request has {bytes} bytes, more than {CSR_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A key that is not certified.
    #[error("the certificate signing request is for a key that is not certified")]
    Key(#[from] UnsupportedKey),
}

/// A request for `key` that asks for nothing: no subject, no extension.
pub fn make(key: &KeyPair) -> Result<CertificateSigningRequestDer<'static>, CsrError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).map_err(CsrError::Make)?;
    Ok(request.der().clone())
}

/// The public key of a request, if the request is signed by that key.
///
/// Whatever else the request asks for (names, CA, usages) is not looked at: it cannot become part
/// of a certificate.
pub fn public_key(der: &[u8]) -> Result<PublicKey, CsrError> {
    if der.len() > CSR_BYTES {
        return Err(CsrError::TooLong { bytes: der.len() });
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_detail| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let info = &request.certification_request_info;
    let key = PublicKey::from_spki_der(info.subject_pki.raw)?;
    let algorithm = &request.signature_algorithm;
    if algorithm.algorithm.to_id_string() != signature_oid(key.kind())
        || algorithm.parameters.is_some()
        || request.signature_value.unused_bits != 0
        || !key.verifies(info.raw, &request.signature_value.data)
    {
        return Err(CsrError::Signature);
    }
    Ok(key)
}

/// The signature algorithm that goes with a kind of key (RFC 5758 §3.2, RFC 8410 §3).
const fn signature_oid(kind: Kind) -> &'static str {
    match kind {
        Kind::P256 => "1.2.840.10045.4.3.2",
        Kind::P384 => "1.2.840.10045.4.3.3",
        Kind::Ed25519 => "1.3.101.112",
    }
}
