//! Rules on single certificates that webpki leaves to its caller.

use std::net::IpAddr;
use std::time::SystemTime;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension};
use x509_parser::public_key::PublicKey;

use super::PeerError;
use crate::clock::from_unix_seconds;
use crate::identity::id::SpiffeId;
use crate::identity::profile::Usage;

/// Longest serial number, in octets (RFC 5280 §4.1.2.2).
const SERIAL_BYTES: usize = 20;

/// Shortest RSA modulus, in bits (CA/Browser Forum BR §6.1.5).
const RSA_BITS: usize = 2048;

/// Start and end of a certificate.
pub(in crate::identity) fn validity(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let at = |seconds: i64| from_unix_seconds(u64::try_from(seconds).unwrap_or(0));
    let validity = certificate.validity();
    (
        at(validity.not_before.timestamp()),
        at(validity.not_after.timestamp()),
    )
}

/// The extensions that the rules look at.
#[derive(Default)]
struct Extensions<'a> {
    ca: Option<bool>,
    key_usage: Option<&'a KeyUsage>,
    key_usage_critical: bool,
    extended: Option<&'a ExtendedKeyUsage<'a>>,
    names: Option<&'a [GeneralName<'a>]>,
    names_critical: bool,
    constraints: Option<bool>,
}

impl<'a> Extensions<'a> {
    fn read(certificate: &'a X509Certificate<'_>) -> Result<Self, &'static str> {
        // RFC 5280 §4.2: no extension twice.
        if certificate.extensions_map().is_err() {
            return Err("carries an extension twice");
        }
        let mut found = Self::default();
        for extension in certificate.iter_extensions() {
            found.take(extension.parsed_extension(), extension.critical)?;
        }
        Ok(found)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign, growing enum: what is not known is refused if it is critical"
    )]
    fn take(
        &mut self,
        extension: &'a ParsedExtension<'a>,
        critical: bool,
    ) -> Result<(), &'static str> {
        match extension {
            ParsedExtension::BasicConstraints(basic) => self.ca = Some(basic.ca),
            ParsedExtension::KeyUsage(usage) => {
                self.key_usage = Some(usage);
                self.key_usage_critical = critical;
            }
            ParsedExtension::ExtendedKeyUsage(usage) => self.extended = Some(usage),
            ParsedExtension::SubjectAlternativeName(names) => {
                self.names = Some(&names.general_names);
                self.names_critical = critical;
            }
            ParsedExtension::NameConstraints(_) => self.constraints = Some(critical),
            ParsedExtension::ParseError { .. } => {
                return Err("carries an extension that is not well-formed");
            }
            _ if critical => return Err("carries a critical extension that is not understood"),
            _ => {}
        }
        Ok(())
    }
}

/// Rules for every certificate.
fn any(certificate: &X509Certificate<'_>) -> Result<(), &'static str> {
    let serial = certificate.raw_serial();
    // RFC 5280 §4.1.2.2: positive, at most 20 octets.
    if serial.len() > SERIAL_BYTES
        || serial.first().is_none_or(|first| *first >= 0x80)
        || serial.iter().all(|octet| *octet == 0)
    {
        return Err("has a serial number that is not positive or too long");
    }
    match certificate.public_key().parsed() {
        Ok(PublicKey::EC(point)) if matches!(point.key_size(), 256 | 384) => Ok(()),
        Ok(PublicKey::RSA(key)) if key.key_size() >= RSA_BITS => Ok(()),
        Ok(PublicKey::Unknown(_)) if is_ed25519(certificate) => Ok(()),
        Ok(_) | Err(_) => Err("has a key that is too weak or of another kind"),
    }
}

fn is_ed25519(certificate: &X509Certificate<'_>) -> bool {
    certificate.public_key().algorithm.algorithm == x509_parser::oid_registry::OID_SIG_ED25519
}

/// Rules for a CA certificate, root or intermediate; what is broken otherwise.
pub(in crate::identity) fn authority(
    certificate: &X509Certificate<'_>,
) -> Result<(), &'static str> {
    any(certificate)?;
    let extensions = Extensions::read(certificate)?;
    // RFC 5280 §4.2.1.9.
    if extensions.ca != Some(true) {
        return Err("is no CA certificate");
    }
    // RFC 5280 §4.1.2.6.
    if certificate.subject().iter().next().is_none() {
        return Err("is a CA certificate without a name");
    }
    // RFC 5280 §4.2.1.3.
    if extensions
        .key_usage
        .is_some_and(|usage| !usage.key_cert_sign())
    {
        return Err("may not sign certificates");
    }
    // RFC 5280 §4.2.1.10.
    if extensions.constraints == Some(false) {
        return Err("has name constraints that are not critical");
    }
    Ok(())
}

/// Rules for a leaf; its identity.
///
/// RFC 5280, SPIFFE X509-SVID §§2, 4, 5.2.
pub(super) fn leaf(certificate: &X509Certificate<'_>, usage: Usage) -> Result<SpiffeId, PeerError> {
    let refuse = |reason| PeerError::Leaf { reason };
    any(certificate).map_err(refuse)?;
    let extensions = Extensions::read(certificate).map_err(refuse)?;
    if extensions.ca == Some(true) {
        return Err(refuse("is a CA certificate"));
    }
    if extensions.constraints.is_some() {
        return Err(refuse("has name constraints, which only a CA has"));
    }
    let key_usage = extensions.key_usage.ok_or(refuse("has no key usage"))?;
    if !key_usage.digital_signature() || !extensions.key_usage_critical {
        return Err(refuse(
            "does not have the critical key usage `digitalSignature`",
        ));
    }
    if key_usage.key_cert_sign() || key_usage.crl_sign() {
        return Err(refuse("may sign certificates or revocation lists"));
    }
    let extended = extensions
        .extended
        .ok_or(refuse("has no extended key usage"))?;
    if !is_exactly(extended, usage) {
        return Err(refuse(
            "does not have exactly the wanted extended key usage",
        ));
    }
    let empty = certificate.subject().iter().next().is_none();
    // RFC 5280 §4.1.2.6.
    if empty && !extensions.names_critical {
        return Err(refuse(
            "has an empty subject and names that are not critical",
        ));
    }
    identity(extensions.names.unwrap_or_default())
}

/// One of the two usages, alone: not `anyExtendedKeyUsage`, not a third one beside it.
fn is_exactly(extended: &ExtendedKeyUsage<'_>, usage: Usage) -> bool {
    let alone = !extended.any
        && !extended.code_signing
        && !extended.email_protection
        && !extended.time_stamping
        && !extended.ocsp_signing
        && extended.other.is_empty();
    let (client, server) = (extended.client_auth, extended.server_auth);
    alone
        && match usage {
            Usage::Client => client && !server,
            Usage::Server => server && !client,
        }
}

/// The identity among the names: exactly one URI, and no name that could not be read.
fn identity(names: &[GeneralName<'_>]) -> Result<SpiffeId, PeerError> {
    let mut uri = None;
    for name in names {
        match name {
            GeneralName::URI(text) => {
                if uri.replace(*text).is_some() {
                    return Err(PeerError::Leaf {
                        reason: "has more than one URI name",
                    });
                }
            }
            GeneralName::DNSName(_) | GeneralName::IPAddress(_) => {}
            GeneralName::Invalid(..) => {
                return Err(PeerError::Leaf {
                    reason: "has a name that is not well-formed",
                });
            }
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::RegisteredID(_) => {
                return Err(PeerError::Leaf {
                    reason: "has a name of another kind",
                });
            }
        }
    }
    uri.ok_or(PeerError::Leaf {
        reason: "has no URI name",
    })?
    .parse()
    .map_err(PeerError::Identity)
}

/// The identity that a leaf claims, before anything else about it is checked.
pub(super) fn claimed(certificate: &X509Certificate<'_>) -> Result<SpiffeId, PeerError> {
    let extensions = Extensions::read(certificate).map_err(|reason| PeerError::Leaf { reason })?;
    identity(extensions.names.unwrap_or_default())
}

/// The hosts a certificate is for, as people write them.
pub(super) fn hosts(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(extensions) = Extensions::read(certificate) else {
        return Vec::new();
    };
    let names = extensions.names.unwrap_or_default();
    names.iter().filter_map(host).collect()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only two kinds of names are hosts"
)]
fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => {
            let address = match octets.len() {
                4 => <[u8; 4]>::try_from(*octets).ok().map(IpAddr::from),
                _ => <[u8; 16]>::try_from(*octets).ok().map(IpAddr::from),
            };
            address.map(|address| address.to_string())
        }
        _ => None,
    }
}
