//! Leaves, made from an order and its role's profile and nothing else.

use std::time::SystemTime;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::ca::Signer;
use crate::entropy::{self, Entropy};
use crate::identity::issue::{IssueError, Issued, Order};
use crate::identity::profile::{BACKDATE, Usage, profile};

/// A positive serial number with 128 random bits; none if the generator gave nothing.
///
/// The leading one keeps it positive and its length fixed.
pub(super) fn serial(entropy: &dyn Entropy) -> Option<SerialNumber> {
    let drawn: [u8; 16] = entropy::bytes(entropy);
    if drawn == [0; 16] {
        return None;
    }
    let mut octets = vec![1];
    octets.extend_from_slice(&drawn);
    Some(SerialNumber::from(octets))
}

/// Signs the leaf that was ordered.
pub(super) fn issue(
    order: &Order,
    signer: &Signer,
    now: SystemTime,
    entropy: &dyn Entropy,
) -> Result<Issued, IssueError> {
    let id = || Box::new(order.id.clone());
    let sign = |source| IssueError::Sign { id: id(), source };
    let serial = serial(entropy).ok_or_else(|| IssueError::Entropy { id: id() })?;
    let octets = serial.to_bytes();
    let not_before = whole_seconds(now.checked_sub(BACKDATE).unwrap_or(now));
    let not_after = whole_seconds((now + order.ttl).min(signer.not_after));

    let mut params = CertificateParams::default();
    params.distinguished_name = subject(order);
    params.serial_number = Some(serial);
    params.subject_alt_names = names(order).map_err(sign)?;
    // Explicit, because rcgen writes the subject key identifier only then.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match profile(order.id.role).usage {
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    let certificate = params
        .signed_by(&order.public_key, &signer.issuer)
        .map_err(sign)?;
    Ok(Issued {
        chain: vec![certificate.der().clone(), signer.certificate.clone()],
        serial: hex::encode(octets),
        spki_sha256: order.public_key.spki_sha256(),
        issued_at: now,
        not_before,
        not_after,
    })
}

fn subject(order: &Order) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if profile(order.id.role).common_name {
        subject.push(DnType::CommonName, order.id.name.to_string());
    }
    subject
}

fn names(order: &Order) -> Result<Vec<SanType>, rcgen::Error> {
    let mut names = vec![SanType::URI(order.id.to_string().try_into()?)];
    for dns in &order.dns {
        names.push(SanType::DnsName(dns.as_ref().try_into()?));
    }
    names.extend(order.ips.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

/// As certificates write times.
fn whole_seconds(time: SystemTime) -> SystemTime {
    crate::clock::from_unix_seconds(crate::clock::unix_seconds(time))
}

/// Whether `issuer`'s key has signed `certificate`.
pub(super) fn is_signed_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let (Ok((_, certificate)), Ok((_, issuer))) = (
        X509Certificate::from_der(certificate),
        X509Certificate::from_der(issuer),
    ) else {
        return false;
    };
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate
            .verify_signature(Some(issuer.public_key()))
            .is_ok()
}
