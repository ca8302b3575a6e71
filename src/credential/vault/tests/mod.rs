mod leases;
mod logins;
mod stores;

use std::sync::atomic::{AtomicUsize, Ordering};

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::credential::Surroundings;
use crate::credential::connection::Connection;
use crate::credential::testkit::{Authority, Logged, Reply, Scripted};
use crate::credential::{EngineSettings, Engines, Key, Locator, MAX_STALE, REFRESH, Reason};

const SECRET: &str = r#"{"request_id":"r","lease_id":"","lease_duration":0,"renewable":false,"warnings":null,"auth":null,"wrap_info":null,"data":{"data":{"kubeconfig":"planted-kubeconfig","other":"planted-other","number":7,"encoded":"cGxhbnRlZA=="},"metadata":{"created_time":"t","deletion_time":"","destroyed":false,"version":3,"custom_metadata":null}}}"#;
const LOGIN: &str = r#"{"request_id":"r","lease_id":"","lease_duration":0,"renewable":false,"warnings":null,"data":null,"wrap_info":null,"auth":{"client_token":"planted-token","accessor":"a","policies":[],"token_policies":[],"metadata":null,"lease_duration":60,"renewable":true,"entity_id":"","token_type":"service","orphan":true}}"#;
const LOOKUP: &str = r#"{"request_id":"r","lease_id":"","lease_duration":0,"renewable":false,"warnings":null,"auth":null,"wrap_info":null,"data":{"accessor":"a","creation_time":1,"creation_ttl":1,"display_name":"d","entity_id":"e","expire_time":null,"explicit_max_ttl":0,"id":"i","identity_policies":null,"issue_time":null,"meta":null,"num_uses":0,"orphan":true,"path":"p","policies":[],"renewable":true,"ttl":1,"last_renewal":null}}"#;
const MOUNT: &str = r#"{"request_id":"r","lease_id":"","lease_duration":0,"renewable":false,"warnings":null,"auth":null,"wrap_info":null,"data":{"path":"secret/","type":"kv","options":{"version":"2"},"uuid":"u"}}"#;
const WRAPPED: &str = r#"{"request_id":"r","lease_id":"","lease_duration":0,"renewable":false,"warnings":null,"auth":null,"wrap_info":null,"data":{"creation_path":"auth/approle/role/agent/secret-id","creation_time":"t","creation_ttl":60,"secret_id":"planted-secret-id"}}"#;
const DENIED: &str = r#"{"errors":["permission denied: planted-detail"]}"#;

struct Bench {
    server: Scripted,
    folder: TempDir,
    authority: Authority,
}

impl Bench {
    /// What is mounted is told before the script is asked.
    async fn start(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::bare(move |request| {
            if request.starts_with("GET /v1/sys/internal/ui/mounts/secret/") {
                return Reply::json(200, MOUNT);
            }
            script(request)
        })
        .await
    }

    async fn bare(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let authority = Authority::new();
        let server = Scripted::start(authority.tls(&[]), script).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(folder.path().join("token"), "planted-file-token\n").unwrap();
        Self {
            server,
            folder,
            authority,
        }
    }

    fn settings(&self, auth: AuthMethod) -> crate::credential::Settings {
        crate::credential::Settings {
            name: "prod".to_owned(),
            default: true,
            refresh: REFRESH,
            max_stale: MAX_STALE,
            engine: EngineSettings::Vault(self.own_settings(auth)),
        }
    }

    fn own_settings(&self, auth: AuthMethod) -> Settings {
        Settings {
            address: format!("https://127.0.0.1:{}", self.server.address.port()),
            namespace: None,
            ca_file: self.folder.path().join("ca.pem"),
            certificate: None,
            auth,
        }
    }

    fn with_file(&self) -> Connection {
        let token = self.folder.path().join("token");
        Connection::new(
            self.settings(AuthMethod::TokenFile(token)),
            &Surroundings::of_system(),
        )
    }

    fn with_login(&self) -> Connection {
        let proof = Proof::Kubernetes {
            role: "sortie".to_owned(),
            token_file: self.folder.path().join("token"),
        };
        Connection::new(
            self.settings(login("kubernetes", proof)),
            &Surroundings::of_system(),
        )
    }

    /// What was asked, other than what is mounted.
    fn requests(&self) -> Vec<String> {
        let mut requests = self.server.requests();
        requests.retain(|request| !request.contains("/ui/mounts/"));
        requests
    }
}

fn login(mount: &str, proof: Proof) -> AuthMethod {
    AuthMethod::Login {
        mount: mount.to_owned(),
        proof,
    }
}

fn field(key: &str) -> Reference {
    Reference {
        profile: None,
        locator: Locator::Vault {
            mount: "secret".to_owned(),
            path: "team/shop 1".to_owned(),
            version: None,
        },
        key: Key::Named(key.to_owned()),
        base64: key == "encoded",
    }
}

fn text(fetched: &Fetched) -> &[u8] {
    #[expect(clippy::disallowed_methods, reason = "a test compares it")]
    fetched.document.expose_secret()
}

#[tokio::test]
async fn a_field_is_read_with_its_version() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    let vault = bench.with_file();
    let fetched = vault.fetch(&field("kubeconfig")).await.unwrap();
    assert_eq!(text(&fetched), b"planted-kubeconfig");
    assert_eq!(fetched.version.as_deref(), Some("3@t"));
    assert!(!format!("{vault:?} {fetched:?}").contains("planted"));
    let fetched = vault.fetch(&field("encoded")).await.unwrap();
    assert_eq!(text(&fetched), b"planted");
    let request = &bench.requests()[0];
    assert!(
        request.starts_with("GET /v1/secret/data/team/shop%201? HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request
            .to_lowercase()
            .contains("x-vault-token: planted-file-token")
    );
}

#[tokio::test]
async fn a_version_is_asked_for_and_the_default_engine_is_found() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    let auth = AuthMethod::TokenFile(bench.folder.path().join("token"));
    let engines = Engines::new(vec![bench.settings(auth)], Surroundings::of_system());
    let fetch = async |text: &str| engines.fetch(&Reference::parse(text).unwrap()).await;
    fetch("sec+vault://prod/secret/a?version=2#kubeconfig")
        .await
        .unwrap();
    fetch("encrypted:vault!e:secret!p:a!k:kubeconfig")
        .await
        .unwrap();
    let error = fetch("sec+vault://other/secret/a#kubeconfig")
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnavailable);
    let requests = bench.requests();
    assert!(requests[0].starts_with("GET /v1/secret/data/a?version=2 "));
    assert_eq!(requests.len(), 2);
}

#[tokio::test]
async fn one_login_serves_many_fetches_and_is_repeated_once_on_403() {
    let reads = AtomicUsize::new(0);
    let bench = Bench::start(move |request| {
        if request.starts_with("POST /v1/auth/kubernetes/login ") {
            return Reply::json(200, LOGIN);
        }
        match reads.fetch_add(1, Ordering::Relaxed) {
            2 => Reply::json(403, DENIED),
            _ => Reply::json(200, SECRET),
        }
    })
    .await;
    let vault = bench.with_login();
    for _ in 0..3 {
        vault.fetch(&field("kubeconfig")).await.unwrap();
    }
    let requests = bench.requests();
    let logins: Vec<_> = requests.iter().filter(|r| r.starts_with("POST")).collect();
    // The login before is given back.
    assert!(logins[2].starts_with("POST /v1/auth/token/revoke-self "));
    assert_eq!((logins.len(), requests.len()), (3, 7));
    assert!(logins[0].contains(r#""role":"sortie""#) && logins[0].contains("planted-file-token"));
}

#[tokio::test]
async fn a_fresh_token_that_is_refused_means_denied() {
    let bench = Bench::start(|request| {
        if request.starts_with("POST") {
            Reply::json(200, LOGIN)
        } else {
            Reply::json(403, DENIED)
        }
    })
    .await;
    let error = bench
        .with_login()
        .fetch(&field("kubeconfig"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, FetchErrorKind::Denied);
    assert_eq!(bench.requests().len(), 5);
}

#[tokio::test]
async fn a_refused_login_means_unauthenticated() {
    for status in [400, 403] {
        let bench = Bench::start(move |_| Reply::json(status, DENIED)).await;
        let error = bench
            .with_login()
            .fetch(&field("kubeconfig"))
            .await
            .unwrap_err();
        assert_eq!(error.reason(), Reason::EngineUnauthenticated);
        assert_eq!(bench.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_token_from_a_file_is_looked_up_to_tell_who_is_to_blame() {
    for (lookup, body, reason) in [
        (403, DENIED, Reason::EngineUnauthenticated),
        (200, LOOKUP, Reason::SecretDenied),
    ] {
        let bench = Bench::start(move |request| {
            if request.contains("lookup-self") {
                Reply::json(lookup, body)
            } else {
                Reply::json(403, DENIED)
            }
        })
        .await;
        let error = bench
            .with_file()
            .fetch(&field("kubeconfig"))
            .await
            .unwrap_err();
        assert_eq!(error.reason(), reason);
        assert_eq!(bench.requests().len(), 3);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_token_stays() {
    let other = Bench::start(|_| Reply::json(200, SECRET)).await;
    let target = format!("https://127.0.0.1:{}/", other.server.address.port());
    let bench = Bench::start(move |_| {
        Reply::Bytes(
            format!("HTTP/1.1 307 X\r\nlocation: {target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .into_bytes(),
        )
    })
    .await;
    let both = format!("{}{}", bench.authority.pem(), other.authority.pem());
    std::fs::write(bench.folder.path().join("ca.pem"), both).unwrap();
    let error = bench
        .with_file()
        .fetch(&field("kubeconfig"))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnavailable);
    assert_eq!(error.status, Some(307));
    assert!(error.to_string().contains("redirects are not followed"));
    assert_eq!(bench.requests().len(), 1);
    assert!(other.server.requests().is_empty());
}

/// Answers that go wrong, the field asked for, and what is made of them.
fn failures() -> Vec<(Reply, &'static str, Reason)> {
    const PLANTED: &str = "planted-in-the-answer";
    let wrong = SECRET.replace(r#""version":3"#, r#""version":"planted""#);
    let list = SECRET.replace(r#""data":{"data":{"#, r#""data":{"data":["planted"],"x":{"#);
    vec![
        (
            Reply::json(404, r#"{"errors":[]}"#),
            "kubeconfig",
            Reason::SecretNotFound,
        ),
        (
            Reply::json(404, r#"{"data":{"data":null,"metadata":{"planted":1}}}"#),
            "kubeconfig",
            Reason::SecretNotFound,
        ),
        (
            Reply::json(429, PLANTED),
            "kubeconfig",
            Reason::EngineThrottled,
        ),
        (
            Reply::json(500, PLANTED),
            "kubeconfig",
            Reason::EngineUnavailable,
        ),
        (
            Reply::json(502, PLANTED),
            "kubeconfig",
            Reason::EngineUnavailable,
        ),
        (
            Reply::json(503, r#"{"errors":["Vault is sealed"]}"#),
            "kubeconfig",
            Reason::EngineSealed,
        ),
        (
            Reply::json(503, PLANTED),
            "kubeconfig",
            Reason::EngineUnavailable,
        ),
        (
            Reply::json(200, "{\"data\": planted"),
            "kubeconfig",
            Reason::SecretCorrupt,
        ),
        (
            Reply::json(200, "\"planted\""),
            "kubeconfig",
            Reason::SecretCorrupt,
        ),
        (Reply::json(200, ""), "kubeconfig", Reason::SecretCorrupt),
        (
            Reply::json(200, &wrong),
            "kubeconfig",
            Reason::SecretCorrupt,
        ),
        (Reply::json(200, &list), "kubeconfig", Reason::SecretCorrupt),
        (Reply::json(200, SECRET), "missing", Reason::SecretField),
        (Reply::json(200, SECRET), "number", Reason::SecretCorrupt),
        (
            Reply::Bytes(b"planted garbage\r\n\r\n".to_vec()),
            "kubeconfig",
            Reason::EngineUnavailable,
        ),
        (
            Reply::Bytes(b"HTTP/1.1 200 X\r\ncontent-length: 99\r\n\r\nplanted".to_vec()),
            "kubeconfig",
            Reason::EngineUnavailable,
        ),
    ]
}

#[tokio::test]
async fn no_failure_shows_a_planted_secret() {
    for (reply, key, reason) in failures() {
        let reply = std::sync::Mutex::new(Some(reply));
        let bench =
            Bench::start(move |_| reply.lock().unwrap().take().unwrap_or(Reply::Hang)).await;
        let error = bench.with_file().fetch(&field(key)).await.unwrap_err();
        let shown = format!("{} {error:?}", crate::fault::Chain(&error));
        assert_eq!(error.reason(), reason, "{shown}");
        assert!(!shown.contains("planted"), "{shown}");
    }
}

#[tokio::test]
async fn an_engine_that_hangs_is_left_at_the_deadline() {
    let bench = Bench::start(|_| Reply::Hang).await;
    let mut vault = bench.with_file();
    vault.deadline = Duration::from_millis(200);
    let error = vault.fetch(&field("kubeconfig")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnavailable);
}

#[tokio::test]
async fn an_endless_answer_is_given_up() {
    let bench = Bench::start(|_| Reply::json(200, &" ".repeat(5 * 1024 * 1024))).await;
    let error = bench
        .with_file()
        .fetch(&field("kubeconfig"))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnavailable);
    assert!(error.to_string().contains("too large"), "{error}");
}

#[tokio::test]
async fn only_the_configured_authority_is_trusted() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    std::fs::write(bench.folder.path().join("ca.pem"), Authority::new().pem()).unwrap();
    let error = bench
        .with_file()
        .fetch(&field("kubeconfig"))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnavailable);
    assert!(
        error.to_string().contains("certificate is not one of"),
        "{error}"
    );
    assert!(bench.requests().is_empty());
}

#[tokio::test]
async fn a_token_that_a_header_cannot_carry_is_refused_before_the_library_sees_it() {
    let bench = Bench::start(|_| Reply::json(200, &LOGIN.replace("planted-token", "a\\nb"))).await;
    let error = bench
        .with_login()
        .fetch(&field("kubeconfig"))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnauthenticated);
    std::fs::write(bench.folder.path().join("token"), "two words").unwrap();
    let error = bench
        .with_file()
        .fetch(&field("kubeconfig"))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnauthenticated);
}

#[tokio::test]
async fn no_log_line_shows_a_planted_secret() {
    let (logged, _guard) = Logged::start();
    let bench = Bench::start(|request| {
        if request.starts_with("POST") {
            Reply::json(200, LOGIN)
        } else {
            Reply::json(200, SECRET)
        }
    })
    .await;
    bench
        .with_login()
        .fetch(&field("kubeconfig"))
        .await
        .unwrap();
    for (reply, key, _) in failures() {
        let reply = std::sync::Mutex::new(Some(reply));
        let bench =
            Bench::start(move |_| reply.lock().unwrap().take().unwrap_or(Reply::Hang)).await;
        bench.with_file().fetch(&field(key)).await.unwrap_err();
    }
    let text = logged.text();
    assert!(
        text.contains("TRACE") && text.contains("rustify"),
        "nothing was captured"
    );
    assert!(!text.contains("planted"), "{text}");
}
