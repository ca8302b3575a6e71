//! A certificate kit: authorities, and leafs with any names, usages and validity.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// A certificate authority: a root, or one below another.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The certificates between this one and its root, this one first; empty for a root.
    chain: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// A root that calls itself `name`.
    pub(crate) fn root(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(authority_params(name), key).expect("a root");
        Self {
            issuer,
            chain: Vec::new(),
        }
    }

    /// An authority below this one.
    pub(crate) fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::signed_by(authority_params(name), key, &self.issuer)
            .expect("an intermediate authority");
        let mut chain = vec![issuer.der().clone()];
        chain.extend_from_slice(&self.chain);
        Self { issuer, chain }
    }

    /// Its certificate in PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its certificate in DER.
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// Issues a certificate for a new key.
    pub(crate) fn issue(&self, leaf: &Leaf) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf
            .params()
            .signed_by(&key, &*self.issuer)
            .expect("a certificate");
        let mut chain = vec![certificate.der().clone()];
        chain.extend_from_slice(&self.chain);
        Identity { chain, key }
    }
}

/// A client certificate by which a cluster knows `user` of `group`, issued by the authority that the
/// testbed keeps in `ca_file` and beside it.
pub(crate) fn kubernetes_client(ca_file: &Path, user: &str, group: &str) -> Identity {
    let read = |file: &Path| fs::read_to_string(file).expect("the testbed keeps it");
    let ca_key = KeyPair::from_pem(&read(&ca_file.with_extension("key"))).expect("a key");
    let issuer = Issuer::from_ca_cert_pem(&read(ca_file), ca_key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let mut params = Leaf::new()
        .usage(ExtendedKeyUsagePurpose::ClientAuth)
        .params();
    params.distinguished_name.push(DnType::CommonName, user);
    params
        .distinguished_name
        .push(DnType::OrganizationName, group);
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    Identity {
        chain: vec![certificate.der().clone()],
        key,
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// What a leaf certificate shall say.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    names: Vec<SanType>,
    usages: Vec<ExtendedKeyUsagePurpose>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Leaf {
    /// Names and usages are still to be added; valid from an hour ago for a day.
    pub(crate) fn new() -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            names: Vec::new(),
            usages: Vec::new(),
            not_before: now - Duration::HOUR,
            not_after: now + Duration::DAY,
        }
    }

    /// A server on this machine: `localhost` and `127.0.0.1`.
    pub(crate) fn server() -> Self {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        Self::new()
            .dns("localhost")
            .ip(loopback)
            .usage(ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client with one URI name.
    pub(crate) fn client(uri: &str) -> Self {
        Self::new()
            .uri(uri)
            .usage(ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Adds a DNS name.
    pub(crate) fn dns(mut self, name: &str) -> Self {
        self.names
            .push(SanType::DnsName(name.try_into().expect("an ASCII name")));
        self
    }

    /// Adds an address.
    pub(crate) fn ip(mut self, address: IpAddr) -> Self {
        self.names.push(SanType::IpAddress(address));
        self
    }

    /// Adds a URI.
    pub(crate) fn uri(mut self, uri: &str) -> Self {
        self.names
            .push(SanType::URI(uri.try_into().expect("an ASCII URI")));
        self
    }

    /// Adds an extended key usage.
    pub(crate) fn usage(mut self, usage: ExtendedKeyUsagePurpose) -> Self {
        self.usages.push(usage);
        self
    }

    /// Sets the validity.
    pub(crate) const fn valid(mut self, from: OffsetDateTime, to: OffsetDateTime) -> Self {
        self.not_before = from;
        self.not_after = to;
        self
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names.clone_from(&self.names);
        params.extended_key_usages.clone_from(&self.usages);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.not_before = self.not_before;
        params.not_after = self.not_after;
        params.use_authority_key_identifier_extension = true;
        params
    }
}

/// A certificate with its key and the authorities between it and its root.
#[derive(Debug)]
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Identity {
    /// The chain in DER, the leaf first.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    /// The private key, PKCS#8 in DER.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    /// The chain in PEM.
    pub(crate) fn chain_pem(&self) -> String {
        self.chain
            .iter()
            .map(|certificate| pem("CERTIFICATE", certificate))
            .collect()
    }

    /// The private key in PEM.
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Writes `STEM.pem` and `STEM.key` into `folder`.
    pub(crate) fn write(&self, folder: &Path, stem: &str) -> (PathBuf, PathBuf) {
        let certificate = folder.join(format!("{stem}.pem"));
        let key = folder.join(format!("{stem}.key"));
        fs::write(&certificate, self.chain_pem()).expect("the certificate is written");
        fs::write(&key, self.key_pem()).expect("the key is written");
        (certificate, key)
    }
}

/// PEM as RFC 7468 has it: 64 characters a line.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|start| &text[start..text.len().min(start + 64)])
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// TLS 1.3 of a client that trusts `roots` alone; without ALPN, without resumption.
pub(crate) fn client_config(
    roots: impl IntoIterator<Item = CertificateDer<'static>>,
    identity: Option<&Identity>,
) -> ClientConfig {
    client_config_with(
        roots,
        identity.map(|identity| (identity.chain(), identity.key())),
    )
}

/// As [`client_config`], with the chain and the key of a client.
pub(crate) fn client_config_with(
    roots: impl IntoIterator<Item = CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root).expect("a root certificate");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_root_certificates(store);
    let mut config = match client {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .expect("the key is the certificate's"),
        None => builder.with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// TLS 1.3 of a server without client authentication, offering these protocols.
pub(crate) fn server_config(identity: &Identity, alpn: &[&[u8]]) -> ServerConfig {
    server_config_of(identity.chain(), identity.key(), alpn)
}

/// As [`server_config`], of a chain and its key.
pub(crate) fn server_config_of(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: &[&[u8]],
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the key is the certificate's");
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}
