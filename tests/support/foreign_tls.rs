//! Handshakes by another TLS library: what ours is not built to speak, TLS 1.2 above all.

use std::net::SocketAddr;
use std::path::Path;

use super::cache;

/// A version of TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What the foreign client offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer<'a> {
    /// Path of the authority it trusts.
    pub(crate) ca_file: &'a Path,
    /// The one version it speaks.
    pub(crate) version: Version,
    /// The one protocol it offers; empty for no ALPN.
    pub(crate) alpn: &'a str,
    /// Paths of its certificate and key.
    pub(crate) identity: Option<(&'a Path, &'a Path)>,
}

/// Shakes hands with `address`; gives `VERSION ALPN`, or why it was refused.
pub(crate) fn handshake(address: SocketAddr, offer: &Offer<'_>) -> Result<String, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/foreign_tls.py");
    let mut command = cache::python();
    command
        .arg(script)
        .arg(address.to_string())
        .arg(offer.ca_file);
    command.arg(match offer.version {
        Version::Tls12 => "1.2",
        Version::Tls13 => "1.3",
    });
    command.arg(offer.alpn);
    if let Some((certificate, key)) = offer.identity {
        command.arg(certificate).arg(key);
    }
    let output = command.output().expect("Python starts");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match said.split_once(' ') {
        Some(("ok", negotiated)) => Ok(negotiated.to_owned()),
        Some(("refused", reason)) => Err(reason.to_owned()),
        _ => panic!("{said}{}", String::from_utf8_lossy(&output.stderr)),
    }
}
