//! The CA certificates of the built-in issuer, made, kept and opened.

use std::path::Path;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{AuthorityError, leaf, pem_pair};
use crate::entropy::SharedEntropy;
use crate::identity::files;
use crate::identity::id::TrustDomain;
use crate::identity::key::KeyPair;
use crate::identity::profile::{BACKDATE, INTERMEDIATE_TTL, ROOT_TTL};
use crate::identity::verify::rules;

/// A CA certificate with the key to sign with.
pub(super) struct Signer {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) issuer: rcgen::Issuer<'static, KeyPair>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Signer {
    fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, &'static str> {
        let (rest, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|_detail| "does not hold a well-formed certificate")?;
        if !rest.is_empty() {
            return Err("holds a certificate followed by other bytes");
        }
        rules::authority(&parsed)?;
        if parsed.public_key().raw != key.spki_der() {
            return Err("holds a key that does not fit its certificate");
        }
        let (not_before, not_after) = rules::validity(&parsed);
        let issuer = rcgen::Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|_detail| "holds a certificate that cannot issue others")?;
        Ok(Self {
            certificate,
            issuer,
            not_before,
            not_after,
        })
    }

    /// Half of the life is over.
    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        let life = self
            .not_after
            .duration_since(self.not_before)
            .unwrap_or_default();
        now >= self.not_before + life / 2
    }
}

/// The end of a CA certificate.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Result<SystemTime, &'static str> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_detail| "does not hold a well-formed certificate")?;
    rules::authority(&parsed)?;
    Ok(rules::validity(&parsed).1)
}

pub(super) const INTERMEDIATE: &str = "intermediate.pem";

pub(super) fn open_root(
    path: &Path,
    folder: &Path,
    maker: &Maker<'_>,
) -> Result<(CertificateDer<'static>, Option<Signer>), AuthorityError> {
    let content = |reason| AuthorityError::Content {
        path: path.to_owned(),
        reason,
    };
    let Some(text) = files::read(path)? else {
        if files::read(&folder.join(INTERMEDIATE))?.is_some() {
            return Err(content("is missing, but there is an intermediate"));
        }
        let root = maker.root(path)?;
        return Ok((root.certificate.clone(), Some(root)));
    };
    let (certificate, key) = pem_pair::read(&text).map_err(content)?;
    let root = key
        .map(|key| Signer::new(certificate.clone(), key))
        .transpose()
        .map_err(content)?;
    Ok((certificate, root))
}

pub(super) fn open_intermediate(
    folder: &Path,
    root: Option<&Signer>,
    root_certificate: &CertificateDer<'_>,
    maker: &Maker<'_>,
) -> Result<Signer, AuthorityError> {
    let path = folder.join(INTERMEDIATE);
    let content = |reason| AuthorityError::Content {
        path: path.clone(),
        reason,
    };
    let current = match files::read(&path)? {
        None => None,
        Some(text) => {
            let (certificate, key) = pem_pair::read(&text).map_err(content)?;
            let key = key.ok_or(content("holds no private key"))?;
            if !leaf::is_signed_by(&certificate, root_certificate) {
                return Err(content("is not signed by the root"));
            }
            Some(Signer::new(certificate, key).map_err(content)?)
        }
    };
    match (current, root) {
        (Some(current), _) if !current.is_due(maker.now) => Ok(current),
        (_, Some(root)) => maker.intermediate(root, &path),
        (Some(current), None) if current.not_after > maker.now => Ok(current),
        (Some(_), None) => Err(AuthorityError::Expired { path }),
        (None, None) => Err(content("is missing, and there is no root key to make it")),
    }
}

/// Makes CA certificates.
pub(super) struct Maker<'a> {
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) now: SystemTime,
    pub(super) entropy: &'a SharedEntropy,
}

impl Maker<'_> {
    fn root(&self, path: &Path) -> Result<Signer, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = self.params("root", BasicConstraints::Unconstrained)?;
        params.not_after = (self.now + ROOT_TTL).into();
        let certificate = params.self_signed(&key)?.der().clone();
        keep(path, certificate, key)
    }

    pub(super) fn intermediate(
        &self,
        root: &Signer,
        path: &Path,
    ) -> Result<Signer, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = self.params("intermediate", BasicConstraints::Constrained(0))?;
        params.not_after = (self.now + INTERMEDIATE_TTL).min(root.not_after).into();
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &root.issuer)?.der().clone();
        keep(path, certificate, key)
    }

    fn params(
        &self,
        kind: &str,
        constraints: BasicConstraints,
    ) -> Result<CertificateParams, AuthorityError> {
        let serial = leaf::serial(&**self.entropy).ok_or(AuthorityError::Entropy)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // The serial's start keeps successive intermediates apart, so that a path has one way.
        let mark = hex::encode(serial.to_bytes().get(1..5).unwrap_or_default());
        let name = format!("{} {kind} {mark}", self.trust_domain);
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(serial);
        params.is_ca = IsCa::Ca(constraints);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = self.now.checked_sub(BACKDATE).unwrap_or(self.now).into();
        Ok(params)
    }
}

/// Writes the file first: what is not kept is not used.
fn keep(
    path: &Path,
    certificate: CertificateDer<'static>,
    key: KeyPair,
) -> Result<Signer, AuthorityError> {
    files::replace(path, &pem_pair::write(&certificate, &key)?)?;
    Signer::new(certificate, key).map_err(|reason| AuthorityError::Content {
        path: path.to_owned(),
        reason,
    })
}
