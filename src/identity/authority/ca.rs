//! The CA certificates of the built-in issuer, made, kept and opened.

use std::path::Path;
use std::time::{Duration, SystemTime};

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
use crate::identity::trust::TrustBundle;
use crate::identity::verify::rules;
use crate::secret::SecretBytes;

/// Part of an intermediate's life at whose end it should have been renewed.
const LATE: u32 = 3;

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

    fn life(&self) -> Duration {
        let life = self.not_after.duration_since(self.not_before);
        life.unwrap_or_default()
    }

    /// What is left of the life, if less than a third.
    pub(super) fn ends_soon(&self, now: SystemTime) -> Option<Duration> {
        let left = self.not_after.duration_since(now).unwrap_or_default();
        Some(left).filter(|left| *left < self.life() / LATE)
    }

    /// Half of the life is over; or it has not begun, because the clock was ahead when this was made:
    /// nobody accepts what it signs.
    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        now < self.not_before || now >= self.not_before + self.life() / 2
    }
}

pub(super) const ROOT: &str = "root.pem";
pub(super) const INTERMEDIATE: &str = "intermediate.pem";

/// What the files of an authority hold: each in order by itself, and fitting the other.
pub(super) struct Found {
    pub(super) trust: TrustBundle,
    /// With its key, if that is here.
    pub(super) root: Option<Signer>,
    pub(super) intermediate: Option<Signer>,
}

/// Reads the files in `folder`, and makes nothing; none before the authority was made.
pub(super) fn read(folder: &Path) -> Result<Option<Found>, AuthorityError> {
    let (root_file, intermediate_file) = (folder.join(ROOT), folder.join(INTERMEDIATE));
    let intermediate = files::read(&intermediate_file)?;
    let Some(root) = files::read(&root_file)? else {
        if intermediate.is_some() {
            let reason = "is missing, but there is an intermediate";
            return Err(content(&root_file)(reason));
        }
        return Ok(None);
    };
    let (certificate, key) = pem_pair::read(&root).map_err(content(&root_file))?;
    let root = key.map(|key| Signer::new(certificate.clone(), key));
    let root = root.transpose().map_err(content(&root_file))?;
    let trust = TrustBundle::new(1, std::slice::from_ref(&certificate))?;
    let intermediate = intermediate.map(|text| below(&certificate, &text));
    Ok(Some(Found {
        trust,
        root,
        intermediate: intermediate
            .transpose()
            .map_err(content(&intermediate_file))?,
    }))
}

/// An intermediate with its key, signed by the root.
fn below(root: &CertificateDer<'_>, text: &SecretBytes) -> Result<Signer, &'static str> {
    let (certificate, key) = pem_pair::read(text)?;
    let key = key.ok_or("holds no private key")?;
    if !leaf::is_signed_by(&certificate, root) {
        return Err("is not signed by the root");
    }
    Signer::new(certificate, key)
}

impl Found {
    /// A new root, at the first start.
    pub(super) fn made(folder: &Path, maker: &Maker<'_>) -> Result<Self, AuthorityError> {
        let root = maker.root(&folder.join(ROOT))?;
        Ok(Self {
            trust: TrustBundle::new(1, std::slice::from_ref(&root.certificate))?,
            root: Some(root),
            intermediate: None,
        })
    }

    /// Start and end of the root.
    pub(super) fn root_validity(&self) -> (SystemTime, SystemTime) {
        let root = self.trust.roots().first();
        root.map_or((SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH), |root| {
            (root.not_before, root.not_after)
        })
    }

    /// Whether the intermediate goes on signing at `now`; false where the root makes another one.
    ///
    /// # Errors
    /// Nothing here could sign what others accept.
    pub(super) fn stays(&self, folder: &Path, now: SystemTime) -> Result<bool, AuthorityError> {
        let (begin, end) = self.root_validity();
        check_span(&folder.join(ROOT), begin, end, now)?;
        let path = folder.join(INTERMEDIATE);
        match (&self.intermediate, &self.root) {
            (Some(current), _) if !current.is_due(now) => Ok(true),
            (_, Some(_)) => Ok(false),
            (Some(current), None) => {
                check_span(&path, current.not_before, current.not_after, now)?;
                Ok(true)
            }
            (None, None) => {
                let reason = "is missing, and there is no root key to make it";
                Err(content(&path)(reason))
            }
        }
    }

    /// What signs at `now`: the intermediate, or one that is made and kept.
    pub(super) fn signer(
        self,
        folder: &Path,
        maker: &Maker<'_>,
    ) -> Result<(Option<Signer>, Signer), AuthorityError> {
        let stays = self.stays(folder, maker.now)?;
        match (self.intermediate, self.root) {
            (Some(current), root) if stays => Ok((root, current)),
            (_, Some(root)) => {
                let made = maker.intermediate(&root, &folder.join(INTERMEDIATE))?;
                Ok((Some(root), made))
            }
            (_, None) => Err(AuthorityError::Ended {
                path: folder.join(INTERMEDIATE),
            }),
        }
    }
}

fn content(path: &Path) -> impl Fn(&'static str) -> AuthorityError {
    let path = path.to_owned();
    move |reason| AuthorityError::Content {
        path: path.clone(),
        reason,
    }
}

fn check_span(
    path: &Path,
    begin: SystemTime,
    end: SystemTime,
    now: SystemTime,
) -> Result<(), AuthorityError> {
    let path = path.to_owned();
    if now < begin {
        return Err(AuthorityError::NotYetValid { path, begin });
    }
    if end <= now {
        return Err(AuthorityError::Ended { path });
    }
    Ok(())
}

/// Makes CA certificates.
pub(super) struct Maker<'a> {
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) now: SystemTime,
    pub(super) entropy: &'a SharedEntropy,
}

impl Maker<'_> {
    pub(super) fn root(&self, path: &Path) -> Result<Signer, AuthorityError> {
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
