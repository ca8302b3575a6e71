//! Who is not let in, and what is not given: each refusal leaves an audit record with its reason.
#![expect(
    clippy::expect_used,
    clippy::too_many_lines,
    reason = "helpers of tests fail their test; a table of cases is one test"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use sortie::clock::{Clock as _, ManualClock, SharedClock, SystemClock};
use sortie::identity::client::{EnrolError, Evidence};
use sortie::identity::{Authority, Issuer as _, KeyPair, Order};
use sortie::secret::SecretBytes;
use sortie::tasks::Tasks;
use sortie::wire::v1;
use sortie::{clock, entropy};
use tokio::time::Instant;

use crate::support::eventually::{bounded, eventually};
use crate::support::fake::{self, Client, Fake, private, shake};
use crate::support::foreign_tls::{self, Offer, Version};
use crate::support::pki;
use crate::support::pod::{add_cluster, agent_of_pod, pod_of, token_of};
use crate::support::sortie::Sortie;
use crate::support::stand::{self, Plan, Stand, account_yaml};
use crate::support::testbed::Testbed;

const DOMAIN: &str = "test.sortie.example";

/// Waits until the hub has told `times` refusals for `reason`, with `part` in their details.
async fn told(hub: &Sortie, reason: &str, part: &str, times: usize) {
    let what = format!("{times} records of `{reason}` with `{part}`");
    eventually(&what, || {
        (hub.log().refusals(reason, part) >= times).then_some(())
    })
    .await;
    assert_eq!(hub.log().refusals(reason, part), times, "{reason} {part}");
}

/// A certificate and its key.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Issues a certificate for `path` by the authority in `folder`, at the time of `clock`.
pub(crate) async fn issue(folder: &std::path::Path, clock: SharedClock, path: &str) -> Identity {
    issued_by(&open(folder, clock), path).await
}

/// Opens the authority in `folder`.
fn open(folder: &std::path::Path, clock: SharedClock) -> Authority {
    let domain = DOMAIN.parse().expect("a trust domain");
    Authority::open(folder, domain, clock, entropy::system()).expect("an authority")
}

/// A certificate for `path` that was issued an hour ago and has ended, by a copy of the authority in
/// `folder`, which is younger: so is its intermediate, and the copy makes another one.
async fn ended(folder: &std::path::Path, copy: &std::path::Path, path: &str) -> Identity {
    Authority::copy(folder, copy).expect("a copy");
    let now = SystemClock.now();
    let clock = Arc::new(ManualClock::new(now));
    let authority = open(copy, Arc::clone(&clock) as SharedClock);
    clock.set(now - Duration::from_hours(1));
    issued_by(&authority, path).await
}

async fn issued_by(authority: &Authority, path: &str) -> Identity {
    let key = KeyPair::generate().expect("a key");
    let order = Order {
        public_key: key.public_key().clone(),
        id: format!("spiffe://{DOMAIN}/{path}").parse().expect("an id"),
        dns: Vec::new(),
        ips: if path.starts_with("hub/") {
            vec![[127, 0, 0, 1].into()]
        } else {
            Vec::new()
        },
        ttl: Duration::from_mins(30),
    };
    let issued = authority.issue(&order).await;
    (issued.expect("a certificate").chain, private(&key))
}

/// An account that no agent serves yet, and a client that may use it.
async fn client_of(hub: &Sortie, account: &str, name: &str) -> Client {
    Client::read(&stand::kubeconfig(hub, account, name).await)
}

#[tokio::test]
async fn nobody_gets_past_the_handshake_without_a_certificate_for_this_door() {
    let hub = stand::hub("24h").await;
    let agent = Fake::enrol(&hub, "lab", &["lab"]).await;
    let mut session = agent.hello(1).await.unwrap();
    session.offer("lab", "uid-1").await;
    let client = client_of(&hub, "lab", "visitor").await;
    let (data, facade) = (hub.address("data").await, hub.address("facade").await);
    let own = hub.folder().join("state").join("ca");
    let other = tempfile::tempdir().unwrap();
    let certified = |identity: Identity| Arc::new(client.tls_as(identity, &[b"h2"]));
    for (door, address, role) in [
        ("data", data, "agent/lab"),
        ("facade", facade, "client/visitor"),
    ] {
        let door = format!("door={door}");
        let mut nothing: ClientConfig = pki::client_config(client.roots(), None);
        nothing.alpn_protocols = vec![b"h2".to_vec()];
        let foreign = issue(&other.path().join("ca"), clock::system(), role).await;
        let expired = ended(&own, &other.path().join("past"), role).await;
        let server = issue(&own, clock::system(), "hub/hub-1").await;
        let good = issue(&own, clock::system(), role).await;
        let cases = [
            ("tls", Arc::new(nothing)),
            ("untrusted_root", certified(foreign)),
            ("expired", certified(expired)),
            ("usage", certified(server)),
        ];
        for (reason, config) in cases {
            let before = hub.log().refusals(reason, &door);
            let refused = shake(address, &config).await;
            assert!(refused.is_err(), "{door} {reason}: {refused:?}");
            told(&hub, reason, &door, before + 1).await;
        }
        // The same authority, name and usage at the right time: it was nothing else.
        assert_eq!(
            shake(address, &certified(good)).await,
            Ok(HandshakeKind::Full)
        );
    }

    let at_facade = (agent.certificate.chain(), private(agent.certificate.key()));
    assert!(shake(facade, &certified(at_facade)).await.is_err());
    told(&hub, "role", "door=facade", 1).await;
    assert!(shake(data, &Arc::new(client.tls(&[b"h2"]))).await.is_err());
    told(&hub, "role", "door=data", 1).await;
}

#[tokio::test]
async fn tls_1_2_and_a_peer_that_names_no_protocol_are_refused_at_every_door() {
    let hub = stand::hub("24h").await;
    let ca_file = hub.folder().join("state").join("ca").join("root.pem");
    for door in ["data", "enrol", "facade"] {
        let address = hub.address(door).await;
        let offer = |version| Offer {
            ca_file: &ca_file,
            version,
            alpn: "h2",
            identity: None,
        };
        let old = foreign_tls::handshake(address, &offer(Version::Tls12));
        assert!(old.is_err(), "{door}: {old:?}");
        told(&hub, "tls", &format!("door={door}"), 1).await;
    }
    let address = hub.address("enrol").await;
    let silent = Offer {
        ca_file: &ca_file,
        version: Version::Tls13,
        alpn: "",
        identity: None,
    };
    let refused = foreign_tls::handshake(address, &silent);
    assert!(refused.is_err(), "{refused:?}");
    told(&hub, "alpn", "door=enrol", 1).await;
    let spoken = foreign_tls::handshake(
        address,
        &Offer {
            alpn: "h2",
            ..silent
        },
    );
    assert_eq!(spoken.as_deref(), Ok("TLSv1.3 h2"));
}

#[tokio::test]
async fn a_thousand_attempts_to_resume_are_full_handshakes_at_each_door() {
    const ATTEMPTS: usize = 1000;
    let hub = stand::hub("24h").await;
    let agent = Fake::enrol(&hub, "lab", &["lab"]).await;
    let mut session = agent.hello(1).await.unwrap();
    session.offer("lab", "uid-1").await;
    let client = client_of(&hub, "lab", "visitor").await;
    let identity = (agent.certificate.chain(), private(agent.certificate.key()));
    let doors = [
        ("data", client.tls_as(identity, &[b"h2"])),
        ("facade", client.tls(&[b"h2"])),
    ];
    for (door, mut config) in doors {
        config.resumption = Resumption::in_memory_sessions(64);
        config.enable_early_data = true;
        let (address, config) = (hub.address(door).await, Arc::new(config));
        let mut full = 0;
        for _ in 0..ATTEMPTS {
            let kind = shake(address, &config).await.unwrap();
            full += usize::from(kind == HandshakeKind::Full);
        }
        eprintln!(
            "{door}: {full} of {ATTEMPTS} handshakes were full, {} resumed",
            ATTEMPTS - full
        );
        assert_eq!(full, ATTEMPTS, "{door}");
    }
}

#[tokio::test]
async fn a_token_that_a_hundred_keys_present_at_once_is_good_for_exactly_one() {
    const KEYS: usize = 100;
    let hub = stand::hub("24h").await;
    let join = fake::join(&hub, "lab", &["lab"]).await;
    let tasks = Tasks::new();
    let mut rivals = Vec::new();
    for _ in 0..KEYS {
        // A listener takes few handshakes of one address at once; the connections wait open.
        let connection = fake::enrol_connection(&join, &tasks).await;
        rivals.push((
            connection,
            KeyPair::generate().unwrap(),
            fake::by_token(&join),
        ));
    }
    let asked = rivals
        .iter()
        .map(|(connection, key, evidence)| fake::enrol(connection, &join, evidence, "lab", key));
    let answers = join_all(asked).await;
    let won: Vec<usize> = (0..KEYS).filter(|&at| answers[at].is_ok()).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    for answer in &answers {
        match answer {
            Ok(_) => {}
            Err(EnrolError::Refused { reason }) => {
                assert!(reason.contains("TokenUsed"), "{reason}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    told(&hub, "TokenUsed", "agent=\"lab\"", KEYS - 1).await;

    // The winner may ask again with its key, as after an answer that was lost.
    let (_, key, evidence) = &rivals[won[0]];
    let connection = fake::enrol_connection(&join, &tasks).await;
    fake::enrol(&connection, &join, evidence, "lab", key)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_token_for_another_name_or_with_another_secret_is_refused() {
    let hub = stand::hub("24h").await;
    let join = fake::join(&hub, "lab", &["lab"]).await;
    let tasks = Tasks::new();
    let ask = async |evidence: Evidence, name: &str| {
        let connection = fake::enrol_connection(&join, &tasks).await;
        let key = KeyPair::generate().unwrap();
        fake::enrol(&connection, &join, &evidence, name, &key).await
    };
    let refused = ask(fake::by_token(&join), "shop").await;
    assert!(
        matches!(refused, Err(EnrolError::Refused { .. })),
        "{refused:?}"
    );
    told(&hub, "TokenName", "agent=\"shop\"", 1).await;
    let guessed = Evidence::Token {
        id: join.id.clone(),
        secret: Arc::new(SecretBytes::new(vec![7; 32])),
    };
    let refused = ask(guessed, "lab").await;
    assert!(
        matches!(refused, Err(EnrolError::Refused { .. })),
        "{refused:?}"
    );
    told(&hub, "TokenUnknown", "agent=\"lab\"", 1).await;
    ask(fake::by_token(&join), "lab").await.unwrap();
}

#[tokio::test]
async fn a_pod_joins_with_its_own_token_and_with_no_other() {
    let testbed = Testbed::start(&["-clusters", "2"]).await;
    let [here, elsewhere] = testbed.clusters() else {
        panic!("two clusters")
    };
    let (api, foreign) = (here.api(), elsewhere.api());
    let namespace = api.namespace("join").await;
    let foreign_namespace = foreign.namespace("join").await;
    let pod = pod_of(&api, &namespace, "sortie").await;
    let neighbour = pod_of(&api, &namespace, "neighbour").await;
    let stranger = pod_of(&foreign, &foreign_namespace, "sortie").await;
    let audience = format!("spiffe://{DOMAIN}/hub");
    let plan = Plan::one("lab", &here.kubeconfig, "");
    let hub = stand::hub("24h").await;
    let join = fake::join(&hub, "unused", &[]).await;
    add_cluster(&hub, &api, "here", &format!("{namespace}/sortie"), "lab").await;

    let cases = [
        (
            "TokenAudience",
            token_of(&api, &pod, "https://kubernetes.default.svc", true).await,
        ),
        ("TokenClaims", token_of(&api, &pod, &audience, false).await),
        (
            "ClusterUnknown",
            token_of(&foreign, &stranger, &audience, true).await,
        ),
        (
            "ServiceAccountNotAllowed",
            token_of(&api, &neighbour, &audience, true).await,
        ),
    ];
    let tasks = Tasks::new();
    for (reason, token) in &cases {
        let connection = fake::enrol_connection(&join, &tasks).await;
        let jwt = SecretBytes::new(token.clone().into_bytes());
        let (evidence, key) = (Evidence::Kubernetes { jwt }, KeyPair::generate().unwrap());
        let refused = fake::enrol(&connection, &join, &evidence, "lab", &key).await;
        assert!(
            matches!(refused, Err(EnrolError::Refused { .. })),
            "{reason}: {refused:?}"
        );
        told(&hub, reason, "agent=\"lab\"", 1).await;
        hub.log().assert_without(&[token]);
    }

    // Another cluster's keys have no say, whichever is looked at first.
    let elsewhere = format!("{foreign_namespace}/sortie");
    add_cluster(&hub, &foreign, "zoo", &elsewhere, "shop").await;
    let good = token_of(&api, &pod, &audience, true).await;
    let mut agent = agent_of_pod(&join.data, &join, &good, &plan);
    stand::wait(&hub, &agent, "lab", "PENDING").await;
    stand::ok(hub.command(&["account", "approve", "lab"]).await);
    stand::wait(&hub, &agent, "lab", "ACTIVE").await;

    agent.kill().await;
    stand::wait(&hub, &agent, "lab", "STALE").await;
    agent.start_again();
    let started = Instant::now();
    stand::wait(&hub, &agent, "lab", "ACTIVE").await;
    println!("ACTIVE {:?} after the start", started.elapsed());
    assert!(started.elapsed() <= stand::BACK);
    hub.log().assert_without(&[&good]);
}

#[tokio::test]
async fn an_account_that_another_agent_holds_is_refused_with_the_holders_name() {
    let hub = stand::hub("24h").await;
    let holder = Fake::enrol(&hub, "holder", &["shop"]).await;
    let rival = Fake::enrol(&hub, "rival", &["shop"]).await;
    let mut held = holder.hello(1).await.unwrap();
    let decision = held.offer("shop", "uid-1").await;
    assert_eq!(decision.admission(), v1::Admission::Accepted);
    let mut wanted = rival.hello(2).await.unwrap();
    let decision = wanted.offer("shop", "uid-1").await;
    assert_eq!(decision.admission(), v1::Admission::Taken);
    assert!(
        decision.message.contains("`holder`"),
        "{}",
        decision.message
    );
    told(&hub, "AccountTaken", "agent/rival", 1).await;
}

/// A kind that is asked for at the agent each time.
fn live_kind() -> v1::DiscoveredKind {
    v1::DiscoveredKind {
        resource: Some(v1::Gvr {
            group: String::new(),
            version: "v1".to_owned(),
            resource: "configmaps".to_owned(),
        }),
        kind: "ConfigMap".to_owned(),
        singular: "configmap".to_owned(),
        namespaced: true,
        verbs: vec!["get".to_owned(), "list".to_owned()],
        level: v1::Level::Live.into(),
        preferred_version: true,
        ..v1::DiscoveredKind::default()
    }
}

#[tokio::test]
async fn an_operation_is_answered_by_the_agent_it_was_sent_to_and_by_nobody_else() {
    let hub = stand::hub("24h").await;
    let asked = Fake::enrol(&hub, "asked", &["shop"]).await;
    let thief = Fake::enrol(&hub, "thief", &["other"]).await;
    let mut asked = asked.hello(1).await.unwrap();
    asked.offer("shop", "uid-1").await;
    let _feed = asked.feed("shop", "uid-1", vec![live_kind()]).await;
    let mut thief = thief.hello(2).await.unwrap();
    thief.offer("other", "uid-2").await;
    let client = client_of(&hub, "shop", "visitor").await;
    let https = client.https();
    let path = format!("{}/api/v1/namespaces/web/configmaps/front", client.path);
    let reading = https.send(Method::GET, &path, "application/json", Bytes::new());
    let object = |by: &str| {
        let metadata =
            json!({"name": "front", "namespace": "web", "uid": "1", "resourceVersion": "7"});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"by": by}})
    };
    let messages = |by: &str| {
        let header = v1::HttpHeader {
            name: "content-type".to_owned(),
            value: "application/json".to_owned(),
        };
        let head = v1::OperationAnswer {
            status: 200,
            headers: vec![header],
            ..v1::OperationAnswer::default()
        };
        vec![
            v1::operation_up::Message::Answer(head),
            v1::operation_up::Message::Body(object(by).to_string().into()),
            v1::operation_up::Message::End(v1::OperationEnd {}),
        ]
    };
    let answering = async {
        let dispatch = asked.dispatch().await;
        assert_eq!(
            (dispatch.account.as_str(), dispatch.client.as_str()),
            ("shop", "visitor")
        );
        // The thief knows the operation's random name, and even the session's.
        let stolen = thief.answer(&dispatch.operation, messages("thief")).await;
        assert!(stolen.is_err(), "an operation of another session was taken");
        let own = std::mem::replace(&mut thief.id, asked.id.clone());
        let stolen = thief.answer(&dispatch.operation, messages("thief")).await;
        assert!(stolen.is_err(), "a session of another agent was taken");
        thief.id = own;
        asked
            .answer(&dispatch.operation, messages("asked"))
            .await
            .unwrap()
    };
    let (answer, _down) = tokio::join!(bounded("the answer", reading), answering);
    assert_eq!(answer.unwrap().success()["data"]["by"], "asked");
    told(&hub, "UnknownOperation", "agent/thief", 1).await;
    told(&hub, "UnknownSession", "agent/thief", 1).await;
}

#[tokio::test]
async fn a_kubeconfig_of_one_account_opens_no_other_however_its_path_is_written() {
    let cluster = Testbed::shared().await.cluster();
    let api = cluster.api();
    let namespace = api.namespace("paths").await;
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "planted-service"},
        "spec": {"ports": [{"port": 80}]},
    });
    api.create(
        &format!("/api/v1/namespaces/{namespace}/services"),
        &service,
    )
    .await;
    let mut plan = Plan::one("mine", &cluster.kubeconfig, "");
    plan.accounts.push("theirs".to_owned());
    plan.accounts_yaml += &account_yaml("theirs", &cluster.kubeconfig, "");
    let stand = Stand::start(plan).await;
    let mine = Client::read(&stand.kubeconfig("mine", "visitor").await);
    let theirs = Client::read(&stand.kubeconfig("theirs", "owner").await);
    let inner = format!("api/v1/namespaces/{namespace}/services");
    let (a, b) = (mine.id(), theirs.id());
    let encoded: String = b
        .bytes()
        .fold(String::new(), |path, byte| path + &format!("%{byte:02x}"));
    let paths = [
        format!("/accounts/{b}/{inner}"),
        format!("/accounts/{b}/api"),
        format!("/accounts/{b}/version"),
        format!("/accounts/{b}"),
        format!("/accounts/{encoded}/{inner}"),
        format!("/accounts/{}/{inner}", b.to_uppercase()),
        format!("/accounts/{a}/../{b}/{inner}"),
        format!("/accounts/{a}/%2e%2e/{b}/{inner}"),
        format!("/accounts/{a}/%2E%2E%2F{b}/{inner}"),
        format!("/accounts/./{b}/{inner}"),
        format!("/accounts//{b}/{inner}"),
        format!("//accounts/{b}/{inner}"),
        format!("/accounts/{b}//{inner}"),
        format!("/accounts/{a}//accounts/{b}/{inner}"),
        format!("/accounts/{a}/accounts/{b}/{inner}"),
        format!("/accounts%2f{b}/{inner}"),
        format!("/accounts/{b};{a}/{inner}"),
        format!("/ACCOUNTS/{b}/{inner}"),
        format!("/accounts/0{b}/{inner}"),
        format!("/{inner}"),
    ];
    let https = mine.https();
    for path in &paths {
        let records = refused_operations(&stand.hub, "visitor");
        let kind = "application/json";
        let answer = https
            .send(Method::GET, path, kind, Bytes::new())
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&answer.body);
        assert!(
            answer.status.is_client_error(),
            "{path}: {} {text}",
            answer.status
        );
        assert!(!text.contains("planted-service"), "{path}: {text}");
        let what = format!("an audit record of {path}: {}", answer.status);
        eventually(&what, || {
            (refused_operations(&stand.hub, "visitor") > records).then_some(())
        })
        .await;
    }
    let own = format!("/accounts/{a}/{inner}");
    let answer = https
        .send(Method::GET, &own, "application/json", Bytes::new())
        .await
        .unwrap();
    assert!(answer.success().to_string().contains("planted-service"));
}

fn refused_operations(hub: &Sortie, client: &str) -> usize {
    let log = hub.log();
    let reasons = ["Forbidden", "BadRequest", "NotFound"];
    let actor = format!("client/{client}");
    reasons
        .iter()
        .map(|reason| log.refusals(reason, &actor))
        .sum()
}
