//! Enrolment and renewal: evidence in, certificate out.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use tonic::{Request, Status};

use super::Core;
use super::audit::Audit;
use super::peer::Peer;
use super::registry::{Issued as Row, RegistryError, Tables};
use super::session::negotiate;
use crate::clock::unix_seconds;
use crate::entropy;
use crate::fault::Chain;
use crate::identity::proof::{self, Exporter, Purpose};
use crate::identity::service_account::{TokenError, TokenIssuer, claimed_issuer};
use crate::identity::{Issued, Name, Order, PublicKey, Role, SpiffeId, csr, join};
use crate::retry::Retry;
use crate::secret::SecretBytes;
use crate::wire::v1;
use crate::wire::v1::enrol_request::Evidence;

/// How long a nonce is good for.
const NONCE_LIFE: Duration = Duration::from_mins(1);

/// Certificates that are remembered per name.
const CERTIFICATES: usize = 64;

/// A nonce, and when it was given.
type Nonce = ([u8; 32], Instant);

/// One connection to the enrol listener.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    exporter: Exporter,
    address: SocketAddr,
    nonce: Arc<Mutex<Option<Nonce>>>,
}

impl Channel {
    pub(super) fn new(exporter: Exporter, address: SocketAddr) -> Self {
        Self {
            exporter,
            address,
            nonce: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Nonce>> {
        self.nonce.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spends the nonce, whether it is the right one or not.
    fn spend(&self, presented: &[u8]) -> bool {
        let given = self.lock().take();
        given.is_some_and(|(nonce, since)| nonce == presented && since.elapsed() < NONCE_LIFE)
    }
}

pub(super) fn channel<T>(request: &Request<T>) -> Result<Channel, Status> {
    let channel = request.extensions().get::<Channel>().cloned();
    channel.ok_or_else(|| Status::internal("the connection was not prepared"))
}

/// Why an agent gets no certificate. The label goes into the audit record and to the agent.
#[derive(Debug)]
struct Refused {
    label: &'static str,
    message: String,
    retry: bool,
}

impl Refused {
    fn for_good(label: &'static str, message: impl Into<String>) -> Self {
        Self {
            label,
            message: message.into(),
            retry: false,
        }
    }

    fn for_now(label: &'static str, message: impl Into<String>) -> Self {
        Self {
            label,
            message: message.into(),
            retry: true,
        }
    }

    /// Leaves the audit record, and gives the answer.
    fn told(&self, audit: Audit) -> Status {
        audit.with("message", &self.message).refuse(self.label);
        self.status()
    }

    fn status(&self) -> Status {
        let message = format!("{}: {}", self.label, self.message);
        if self.retry {
            Status::unavailable(message)
        } else {
            Status::permission_denied(message)
        }
    }
}

/// What evidence proves.
struct Proven {
    agent: Name,
    join: &'static str,
    accounts: BTreeSet<String>,
}

impl Core {
    pub(super) fn begin(
        &self,
        channel: &Channel,
        request: &v1::BeginRequest,
    ) -> Result<v1::BeginResponse, Status> {
        let version = negotiate(&request.versions)?;
        let nonce: [u8; 32] = entropy::bytes(&*self.entropy);
        *channel.lock() = Some((nonce, Instant::now()));
        Ok(v1::BeginResponse {
            version,
            nonce: nonce.to_vec().into(),
            server_time: unix_seconds(self.clock.now()),
            trust_domain: self.trust_domain.as_str().to_owned(),
            methods: vec!["token".into(), "kubernetes".into()],
        })
    }

    pub(super) async fn enrol(
        self: &Arc<Self>,
        channel: &Channel,
        request: v1::EnrolRequest,
    ) -> Result<v1::EnrolResponse, Status> {
        let claimed: String = request.agent.chars().take(64).collect();
        let audit = || {
            Audit::new("enrol", &channel.address.ip().to_string())
                .with("agent", format!("{claimed:?}"))
        };
        match self.enrolled(channel, request).await {
            Ok((proven, response)) => {
                audit()
                    .with("join", proven.join)
                    .with("id", &response.spiffe_id)
                    .admit();
                Ok(response)
            }
            Err(refused) => Err(refused.told(audit())),
        }
    }

    async fn enrolled(
        self: &Arc<Self>,
        channel: &Channel,
        request: v1::EnrolRequest,
    ) -> Result<(Proven, v1::EnrolResponse), Refused> {
        if !channel.spend(&request.nonce) {
            return Err(Refused::for_now(
                "Nonce",
                "the nonce is not the one given, or too old",
            ));
        }
        let key = csr::public_key(&request.csr_der)
            .map_err(|error| Refused::for_good("CsrInvalid", Chain(&error).to_string()))?;
        let (nonce, exporter) = (&request.nonce, &channel.exporter);
        if !proof::verify(
            &key,
            Purpose::Enrol,
            exporter,
            nonce,
            &request.csr_der,
            &request.proof,
        ) {
            return Err(Refused::for_good(
                "ProofInvalid",
                "the proof is not by the key of the request, over this connection",
            ));
        }
        let agent = request
            .agent
            .parse::<Name>()
            .map_err(|error| Refused::for_good("NameInvalid", Chain(&error).to_string()))?;
        let proven = match request.evidence {
            Some(Evidence::Token(token)) => self.prove_by_token(agent, &key, token).await?,
            Some(Evidence::Kubernetes(evidence)) => {
                self.prove_by_service_account(agent, &evidence)?
            }
            None => {
                return Err(Refused::for_good(
                    "NoEvidence",
                    "the request holds no evidence",
                ));
            }
        };
        let response = self.certify_agent(&proven, key).await?;
        Ok((proven, response))
    }

    /// Spends a join token on one public key.
    async fn prove_by_token(
        self: &Arc<Self>,
        agent: Name,
        key: &PublicKey,
        token: v1::TokenEvidence,
    ) -> Result<Proven, Refused> {
        let secret = SecretBytes::new(token.secret.to_vec());
        let (now, spki) = (
            unix_seconds(self.clock.now()),
            hex::encode(key.spki_sha256()),
        );
        let (wanted, named) = (agent.as_str().to_owned(), token.id.clone());
        let spent = self
            .registry
            .update(move |tables| spend_token(tables, &token.id, &secret, &wanted, spki, now))
            .await;
        match spent {
            Ok(accounts) => Ok(Proven {
                agent,
                join: "token",
                accounts,
            }),
            Err(RegistryError::Refused(label)) => {
                let bearer = self.registry.read(|tables| {
                    let row = tables.tokens.get(&named);
                    row.map(|row| row.agent.clone()).unwrap_or_default()
                });
                Err(token_refused(&label, agent.as_str(), &bearer))
            }
            Err(error) => Err(Refused::for_now("Store", Chain(&error).to_string())),
        }
    }

    fn prove_by_service_account(
        &self,
        agent: Name,
        evidence: &v1::KubernetesEvidence,
    ) -> Result<Proven, Refused> {
        let refused = |error: TokenError| Refused {
            label: error.label(),
            message: match error {
                // The one that names what this hub is called.
                TokenError::Audience => format!(
                    "{error}; project it with the one audience `spiffe://{}/hub`",
                    self.trust_domain.as_str()
                ),
                _ => error.to_string(),
            },
            retry: error.retry() == Retry::Backoff,
        };
        // Issuers are unique: no other cluster's keys have a say.
        let named = claimed_issuer(&evidence.jwt).map_err(refused)?;
        let cluster = self.registry.read(|tables| {
            let mut clusters = tables.clusters.iter();
            let found = clusters.find(|(_, row)| row.issuer == named);
            found.map(|(_, row)| row.clone())
        });
        let Some(cluster) = cluster else {
            return Err(Refused::for_good(
                "ClusterUnknown",
                format!(
                    "no registered cluster has the token's issuer{}; see `sortie cluster add`",
                    shown(&named)
                ),
            ));
        };
        let keys = cluster.jwks.as_bytes();
        let issuer = TokenIssuer::new(&cluster.issuer, keys, &self.trust_domain)
            .map_err(|error| Refused::for_good("ClusterKeys", error.to_string()))?;
        let verdict = issuer.verify(&evidence.jwt, self.clock.now());
        let attested = verdict.map_err(refused)?;
        let subject = format!("{}/{}", attested.namespace, attested.service_account);
        match cluster.allow.get(&subject) {
            Some(allowed) if allowed == agent.as_str() => Ok(Proven {
                agent,
                join: "kubernetes",
                accounts: BTreeSet::new(),
            }),
            _ => Err(Refused::for_good(
                "ServiceAccountNotAllowed",
                format!(
                    "ServiceAccount `{subject}` may not be agent `{agent}`; see `sortie cluster add --allow`"
                ),
            )),
        }
    }

    async fn certify_agent(
        self: &Arc<Self>,
        proven: &Proven,
        key: PublicKey,
    ) -> Result<v1::EnrolResponse, Refused> {
        let name = proven.agent.as_str();
        let spki = hex::encode(key.spki_sha256());
        if self.bans.bans_name(Role::Agent, name) || self.bans.bans_key(&key.spki_sha256()) {
            return Err(Refused::for_good(
                "Revoked",
                format!("agent `{name}` is revoked; `sortie restore agent {name}` ends it"),
            ));
        }
        let issued = self
            .issue(Role::Agent, &proven.agent, key, self.ttls.agent)
            .await?;
        let (name, join) = (name.to_owned(), proven.join.to_owned());
        let row = Row {
            serial: issued.serial.clone(),
            key: spki,
            not_after: unix_seconds(issued.not_after),
        };
        let (named, now) = (proven.accounts.clone(), unix_seconds(self.clock.now()));
        let noted = self.registry.update(move |tables| {
            let mut agent = tables.agents.get(&name).cloned().unwrap_or_default();
            agent.join = join;
            agent.accounts.extend(named);
            note_certificate(&mut agent.certificates, row, now);
            // An account that waited for approval is approved by evidence that names it.
            for account in &agent.accounts {
                if let Some(mut known) = tables.accounts.get(account).cloned()
                    && known.agent == name
                    && !known.approved
                {
                    known.approved = true;
                    tables.accounts.put(account, known);
                }
            }
            tables.agents.put(&name, agent);
            Ok(())
        });
        noted
            .await
            .map_err(|error| Refused::for_now("Store", Chain(&error).to_string()))?;
        Ok(self.response(
            &issued,
            proven.agent.clone(),
            proven.accounts.iter().cloned().collect(),
        ))
    }

    fn response(&self, issued: &Issued, name: Name, accounts: Vec<String>) -> v1::EnrolResponse {
        let id = SpiffeId {
            trust_domain: self.trust_domain.clone(),
            role: Role::Agent,
            name,
        };
        let der = |certificate: &CertificateDer<'_>| bytes::Bytes::from(certificate.to_vec());
        v1::EnrolResponse {
            chain_der: issued.chain.iter().map(der).collect(),
            spiffe_id: id.to_string(),
            issued_at: unix_seconds(issued.issued_at),
            not_after: unix_seconds(issued.not_after),
            trust: Some(self.issuer.roots().to_wire()),
            accounts,
        }
    }

    async fn issue(
        &self,
        role: Role,
        name: &Name,
        public_key: PublicKey,
        ttl: Duration,
    ) -> Result<Issued, Refused> {
        let id = SpiffeId {
            trust_domain: self.trust_domain.clone(),
            role,
            name: name.clone(),
        };
        let order = Order {
            public_key,
            id,
            dns: Vec::new(),
            ips: Vec::new(),
            ttl,
        };
        let issued = self.issuer.issue(&order).await;
        issued.map_err(|error| Refused::for_now("IssuerUnavailable", Chain(&error).to_string()))
    }

    /// Renews an agent's certificate on the strength of its current one.
    pub(super) async fn renew(
        self: &Arc<Self>,
        peer: Peer,
        request: v1::RenewRequest,
    ) -> Result<v1::EnrolResponse, Status> {
        self.session_of(&peer, &request.session)?;
        let name = peer.verified.id().name.clone();
        let audit = || Audit::new("renew", &peer.verified.id().to_string());
        match self.renewed(&peer, &name, &request).await {
            Ok((serial, response)) => {
                audit().with("serial", serial).admit();
                Ok(response)
            }
            Err(refused) => Err(refused.told(audit())),
        }
    }

    async fn renewed(
        self: &Arc<Self>,
        peer: &Peer,
        name: &Name,
        request: &v1::RenewRequest,
    ) -> Result<(String, v1::EnrolResponse), Refused> {
        let key = csr::public_key(&request.csr_der)
            .map_err(|error| Refused::for_good("CsrInvalid", Chain(&error).to_string()))?;
        let (exporter, csr_der) = (&peer.exporter, &request.csr_der);
        if !proof::verify(&key, Purpose::Renew, exporter, &[], csr_der, &request.proof) {
            return Err(Refused::for_good(
                "ProofInvalid",
                "the proof is not by the new key, over this connection",
            ));
        }
        if self.bans.bans_name(Role::Agent, name.as_str()) {
            return Err(Refused::for_good(
                "Revoked",
                format!("agent `{name}` is revoked"),
            ));
        }
        let spki = hex::encode(key.spki_sha256());
        let issued = self.issue(Role::Agent, name, key, self.ttls.agent).await?;
        let row = Row {
            serial: issued.serial.clone(),
            key: spki,
            not_after: unix_seconds(issued.not_after),
        };
        let (agent, now) = (name.as_str().to_owned(), unix_seconds(self.clock.now()));
        let noted = self.registry.update(move |tables| {
            let mut known = tables.agents.get(&agent).cloned().unwrap_or_default();
            note_certificate(&mut known.certificates, row, now);
            tables.agents.put(&agent, known);
            Ok(())
        });
        noted
            .await
            .map_err(|error| Refused::for_now("Store", Chain(&error).to_string()))?;
        Ok((
            issued.serial.clone(),
            self.response(&issued, name.clone(), Vec::new()),
        ))
    }

    /// A certificate for a user of the facade, over a key that never leaves the caller.
    pub(super) async fn certify_client(
        self: &Arc<Self>,
        name: &str,
        csr_der: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(Vec<Vec<u8>>, SystemTime), String> {
        let name: Name = name.parse().map_err(|error| Chain(&error).to_string())?;
        let key = csr::public_key(csr_der).map_err(|error| Chain(&error).to_string())?;
        let ttl = ttl.unwrap_or(self.ttls.client);
        let spki = hex::encode(key.spki_sha256());
        let issued = self
            .issue(Role::Client, &name, key, ttl)
            .await
            .map_err(|r| r.message)?;
        let row = Row {
            serial: issued.serial.clone(),
            key: spki,
            not_after: unix_seconds(issued.not_after),
        };
        let (client, now) = (name.as_str().to_owned(), unix_seconds(self.clock.now()));
        self.registry
            .update(move |tables| {
                let Some(mut known) = tables.clients.get(&client).cloned() else {
                    return Err(RegistryError::Refused(format!(
                        "no client `{client}`; see `sortie client create`"
                    )));
                };
                if known.revoked.is_some() {
                    return Err(RegistryError::Refused(format!(
                        "client `{client}` is revoked"
                    )));
                }
                note_certificate(&mut known.certificates, row, now);
                tables.clients.put(&client, known);
                Ok(())
            })
            .await
            .map_err(|error| Chain(&error).to_string())?;
        let chain = issued
            .chain
            .iter()
            .map(|certificate| certificate.to_vec())
            .collect();
        Ok((chain, issued.not_after))
    }
}

/// Spends the token `id` on the public key with digest `spki` (hex) at `now`, in seconds since the
/// Unix epoch; the accounts that it names. The same key may spend it again: an answer may get lost.
///
/// # Errors
/// The label of the reason. A wrong secret is told like an unknown id.
fn spend_token(
    tables: &mut Tables,
    id: &str,
    secret: &SecretBytes,
    agent: &str,
    spki: String,
    now: u64,
) -> Result<BTreeSet<String>, RegistryError> {
    let refuse = |label: &str| Err(RegistryError::Refused(label.to_owned()));
    let Some(mut row) = tables.tokens.get(id).cloned() else {
        return refuse("TokenUnknown");
    };
    let digest = hex::decode(&row.secret_sha256).ok();
    let digest = digest.and_then(|digest| digest.try_into().ok());
    if !digest.is_some_and(|digest| join::secret_matches(secret, &digest)) {
        return refuse("TokenUnknown");
    }
    if row.expires <= now {
        return refuse("TokenExpired");
    }
    if row.agent != agent {
        return refuse("TokenName");
    }
    if row.spent_on.as_ref().is_some_and(|key| *key != spki) {
        return refuse("TokenUsed");
    }
    let accounts = row.accounts.clone();
    row.spent_on = Some(spki);
    tables.tokens.put(id, row);
    Ok(accounts)
}

/// Longest issuer that is repeated, in bytes.
const ISSUER_BYTES: usize = 128;

/// What a token claims as its issuer, if it can stand in a line.
fn shown(issuer: &str) -> String {
    let fits = issuer.len() <= ISSUER_BYTES && issuer.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        format!(" `{issuer}`")
    } else {
        String::new()
    }
}

/// Why the token was not taken from `agent`; `bearer` is the agent it was made for.
fn token_refused(label: &str, agent: &str, bearer: &str) -> Refused {
    let (label, problem) = match label {
        "TokenExpired" => ("TokenExpired", "has expired".to_owned()),
        // Whoever gets here knew the secret.
        "TokenName" => (
            "TokenName",
            format!("is for agent `{bearer}`, not for `{agent}`"),
        ),
        "TokenUsed" => ("TokenUsed", "was spent on another key".to_owned()),
        _ => ("TokenUnknown", "is not known".to_owned()),
    };
    let message =
        format!("the join token {problem}; `sortie token create {agent}` makes a new one");
    Refused::for_good(label, message)
}

/// Adds a certificate and forgets those that have expired.
fn note_certificate(certificates: &mut Vec<Row>, new: Row, now: u64) {
    certificates.retain(|certificate| certificate.not_after > now);
    if certificates.len() >= CERTIFICATES {
        certificates.remove(0);
    }
    certificates.push(new);
}

#[cfg(test)]
#[path = "enrolment_tests.rs"]
mod tests;
