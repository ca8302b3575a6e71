//! Enrolment and renewal against a hub that speaks the real protocol over real TCP and TLS.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::Stream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ServerConfig};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use super::*;
use crate::clock::unix_seconds;
use crate::entropy;
use crate::identity::channel::{Closed, ConnectError, connect};
use crate::identity::fixtures::{House, domain, order};
use crate::identity::issue::{Issued, Issuer as _};
use crate::identity::verify::{AdmitAll, PeerError};
use crate::identity::{Role, accept, join, keep, tls};
use crate::retry::Retry;
use crate::tasks::Tasks;
use crate::wire::v1::enrolment_server::{Enrolment, EnrolmentServer};
use crate::wire::v1::identity_server::{Identity, IdentityServer};

/// How the fake hub answers an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Fair,
    Refuses,
    Overloaded,
    /// Finds the service account token expired.
    TokenLapsed,
    /// Certifies another name.
    WrongName,
    /// Certifies another key.
    WrongKey,
    /// Leaves the pinned root out of the roots.
    WrongRoots,
    /// Says it belongs to another trust domain.
    WrongDomain,
    /// Speaks only a later version.
    Later,
}

/// A hub with an authority of its own.
struct FakeHub {
    house: House,
    mood: Mutex<Mood>,
    tasks: Tasks,
}

/// One connection's half of it.
#[derive(Clone)]
struct Desk {
    hub: Arc<FakeHub>,
    enrol: proof::Exporter,
    renew: proof::Exporter,
}

const NONCE: [u8; 32] = [9; 32];

impl FakeHub {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            house: House::new(),
            mood: Mutex::new(Mood::Fair),
            tasks: Tasks::new(),
        })
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    fn pin(&self) -> SpkiSha256 {
        self.house.trust().pins().next().unwrap()
    }

    fn clock(&self) -> crate::clock::SharedClock {
        Arc::clone(&self.house.clock) as _
    }

    async fn listen(self: &Arc<Self>, config: Arc<ServerConfig>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let hub = Arc::clone(self);
        self.tasks.spawn("fake-hub", |stop| async move {
            while let Some(Ok((tcp, _))) = stop.run_until_cancelled(listener.accept()).await {
                let (hub, config) = (Arc::clone(&hub), Arc::clone(&config));
                let tasks = hub.tasks.clone();
                tasks.spawn("fake-hub-connection", |stop| async move {
                    stop.run_until_cancelled(hub.serve(tcp, config)).await;
                });
            }
        });
        address
    }

    async fn serve(self: Arc<Self>, tcp: tokio::net::TcpStream, config: Arc<ServerConfig>) {
        let Ok(accepted) = accept(config, tcp).await else {
            return;
        };
        let export = |purpose| proof::exporter(accepted.stream.get_ref().1, purpose).unwrap();
        let desk = Desk {
            enrol: export(Purpose::Enrol),
            renew: export(Purpose::Renew),
            hub: self,
        };
        let routes = tonic::service::Routes::new(EnrolmentServer::new(desk.clone()))
            .add_service(IdentityServer::new(desk));
        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(
                TokioIo::new(accepted.stream),
                TowerToHyperService::new(routes),
            );
        // How it ends is the agent's to tell.
        drop(served.await);
    }

    async fn enrol_listener(self: &Arc<Self>) -> String {
        let published = self.house.material(Role::Hub, "hub-1").publish();
        self.listen(tls::enrol_server(&published, self.clock()).unwrap())
            .await
    }

    async fn data_listener(self: &Arc<Self>) -> String {
        let published = self.house.material(Role::Hub, "hub-1").publish();
        let config =
            tls::data_server(&published, &domain(), Arc::new(AdmitAll), self.clock()).unwrap();
        self.listen(config).await
    }

    async fn dial(&self, address: &str) -> Result<Connection, ConnectError> {
        let config = tls::enrol_client(self.pin(), self.clock()).unwrap();
        connect(
            address,
            config,
            localhost(),
            Duration::from_secs(10),
            &self.tasks,
        )
        .await
    }

    fn applicant(&self) -> Applicant {
        Applicant {
            name: "prod".parse().unwrap(),
            instance: Bytes::from_static(b"instance"),
            program: "0.1.0".to_owned(),
            host: "pod-1".to_owned(),
            root_spki_sha256: self.pin(),
        }
    }

    async fn answer(&self, csr_der: &[u8]) -> v1::EnrolResponse {
        let mood = self.mood();
        let key = if mood == Mood::WrongKey {
            KeyPair::generate().unwrap().public_key().clone()
        } else {
            csr::public_key(csr_der).unwrap()
        };
        let name = if mood == Mood::WrongName {
            "other"
        } else {
            "prod"
        };
        let order = crate::identity::Order {
            public_key: key,
            ..order(Role::Agent, name, &KeyPair::generate().unwrap())
        };
        let issued: Issued = self.house.authority.issue(&order).await.unwrap();
        let trust = if mood == Mood::WrongRoots {
            House::new().trust()
        } else {
            self.house.trust()
        };
        v1::EnrolResponse {
            chain_der: issued
                .chain
                .iter()
                .map(|der| Bytes::copy_from_slice(der))
                .collect(),
            spiffe_id: order.id.to_string(),
            issued_at: unix_seconds(issued.issued_at),
            not_after: unix_seconds(issued.not_after),
            trust: Some(trust.to_wire()),
            accounts: vec!["prod-eu".to_owned()],
        }
    }
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("127.0.0.1").unwrap()
}

#[tonic::async_trait]
impl Enrolment for Desk {
    async fn begin(
        &self,
        _request: Request<v1::BeginRequest>,
    ) -> Result<Response<v1::BeginResponse>, Status> {
        let mood = self.hub.mood();
        let domain = if mood == Mood::WrongDomain {
            "elsewhere"
        } else {
            "spinnaker.example"
        };
        Ok(Response::new(v1::BeginResponse {
            version: if mood == Mood::Later { 7 } else { 1 },
            nonce: Bytes::copy_from_slice(&NONCE),
            server_time: unix_seconds(self.hub.house.now()) + 30,
            trust_domain: domain.to_owned(),
            methods: vec!["token".to_owned()],
        }))
    }

    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        if self.hub.mood() == Mood::Refuses {
            return Err(Status::permission_denied(
                "TokenSpent
see the log",
            ));
        }
        if self.hub.mood() == Mood::TokenLapsed {
            return Err(Status::unauthenticated("TokenExpired: read it anew"));
        }
        if self.hub.mood() == Mood::Overloaded {
            return Err(Status::unavailable("later"));
        }
        let request = request.into_inner();
        let key = csr::public_key(&request.csr_der).unwrap();
        let purpose = Purpose::Enrol;
        assert!(proof::verify(
            &key,
            purpose,
            &self.enrol,
            &NONCE,
            &request.csr_der,
            &request.proof
        ));
        assert_eq!(request.agent, "prod");
        Ok(Response::new(self.hub.answer(&request.csr_der).await))
    }
}

#[tonic::async_trait]
impl Identity for Desk {
    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        let request = request.into_inner();
        let key = csr::public_key(&request.csr_der).unwrap();
        let purpose = Purpose::Renew;
        assert!(proof::verify(
            &key,
            purpose,
            &self.renew,
            &[],
            &request.csr_der,
            &request.proof
        ));
        Ok(Response::new(self.hub.answer(&request.csr_der).await))
    }

    type WatchTrustStream = Pin<Box<dyn Stream<Item = Result<v1::TrustUpdate, Status>> + Send>>;

    async fn watch_trust(
        &self,
        _request: Request<v1::WatchTrustRequest>,
    ) -> Result<Response<Self::WatchTrustStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

fn token() -> Evidence {
    let secret = join::new_secret(&*entropy::system());
    Evidence::Token {
        id: "one".to_owned(),
        secret: secret.into(),
    }
}

async fn enrol_with(hub: &Arc<FakeHub>, mood: Mood) -> Result<Enrolled, EnrolError> {
    *hub.mood.lock().unwrap() = mood;
    let connection = hub.dial(&hub.enrol_listener().await).await.unwrap();
    let key = KeyPair::generate().unwrap();
    enrol(&connection, &token(), &key, &hub.applicant(), &*hub.clock()).await
}

#[tokio::test]
async fn an_agent_enrols_connects_and_renews() {
    let hub = FakeHub::new();
    let enrolled = enrol_with(&hub, Mood::Fair).await.unwrap();
    let first = enrolled.certificate;
    assert_eq!(
        first.id().to_string(),
        "spiffe://spinnaker.example/agent/prod"
    );
    assert_eq!(first.accounts(), ["prod-eu"]);
    assert_eq!(enrolled.clock_offset.size(), Duration::from_secs(30));
    assert_eq!(
        first.issued_at(),
        hub.house.now(),
        "not the backdated start"
    );

    let config = tls::data_client(&first.material(hub.house.now()).unwrap(), hub.clock()).unwrap();
    let address = hub.data_listener().await;
    let deadline = Duration::from_secs(10);
    let connection = connect(&address, config, localhost(), deadline, &hub.tasks)
        .await
        .unwrap();
    assert_eq!(
        connection.peer().id().to_string(),
        "spiffe://spinnaker.example/hub/hub-1"
    );
    let key = KeyPair::generate().unwrap();
    let second = renew(&connection, Bytes::new(), &key, &first, hub.house.now())
        .await
        .unwrap();
    assert_eq!(second.key().spki_sha256(), key.spki_sha256());
    assert_ne!(second.chain().first(), first.chain().first());
}

#[tokio::test]
async fn a_clock_that_is_behind_does_not_refuse_what_was_just_issued() {
    let hub = FakeHub::new();
    let first = enrol_with(&hub, Mood::Fair).await.unwrap().certificate;
    let slow = hub.house.now() - Duration::from_mins(10);
    let config = tls::data_client(&first.material(slow).unwrap(), hub.clock()).unwrap();
    let address = hub.data_listener().await;
    let deadline = Duration::from_secs(10);
    let connection = connect(&address, config, localhost(), deadline, &hub.tasks)
        .await
        .unwrap();
    let key = KeyPair::generate().unwrap();
    let second = renew(&connection, Bytes::new(), &key, &first, slow)
        .await
        .unwrap();
    assert!(second.material(slow).is_ok());
    // One that has ended stays refused, be the clock ahead or right.
    for late in [
        second.not_after(),
        second.not_after() + Duration::from_hours(1),
    ] {
        let late = late + Duration::from_secs(1);
        assert!(second.material(late).is_err());
        let renewed = renew(&connection, Bytes::new(), &key, &first, late).await;
        assert!(matches!(renewed, Err(EnrolError::Answer(_))), "{renewed:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_for_good_and_an_outage_is_not() {
    let hub = FakeHub::new();
    let refused = enrol_with(&hub, Mood::Refuses).await.unwrap_err();
    assert_eq!(
        (refused.label(), refused.retry()),
        ("refused", Retry::Never)
    );
    assert_eq!(
        refused.to_string(),
        "the hub refused: TokenSpentsee the log"
    );
    let later = enrol_with(&hub, Mood::Overloaded).await.unwrap_err();
    assert_eq!(
        (later.label(), later.retry()),
        ("unavailable", Retry::Backoff)
    );
    let lapsed = enrol_with(&hub, Mood::TokenLapsed).await.unwrap_err();
    assert_eq!(lapsed.retry(), Retry::Backoff);
    let version = enrol_with(&hub, Mood::Later).await.unwrap_err();
    assert!(matches!(version, EnrolError::Version { hub: 7 }));
}

#[tokio::test]
async fn a_wrong_answer_is_never_used() {
    let hub = FakeHub::new();
    let answer = async |mood| {
        let EnrolError::Answer(error) = enrol_with(&hub, mood).await.unwrap_err() else {
            panic!("{mood:?} was refused for another reason");
        };
        error
    };
    assert!(matches!(
        answer(Mood::WrongName).await,
        AnswerError::Name { .. }
    ));
    assert!(matches!(answer(Mood::WrongKey).await, AnswerError::Key));
    assert!(matches!(
        answer(Mood::WrongRoots).await,
        AnswerError::Unpinned
    ));
    let domain = enrol_with(&hub, Mood::WrongDomain).await.unwrap_err();
    assert!(matches!(domain, EnrolError::TrustDomain));
}

#[tokio::test]
async fn a_refused_certificate_is_told_by_its_alert() {
    let hub = FakeHub::new();
    let foreign = House::new();
    let address = hub.data_listener().await;
    // Without a certificate, although the data listener wants one.
    let connection = hub.dial(&address).await;
    assert!(matches!(
        connection,
        Err(ConnectError::Refused {
            source: PeerError::NoRoot,
            ..
        })
    ));
    // With another authority's: the handshake is over before the hub has judged.
    let (key, issued) = foreign.issue(Role::Agent, "prod");
    let stranger = crate::identity::fixtures::client_trusting(&hub.house, &issued.chain, &key);
    let deadline = Duration::from_secs(10);
    let connection = connect(&address, stranger, localhost(), deadline, &hub.tasks)
        .await
        .unwrap();
    let closed = connection.closed().await;
    assert_eq!(closed, Closed::Alert(AlertDescription::UnknownCA));
    assert!(closed.is_refusal() && !closed.is_ban());
}

#[tokio::test]
async fn dropping_a_connection_ends_what_still_uses_it() {
    let hub = FakeHub::new();
    let connection = hub.dial(&hub.enrol_listener().await).await.unwrap();
    let service = connection.service();
    let origin = connection.origin();
    drop(connection);
    let mut left = EnrolmentClient::with_origin(service, origin);
    assert!(left.begin(v1::BeginRequest::default()).await.is_err());
}

#[tokio::test]
async fn an_address_without_a_hub_says_what_was_attempted() {
    let hub = FakeHub::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = || tls::enrol_client(hub.pin(), hub.clock()).unwrap();
    let silent = connect(
        &address,
        config(),
        localhost(),
        Duration::from_millis(50),
        &hub.tasks,
    );
    assert_eq!(silent.await.unwrap_err().label(), "timeout");
    drop(listener);
    let gone = connect(
        &address,
        config(),
        localhost(),
        Duration::from_secs(10),
        &hub.tasks,
    )
    .await;
    let error = gone.unwrap_err();
    assert_eq!(error.label(), "tcp");
    assert_eq!(
        error.to_string(),
        format!("could not connect to `{address}`")
    );
}

#[tokio::test]
async fn a_kept_identity_comes_back_only_to_its_agent() {
    let hub = FakeHub::new();
    let certificate = enrol_with(&hub, Mood::Fair).await.unwrap().certificate;
    let state = hub.house.folder.path().join("agent");
    let name: Name = "prod".parse().unwrap();
    let pin = hub.pin();
    let load = |name: &Name, at| keep::load(&state, name, &pin, at);
    assert!(load(&name, hub.house.now()).unwrap().is_none());
    keep::save(&state, &certificate).unwrap();
    let again = load(&name, hub.house.now()).unwrap().unwrap();
    assert_eq!(again.chain(), certificate.chain());
    assert_eq!(again.issued_at(), certificate.issued_at());
    assert_eq!(again.key().spki_sha256(), certificate.key().spki_sha256());
    let other = load(&"other".parse().unwrap(), hub.house.now());
    assert!(matches!(other, Err(keep::KeepError::Mismatch { .. })));
    assert!(
        load(&name, certificate.not_after()).unwrap().is_none(),
        "it has ended"
    );
    let slow = hub.house.now() - Duration::from_mins(10);
    assert!(load(&name, slow).unwrap().is_some(), "it is not valid yet");
    let elsewhere = keep::load(&state, &name, &FakeHub::new().pin(), hub.house.now());
    assert!(matches!(elsewhere, Err(keep::KeepError::OtherRoot { .. })));
    let path = state.join("identity.bin");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(load(&name, hub.house.now()).is_err());
}

#[test]
fn the_evidence_is_not_printed() {
    assert!(format!("{:?}", token()).contains("[REDACTED]"));
}
