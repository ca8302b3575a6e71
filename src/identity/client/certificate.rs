//! A certificate that the hub gave, and the checks on it.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::clock::from_unix_seconds;
use crate::identity::id::{Name, Role, SpiffeId, TrustDomain};
use crate::identity::key::KeyPair;
use crate::identity::profile::profile;
use crate::identity::public_key::SpkiSha256;
use crate::identity::tls::{Material, TlsError};
use crate::identity::trust::{TrustBundle, TrustError};
use crate::identity::verify::{self, PeerError, Wanted};
use crate::wire::v1;

/// Most accounts that join evidence may name.
const ACCOUNTS: usize = crate::limits::ACCOUNTS_PER_AGENT;

/// A certificate that the hub gave and that passed every check, with its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    key: KeyPair,
    id: SpiffeId,
    serial: String,
    answer: v1::EnrolResponse,
    trust: TrustBundle,
    not_after: SystemTime,
}

impl Certificate {
    /// Checks an answer: the chain ends in the given roots, is for `key` and for `name`, and is
    /// valid at `now`, or when it was issued if that is later: a local clock that is behind says
    /// nothing against a certificate.
    pub fn check(
        answer: v1::EnrolResponse,
        key: KeyPair,
        expected: &Expected<'_>,
        now: SystemTime,
    ) -> Result<Self, AnswerError> {
        let update = answer.trust.as_ref().ok_or(AnswerError::Incomplete)?;
        let trust = TrustBundle::from_wire(update)?;
        if let Some(pin) = expected.pin
            && !trust.pins().any(|root| root == *pin)
        {
            return Err(AnswerError::Unpinned);
        }
        let chain = chain(&answer);
        let wanted = Wanted {
            usage: profile(Role::Agent).usage,
            roles: &[Role::Agent],
            trust_domain: Some(expected.trust_domain),
        };
        let now = now.max(from_unix_seconds(answer.issued_at));
        let peer = verify::peer(&chain, &trust, wanted, now)?;
        if peer.id().name != *expected.name || peer.id().to_string() != answer.spiffe_id {
            return Err(AnswerError::Name {
                id: Box::new(peer.id().clone()),
            });
        }
        if peer.spki_sha256() != key.spki_sha256() {
            return Err(AnswerError::Key);
        }
        if answer.issued_at > answer.not_after || answer.accounts.len() > ACCOUNTS {
            return Err(AnswerError::Incomplete);
        }
        Ok(Self {
            key,
            id: peer.id().clone(),
            serial: peer.serial().to_owned(),
            trust,
            not_after: peer.not_after(),
            answer,
        })
    }

    /// The TLS material made of it, judged as in [`Certificate::check`].
    pub fn material(&self, now: SystemTime) -> Result<Material, TlsError> {
        let now = now.max(self.issued_at());
        Material::new(&self.key, &self.chain(), self.trust.clone(), now)
    }

    /// The certificate and its key, to be shown to others than the hub.
    pub fn certified(&self) -> CertifiedKey {
        CertifiedKey::new(self.chain(), self.key.tls_key())
    }

    /// Who it is for.
    pub const fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Serial number of its leaf, lower-case hex without separators.
    pub fn serial(&self) -> String {
        self.serial.clone()
    }

    /// Leaf first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        chain(&self.answer)
    }

    /// Its key.
    pub const fn key(&self) -> &KeyPair {
        &self.key
    }

    /// The roots that came with it.
    pub const fn trust(&self) -> &TrustBundle {
        &self.trust
    }

    /// When it was issued, by the hub's clock.
    pub fn issued_at(&self) -> SystemTime {
        from_unix_seconds(self.answer.issued_at)
    }

    /// When its chain ends.
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The accounts that the join evidence named.
    pub fn accounts(&self) -> &[String] {
        &self.answer.accounts
    }

    /// The hub's answer it was made from.
    pub(in crate::identity) const fn answer(&self) -> &v1::EnrolResponse {
        &self.answer
    }
}

fn chain(answer: &v1::EnrolResponse) -> Vec<CertificateDer<'static>> {
    answer
        .chain_der
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect()
}

/// What an answer is held against.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The agent's name.
    pub name: &'a Name,
    /// The trust domain.
    pub trust_domain: &'a TrustDomain,
    /// The root that must be among the roots; `None` at a renewal, where the roots in force have
    /// judged the hub.
    pub pin: Option<&'a SpkiSha256>,
}

/// Why the hub's answer is not used.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// A part is missing or out of bounds.
    #[error("the answer is incomplete")]
    Incomplete,
    /// The certificate is for another key.
    #[error("the certificate is for another key")]
    Key,
    /// The certificate is for another name.
    #[error("the certificate is for `{id}`")]
    Name {
        /// For whom.
        id: Box<SpiffeId>,
    },
    /// The chain does not pass.
    #[error("the certificate does not pass the checks")]
    Chain(#[from] PeerError),
    /// The roots do not pass.
    #[error("the roots do not pass the checks")]
    Trust(#[from] TrustError),
    /// The pinned root is not among the roots.
    #[error("the pinned root is not among the roots")]
    Unpinned,
}
