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

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn request() -> (KeyPair, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let der = make(&key).unwrap().to_vec();
        (key, der)
    }

    #[test]
    fn the_key_of_a_request_is_found() {
        let (key, der) = request();
        assert_eq!(public_key(&der).unwrap(), *key.public_key());
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let (_, mut der) = request();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(matches!(public_key(&der), Err(CsrError::Signature)));
    }

    #[test]
    fn bytes_after_a_request_are_refused() {
        let (_, mut der) = request();
        der.push(0);
        assert!(matches!(public_key(&der), Err(CsrError::Malformed)));
    }

    #[test]
    fn a_request_for_a_weak_or_foreign_key_is_refused() {
        for text in [RSA_1024, P521] {
            let der = STANDARD.decode(text).unwrap();
            assert!(matches!(public_key(&der), Err(CsrError::Key(_))));
        }
    }

    #[test]
    fn a_megabyte_is_not_read() {
        let (_, mut der) = request();
        der.resize(1024 * 1024, 0);
        assert!(matches!(
            public_key(&der),
            Err(CsrError::TooLong { bytes: 1_048_576 })
        ));
    }

    proptest! {
        #[test]
        fn a_changed_request_never_yields_another_key(at in 0usize..400, flip in 1u8..) {
            let (key, mut der) = request();
            let at = at % der.len();
            der[at] ^= flip;
            if let Ok(found) = public_key(&der) {
                prop_assert_eq!(&found, key.public_key());
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(der in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(public_key(&der).is_err());
        }
    }

    // Made with `openssl req -new -newkey rsa:1024`.
    const RSA_1024: &str = "\
MIIBSzCBtQIBADAMMQowCAYDVQQDDAFhMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCWIsTAtjD1to5hPiH2PC\
RNB3Kxr3DUL5mkxs90x2RIuvufM1mLN+4+CWrsiqQql291+rKPtU3eBX6umeMYbLeKiP+91L+DOAHcC0TyuvNoMO89\
L6cejxKuI2X0QkppikBpYTkZ6WkKLtv0fg2B/5qVWGZnxz53HOn9/Kh5yGT4SQIDAQABoAAwDQYJKoZIhvcNAQELBQ\
ADgYEARW8Jc1oTUcK9RLkOf3hSgwHRI5rD9TP1nSVCeB09JeqGA9xmX7W6/qDPubsNfTfFIjrBypJFDQVHaYJesb6P\
3cxWEoyj/LgYsQYUzn4G8JFtfRldEO0M2ymPWMoogs4/2X8tyqv7jphH9V7200v5bbhxt5qk72r5ljUWKKwONeU=\
";
    // Made with `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-521`.
    const P521: &str = "\
MIIBTjCBsQIBADAMMQowCAYDVQQDDAFhMIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBWdkz/Wz1ZErfWt031TQUb1\
Yup82r4zczuzq3Qg0OK9YxOR818MF3Y6o2A6D63jWt8oXc/QXE90m2XCuz6Pd23aIAusRebR72L8sEv6PkcnIxANh+\
Tji0ddOuIBNE1G53+ohvnzel1k6YD++jZB2AL4BM9kQRcSxTNv8YiZhNJzHFXQ2gADAKBggqhkjOPQQDAgOBiwAwgY\
cCQRbqK6NDPlxVD4Q83sOaUBpGUczTVCDkppfwpdHxCJ7w1J/Tbj2YyqAct/dL2GdXcWA3ZnIu0bfL0zt5G78NO+Ob\
AkIB8o2Tfw23HsxrpLpMmrkgARvxaoNY2PHokuxRLtB+JeyoajA7EfW+Sw4fXW/EzvviPd2jQ9fzP8lBZTkuHL3qdv\
Q=\
";
}
