//! What the tests of this room share: an authority in a folder that goes away, and certificates
//! that break one rule each.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::{CertificateDer, DnsName};
use rustls::sign::CertifiedKey;
use tempfile::TempDir;

use super::issue::{Issued, Issuer as _, Order};
use super::tls::Material;
use super::{Authority, KeyPair, Role, SpiffeId, TrustBundle, TrustDomain};
use crate::clock::{Clock as _, ManualClock};
use crate::entropy;

pub(super) const DOMAIN: &str = "spinnaker.example";

/// When every test begins.
pub(super) fn start() -> SystemTime {
    crate::clock::from_unix_seconds(1_800_000_000)
}

pub(super) fn domain() -> TrustDomain {
    DOMAIN.parse().unwrap()
}

pub(super) fn id(role: Role, name: &str) -> SpiffeId {
    SpiffeId {
        trust_domain: domain(),
        role,
        name: name.parse().unwrap(),
    }
}

/// An authority with its folder and a clock that is moved by hand.
pub(super) struct House {
    pub(super) folder: TempDir,
    pub(super) clock: Arc<ManualClock>,
    pub(super) authority: Authority,
}

impl House {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(crate::clock::from_unix_seconds(
            1_800_000_000,
        )));
        let authority = Authority::open(
            &folder.path().join("ca"),
            domain(),
            Arc::clone(&clock) as _,
            entropy::system(),
        )
        .unwrap();
        Self {
            folder,
            clock,
            authority,
        }
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(super) fn trust(&self) -> TrustBundle {
        self.authority.roots()
    }

    pub(super) fn issue(&self, role: Role, name: &str) -> (KeyPair, Issued) {
        let key = KeyPair::generate().unwrap();
        let order = order(role, name, &key);
        let issued = futures_util::FutureExt::now_or_never(self.authority.issue(&order));
        (key, issued.unwrap().unwrap())
    }

    pub(super) fn material(&self, role: Role, name: &str) -> Material {
        let (key, issued) = self.issue(role, name);
        Material::new(&key, &issued.chain, self.trust(), self.now()).unwrap()
    }
}

/// An order that fits the role's profile.
pub(super) fn order(role: Role, name: &str, key: &KeyPair) -> Order {
    let hub = role == Role::Hub;
    Order {
        public_key: key.public_key().clone(),
        id: id(role, name),
        dns: hub
            .then(|| DnsName::try_from("localhost").unwrap())
            .into_iter()
            .collect(),
        ips: hub.then(|| [127, 0, 0, 1].into()).into_iter().collect(),
        ttl: Duration::from_hours(24),
    }
}

/// A CA whose certificates the tests shape by hand.
pub(super) struct Forge {
    pub(super) root: CertificateDer<'static>,
    issuer: rcgen::Issuer<'static, KeyPair>,
    pub(super) now: SystemTime,
}

impl Forge {
    pub(super) fn new() -> Self {
        Self::with_root(|_params| {})
    }

    /// A forge whose root is changed first.
    pub(super) fn with_root(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let now = start();
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params(now, "forge root");
        change(&mut params);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self {
            root,
            issuer: rcgen::Issuer::new(params, key),
            now,
        }
    }

    pub(super) fn trust(&self) -> TrustBundle {
        TrustBundle::new(1, std::slice::from_ref(&self.root)).unwrap()
    }

    /// A leaf of an agent, signed by the root, changed first.
    pub(super) fn leaf(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        self.leaf_for(&KeyPair::generate().unwrap(), change)
    }

    pub(super) fn leaf_for(
        &self,
        key: &impl rcgen::PublicKeyData,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = leaf_params(self.now);
        change(&mut params);
        params.signed_by(key, &self.issuer).unwrap().der().clone()
    }

    /// A leaf below an intermediate that is changed first.
    pub(super) fn below(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Vec<CertificateDer<'static>> {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params(self.now, "forge intermediate");
        change(&mut params);
        let intermediate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let issuer = rcgen::Issuer::new(params, key);
        let leaf = leaf_params(self.now);
        let leaf = leaf
            .signed_by(&KeyPair::generate().unwrap(), &issuer)
            .unwrap();
        vec![leaf.der().clone(), intermediate]
    }
}

pub(super) fn ca_params(now: SystemTime, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = (now - Duration::from_hours(1)).into();
    params.not_after = (now + Duration::from_hours(1000)).into();
    params
}

pub(super) fn leaf_params(now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri("spiffe://spinnaker.example/agent/prod")];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (now - Duration::from_mins(5)).into();
    params.not_after = (now + Duration::from_hours(24)).into();
    params
}

pub(super) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A client that trusts `house`'s hubs and presents whatever it is given.
pub(super) fn client_trusting(
    house: &House,
    chain: &[CertificateDer<'static>],
    key: &KeyPair,
) -> Arc<rustls::ClientConfig> {
    let hubs = super::verify::HubVerifier::joined(house.trust(), domain());
    let certified = CertifiedKey::new(chain.to_vec(), key.tls_key());
    super::tls::client(
        hubs,
        Some(Arc::new(certified)),
        Arc::clone(&house.clock) as _,
    )
    .unwrap()
}
