//! The agent's side of enrolment and renewal.

mod certificate;
mod error;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use secrecy::ExposeSecret as _;

use super::channel::{Connection, Hub};
use super::csr;
use super::id::Name;
use super::key::KeyPair;
use super::proof::{self, Purpose};
use super::public_key::SpkiSha256;
use super::renewal::ClockOffset;
use crate::clock::{Clock, from_unix_seconds};
use crate::secret::SecretBytes;
use crate::wire::v1::enrolment_client::EnrolmentClient;
use crate::wire::v1::identity_client::IdentityClient;
use crate::wire::{VERSIONS, v1};

pub use certificate::{AnswerError, Certificate, Expected};
pub use error::EnrolError;

/// Largest answer of the enrolment services that is read, in bytes.
pub const ANSWER_BYTES: usize = 128 * 1024;

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
    let mut hub = enrolment(connection);
    let (begun, clock_offset) = begin(&mut hub, connection, clock).await?;
    let trust_domain = &connection.peer().id().trust_domain;
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

/// Begins an enrolment over a connection to the enrol listener and leaves it at that: nothing is
/// shown, spent or issued. Gives the hub's clock against ours.
pub async fn look(connection: &Connection, clock: &dyn Clock) -> Result<ClockOffset, EnrolError> {
    let begun = begin(&mut enrolment(connection), connection, clock).await;
    begun.map(|(_, offset)| offset)
}

fn enrolment(connection: &Connection) -> EnrolmentClient<Hub> {
    EnrolmentClient::with_origin(connection.service(), connection.origin())
        .max_decoding_message_size(ANSWER_BYTES)
}

async fn begin(
    hub: &mut EnrolmentClient<Hub>,
    connection: &Connection,
    clock: &dyn Clock,
) -> Result<(v1::BeginResponse, ClockOffset), EnrolError> {
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
    if begun.trust_domain != connection.peer().id().trust_domain.as_str() {
        return Err(EnrolError::TrustDomain);
    }
    Ok((begun, clock_offset))
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
        name: &current.id().name,
        trust_domain: &current.id().trust_domain,
        pin: None,
    };
    let renewed = Certificate::check(answer.into_inner(), key.clone(), &expected, now)
        .map_err(EnrolError::Answer)?;
    current
        .trust()
        .succeeded_by(renewed.trust().clone())
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
