//! A certificate and its private key in one file, so that both are replaced at once.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use crate::identity::key::{KeyError, KeyPair};
use crate::identity::pem;
use crate::secret::SecretBytes;

/// Writes both in PEM.
#[expect(
    clippy::disallowed_methods,
    reason = "the private file is where the key is kept"
)]
pub(super) fn write(
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
) -> Result<SecretBytes, KeyError> {
    let pkcs8 = key.to_pkcs8()?;
    let key = Zeroizing::new(pem::encode("PRIVATE KEY", pkcs8.expose_secret()));
    let certificate = pem::encode("CERTIFICATE", certificate);
    Ok(SecretBytes::new(
        [certificate.as_bytes(), key.as_bytes()].concat(),
    ))
}

/// Reads the certificate, and the key if there is one; what is wrong otherwise.
#[expect(
    clippy::disallowed_methods,
    reason = "parsing is what the bytes are for"
)]
pub(super) fn read(
    text: &SecretBytes,
) -> Result<(CertificateDer<'static>, Option<KeyPair>), &'static str> {
    let text = text.expose_secret();
    let certificate =
        CertificateDer::from_pem_slice(text).map_err(|_detail| "holds no certificate in PEM")?;
    let mut keys = PrivatePkcs8KeyDer::pem_slice_iter(text);
    let Some(key) = keys.next() else {
        return Ok((certificate, None));
    };
    let key = key.map_err(|_detail| "holds a private key that is not well-formed")?;
    let pkcs8 = SecretBytes::new(key.secret_pkcs8_der().to_vec());
    let key = KeyPair::from_pkcs8(&pkcs8)
        .map_err(|_format| "holds a private key that is not P-256 in PKCS#8")?;
    Ok((certificate, Some(key)))
}
