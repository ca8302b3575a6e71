//! The agent's side of enrolment and renewal.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret as _;
use thiserror::Error;
use tonic::Code;

use super::channel::Connection;
use super::csr::{self, CsrError};
use super::id::{Name, Role, SpiffeId, TrustDomain};
use super::key::{KeyError, KeyPair};
use super::profile::profile;
use super::proof::{self, Purpose};
use super::public_key::SpkiSha256;
use super::renewal::ClockOffset;
use super::tls::{Material, TlsError};
use super::trust::{TrustBundle, TrustError};
use super::verify::{self, PeerError, Wanted};
use crate::clock::{Clock, from_unix_seconds};
use crate::retry::Retry;
use crate::secret::SecretBytes;
use crate::wire::v1::enrolment_client::EnrolmentClient;
use crate::wire::v1::identity_client::IdentityClient;
use crate::wire::{VERSIONS, v1};

/// Largest answer of the enrolment services that is read, in bytes.
pub const ANSWER_BYTES: usize = 128 * 1024;

/// Most accounts that join evidence may name.
const ACCOUNTS: usize = crate::limits::ACCOUNTS_PER_AGENT;

/// What an agent shows to be let in.
#[derive(Debug)]
pub enum Evidence {
    /// A one-time token.
    Token {
        /// Which token.
        id: String,
        /// Its secret.
        secret: Arc<SecretBytes>,
    },
    /// A projected `ServiceAccount` token, as just read from its file.
    Kubernetes {
        /// The token.
        jwt: SecretBytes,
    },
}

/// Who asks for a certificate.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// The agent's configured name.
    pub name: Name,
    /// This process.
    pub instance: Bytes,
    /// Program version, for people.
    pub program: String,
    /// Pod or host, for people.
    pub host: String,
    /// SHA-256 of the pinned root's public key.
    pub root_spki_sha256: SpkiSha256,
}

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
    /// valid at `now`.
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

    /// The TLS material made of it.
    pub fn material(&self, now: SystemTime) -> Result<Material, TlsError> {
        Material::new(&self.key, &self.chain(), self.trust.clone(), now)
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
    pub(super) const fn answer(&self) -> &v1::EnrolResponse {
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

/// Why there is no new certificate.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// The hub's answer is not used.
    #[error("the hub's answer cannot be used")]
    Answer(#[source] AnswerError),
    /// The request could not be made.
    #[error("could not make the certificate request")]
    Csr(#[from] CsrError),
    /// The token file holds something else.
    #[error("the service account token is not text")]
    Evidence,
    /// The key failed.
    #[error("could not sign the certificate request")]
    Key(#[from] KeyError),
    /// The hub has refused this agent: trying again with the same evidence is of no use.
    #[error("the hub refused: {reason}")]
    Refused {
        /// The hub's reason, bounded, printable.
        reason: String,
    },
    /// The hub belongs to another trust domain than its certificate says.
    #[error("the hub says it belongs to another trust domain than its certificate")]
    TrustDomain,
    /// The hub could not, or not now.
    #[error("the hub did not give a certificate ({code}): {reason}")]
    Unavailable {
        /// The gRPC code.
        code: Code,
        /// The hub's reason, bounded, printable.
        reason: String,
    },
    /// No protocol version in common.
    #[error("the hub speaks protocol version {hub}, this agent {VERSIONS:?}")]
    Version {
        /// The hub's.
        hub: u32,
    },
}

impl EnrolError {
    /// Fixed label for logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Answer(_) => "answer",
            Self::Csr(_) => "csr",
            Self::Evidence => "evidence",
            Self::Key(_) => "key",
            Self::Refused { .. } => "refused",
            Self::TrustDomain => "trust_domain",
            Self::Unavailable { .. } => "unavailable",
            Self::Version { .. } => "version",
        }
    }

    /// Whether trying again may help.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Refused { .. } | Self::Version { .. } => Retry::Never,
            Self::Answer(_)
            | Self::Csr(_)
            | Self::Evidence
            | Self::Key(_)
            | Self::TrustDomain
            | Self::Unavailable { .. } => Retry::Backoff,
        }
    }

    /// What a gRPC status means here.
    fn from_status(status: &tonic::Status) -> Self {
        let reason = printable(status.message());
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Self::Refused { reason },
            code @ (Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::InvalidArgument
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss) => Self::Unavailable { code, reason },
        }
    }
}

/// Longest reason of a hub that is repeated, in characters.
const REASON_CHARS: usize = 200;

fn printable(text: &str) -> String {
    let shown = text.chars().filter(|character| !character.is_control());
    shown.take(REASON_CHARS).collect()
}

/// A first certificate, with what else was learned.
#[derive(Debug)]
pub struct Enrolled {
    /// The certificate.
    pub certificate: Certificate,
    /// The hub's clock against ours.
    pub clock_offset: ClockOffset,
}

/// Enrols over a connection to the enrol listener.
///
/// The caller gives a deadline by dropping the future; the hub may have spent a token by then, on
/// this key: try again with the same one.
pub async fn enrol(
    connection: &Connection,
    evidence: &Evidence,
    key: &KeyPair,
    applicant: &Applicant,
    clock: &dyn Clock,
) -> Result<Enrolled, EnrolError> {
    let mut hub = EnrolmentClient::with_origin(connection.service(), connection.origin())
        .max_decoding_message_size(ANSWER_BYTES);
    let begin = v1::BeginRequest {
        versions: VERSIONS.to_vec(),
    };
    let begun = hub
        .begin(begin)
        .await
        .map_err(|status| EnrolError::from_status(&status))?;
    let begun = begun.into_inner();
    let clock_offset = ClockOffset::measure(from_unix_seconds(begun.server_time), clock.now());
    if !VERSIONS.contains(&begun.version) {
        return Err(EnrolError::Version { hub: begun.version });
    }
    let trust_domain = &connection.peer().id().trust_domain;
    if begun.trust_domain != trust_domain.as_str() {
        return Err(EnrolError::TrustDomain);
    }
    let csr_der = csr::make(key)?;
    let exporter = connection.exporter(Purpose::Enrol);
    let proof = proof::sign(key, Purpose::Enrol, exporter, &begun.nonce, &csr_der)?;
    let request = v1::EnrolRequest {
        nonce: begun.nonce,
        csr_der: Bytes::copy_from_slice(&csr_der),
        proof: proof.into(),
        evidence: Some(evidence.to_wire()?),
        instance: applicant.instance.clone(),
        program: applicant.program.clone(),
        host: applicant.host.clone(),
        agent: applicant.name.to_string(),
    };
    let answer = hub
        .enrol(request)
        .await
        .map_err(|status| EnrolError::from_status(&status))?;
    let expected = Expected {
        name: &applicant.name,
        trust_domain,
        pin: Some(&applicant.root_spki_sha256),
    };
    let now = clock_offset.hub_time(clock.now());
    let certificate = Certificate::check(answer.into_inner(), key.clone(), &expected, now)
        .map_err(EnrolError::Answer)?;
    Ok(Enrolled {
        certificate,
        clock_offset,
    })
}

/// Renews over a connection to the data listener, for a new `key`.
pub async fn renew(
    connection: &Connection,
    session: Bytes,
    key: &KeyPair,
    current: &Certificate,
    now: SystemTime,
) -> Result<Certificate, EnrolError> {
    let mut hub = IdentityClient::with_origin(connection.service(), connection.origin())
        .max_decoding_message_size(ANSWER_BYTES);
    let csr_der = csr::make(key)?;
    let exporter = connection.exporter(Purpose::Renew);
    let proof = proof::sign(key, Purpose::Renew, exporter, &[], &csr_der)?;
    let request = v1::RenewRequest {
        session,
        csr_der: Bytes::copy_from_slice(&csr_der),
        proof: proof.into(),
    };
    let answer = hub
        .renew(request)
        .await
        .map_err(|status| EnrolError::from_status(&status))?;
    let expected = Expected {
        name: &current.id.name,
        trust_domain: &current.id.trust_domain,
        pin: None,
    };
    let renewed = Certificate::check(answer.into_inner(), key.clone(), &expected, now)
        .map_err(EnrolError::Answer)?;
    current
        .trust
        .succeeded_by(renewed.trust.clone())
        .map_err(|error| EnrolError::Answer(error.into()))?;
    Ok(renewed)
}

impl Evidence {
    #[expect(
        clippy::disallowed_methods,
        reason = "the evidence is sent to the pinned hub"
    )]
    fn to_wire(&self) -> Result<v1::enrol_request::Evidence, EnrolError> {
        Ok(match self {
            Self::Token { id, secret } => v1::enrol_request::Evidence::Token(v1::TokenEvidence {
                id: id.clone(),
                secret: Bytes::copy_from_slice(secret.expose_secret()),
            }),
            Self::Kubernetes { jwt } => {
                let jwt = std::str::from_utf8(jwt.expose_secret().trim_ascii())
                    .map_err(|_not_text| EnrolError::Evidence)?;
                v1::enrol_request::Evidence::Kubernetes(v1::KubernetesEvidence {
                    jwt: jwt.to_owned(),
                })
            }
        })
    }
}

#[cfg(test)]
mod tests;
