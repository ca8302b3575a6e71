use crate::credential::Surroundings;
use std::fs;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, Once};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::checksum::crc32c;
use super::{AuthMethod, Secrets, Settings};
use crate::credential::connection::Connection;
use crate::credential::testkit::{Authority, Logged, Reply, Scripted};
use crate::credential::{
    Engine as _, EngineSettings, Fetched, Key, Locator, MAX_STALE, REFRESH, Reason, Reference,
};
use crate::fault::Chain;

/// A key as Google gives it; made once, since that takes a while.
static KEY: LazyLock<String> = LazyLock::new(|| {
    let size = rcgen::RsaKeySize::_2048;
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
    key.serialize_pem()
});

const DOCUMENT: &[u8] = b"kubeconfig: planted-kubeconfig\nteams:\n  shop: planted-shop\n";

/// The library takes the provider of the process.
pub(super) fn with_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let _another = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

/// The file of a service account's key.
pub(super) fn key_file(id: &str) -> Value {
    json!({
        "type": "service_account",
        "project_id": "lab",
        "private_key_id": id,
        "private_key": *KEY,
        "client_email": "sortie@lab.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    })
}

struct Bench {
    server: Scripted,
    folder: TempDir,
}

impl Bench {
    async fn start(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        with_provider();
        let authority = Authority::new();
        let server = Scripted::start(authority.tls(&[]), script).await;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        fs::write(
            folder.path().join("key.json"),
            key_file("first").to_string(),
        )
        .unwrap();
        Self { server, folder }
    }

    /// Answers once, then hangs.
    async fn once(reply: Reply) -> Self {
        let reply = Mutex::new(Some(reply));
        Self::start(move |_| reply.lock().unwrap().take().unwrap_or(Reply::Hang)).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self) -> Settings {
        Settings {
            endpoint: format!("https://127.0.0.1:{}", self.server.address.port()),
            ca_file: Some(self.path("ca.pem")),
            auth: AuthMethod::KeyFile(self.path("key.json")),
        }
    }

    fn connection(&self, engine: fn(Settings) -> EngineSettings) -> Connection {
        Connection::new(
            crate::credential::Settings {
                name: "prod".to_owned(),
                default: true,
                refresh: REFRESH,
                max_stale: MAX_STALE,
                engine: engine(self.settings()),
            },
            &Surroundings::of_system(),
        )
    }

    fn secrets(&self) -> Connection {
        self.connection(EngineSettings::GoogleSecretsManager)
    }

    fn storage(&self) -> Connection {
        self.connection(EngineSettings::Gcs)
    }
}

fn key(name: &str) -> Key {
    match name {
        "" => Key::Whole,
        name => Key::Named(name.to_owned()),
    }
}

fn secret(name: &str) -> Reference {
    Reference {
        profile: None,
        locator: Locator::GoogleSecret {
            project: "lab".to_owned(),
            secret: "shop".to_owned(),
            version: None,
        },
        key: key(name),
        base64: false,
    }
}

fn object(name: &str) -> Reference {
    Reference {
        profile: None,
        locator: Locator::Gcs {
            bucket: "bucket".to_owned(),
            object: "team/shop 1.yaml".to_owned(),
        },
        key: key(name),
        base64: false,
    }
}

fn text(fetched: &Fetched) -> &[u8] {
    #[expect(clippy::disallowed_methods, reason = "a test compares it")]
    fetched.document.expose_secret()
}

/// What Secret Manager answers about version 5 with this payload.
fn accessed(data: &[u8]) -> Value {
    json!({
        "name": "projects/123/secrets/shop/versions/5",
        "payload": {"data": STANDARD.encode(data), "dataCrc32c": crc32c(data).to_string()},
    })
}

fn read(data: &[u8]) -> Reply {
    Reply::json(200, &accessed(data).to_string())
}

fn refused(code: u16, status: &str) -> Reply {
    let told = json!({"error": {"code": code, "status": status, "message": "planted"}});
    Reply::json(code, &told.to_string())
}

fn with_headers(status: u16, headers: &str, body: &[u8]) -> Reply {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    Reply::Bytes([head.as_bytes(), body].concat())
}

fn stored(data: &[u8]) -> Reply {
    let checksum = STANDARD.encode(crc32c(data).to_be_bytes());
    let headers = format!(
        "x-goog-generation: 17\r\nx-goog-hash: crc32c={checksum}\r\nx-goog-hash: md5=planted\r\n"
    );
    with_headers(200, &headers, data)
}

#[tokio::test]
async fn a_secret_is_read_whole_or_by_key_with_the_number_of_its_version() {
    let bench = Bench::start(|_| read(DOCUMENT)).await;
    let secrets = bench.secrets();
    let fetched = secrets.fetch(&secret("")).await.unwrap();
    assert_eq!(text(&fetched), DOCUMENT);
    assert_eq!(fetched.version.as_deref(), Some("5"));
    assert!(!format!("{secrets:?} {fetched:?}").contains("planted"));
    for (name, value) in [
        ("kubeconfig", "planted-kubeconfig"),
        ("teams.shop", "planted-shop"),
    ] {
        let fetched = secrets.fetch(&secret(name)).await.unwrap();
        assert_eq!(text(&fetched), value.as_bytes());
    }
    let request = bench.server.requests()[0].to_lowercase();
    let line = "get /v1/projects/lab/secrets/shop/versions/latest:access http/1.1\r\n";
    assert!(request.starts_with(line), "{request}");
    assert!(request.contains("authorization: bearer ey"), "{request}");
}

#[tokio::test]
async fn a_named_version_is_asked_for_and_every_byte_comes_through() {
    let binary: Vec<u8> = (0..=255).collect();
    let answer = binary.clone();
    let bench = Bench::start(move |_| read(&answer)).await;
    let mut reference = secret("");
    if let Locator::GoogleSecret { version, .. } = &mut reference.locator {
        *version = Some("5/../6".to_owned());
    }
    let fetched = bench.secrets().fetch(&reference).await.unwrap();
    assert_eq!(text(&fetched), binary);
    let request = &bench.server.requests()[0];
    assert!(
        request.contains("/versions/5%2F..%2F6:access "),
        "{request}"
    );
}

#[tokio::test]
async fn a_payload_needs_its_checksum() {
    let right = crc32c(DOCUMENT);
    for told in [
        Value::Null,
        json!((right ^ 1).to_string()),
        json!("planted"),
        json!(format!("{right}.0")),
        json!(-1),
    ] {
        let mut answer = accessed(DOCUMENT);
        answer["payload"]["dataCrc32c"] = told;
        let bench = Bench::once(Reply::json(200, &answer.to_string())).await;
        let error = bench.secrets().fetch(&secret("")).await.unwrap_err();
        assert_eq!(error.reason(), Reason::SecretCorrupt);
        assert!(error.to_string().contains("checksum"), "{error}");
    }
    let mut plain = accessed(DOCUMENT);
    plain["payload"]["dataCrc32c"] = json!(right);
    let bench = Bench::once(Reply::json(200, &plain.to_string())).await;
    bench.secrets().fetch(&secret("")).await.unwrap();
}

#[tokio::test]
async fn the_version_is_compared_without_reading_the_secret() {
    let answers = Mutex::new(vec![
        refused(403, "PERMISSION_DENIED"),
        refused(503, "UNAVAILABLE"),
        Reply::json(
            200,
            r#"{"name":"projects/1/secrets/shop/versions/5","state":"DISABLED"}"#,
        ),
        Reply::json(
            200,
            r#"{"name":"projects/1/secrets/shop/versions/6","state":"ENABLED"}"#,
        ),
        Reply::json(
            200,
            r#"{"name":"projects/1/secrets/shop/versions/5","state":"ENABLED"}"#,
        ),
    ]);
    let next = move |_: &str| answers.lock().unwrap().pop().unwrap_or(Reply::Hang);
    let bench = Bench::start(next).await;
    let secrets = Secrets::new(bench.settings());
    let reference = secret("");
    let mut current = Vec::new();
    for _ in 0..4 {
        current.push(secrets.is_current(&reference, "5").await.ok());
    }
    assert_eq!(
        current,
        [Some(Some(true)), Some(Some(false)), Some(Some(false)), None]
    );
    // Not allowed to look: not asked again.
    for _ in 0..2 {
        assert_eq!(secrets.is_current(&reference, "5").await, Ok(None));
    }
    let requests = bench.server.requests();
    assert_eq!(requests.len(), 5);
    assert!(requests[0].starts_with("GET /v1/projects/lab/secrets/shop/versions/latest HTTP"));
}

#[tokio::test]
async fn an_object_is_read_whole_or_by_dotted_key_with_its_generation() {
    let bench = Bench::start(|request| {
        if request.contains("fields=generation") {
            Reply::json(200, r#"{"generation":"17"}"#)
        } else {
            stored(DOCUMENT)
        }
    })
    .await;
    let storage = bench.storage();
    let fetched = storage.fetch(&object("")).await.unwrap();
    assert_eq!(text(&fetched), DOCUMENT);
    assert_eq!(fetched.version.as_deref(), Some("17"));
    let fetched = storage.fetch(&object("teams.shop")).await.unwrap();
    assert_eq!(text(&fetched), b"planted-shop");
    let engine = super::Storage::new(bench.settings());
    assert_eq!(engine.is_current(&object(""), "17").await, Ok(Some(true)));
    assert_eq!(engine.is_current(&object(""), "18").await, Ok(Some(false)));
    let request = &bench.server.requests()[0];
    let line = "GET /storage/v1/b/bucket/o/team%2Fshop%201.yaml?alt=media HTTP/1.1\r\n";
    assert!(request.starts_with(line), "{request}");
}

#[tokio::test]
async fn an_object_needs_its_checksum_and_its_generation() {
    let checksum = STANDARD.encode(crc32c(DOCUMENT).to_be_bytes());
    for headers in [
        "x-goog-generation: 17\r\n".to_owned(),
        "x-goog-generation: 17\r\nx-goog-hash: crc32c=planted\r\n".to_owned(),
        "x-goog-generation: 17\r\nx-goog-hash: crc32c=AAAAAA==\r\n".to_owned(),
        format!("x-goog-hash: crc32c={checksum}\r\n"),
    ] {
        let bench = Bench::once(with_headers(200, &headers, DOCUMENT)).await;
        let error = bench.storage().fetch(&object("")).await.unwrap_err();
        assert_eq!(error.reason(), Reason::SecretCorrupt, "{headers}");
        assert!(!format!("{error} {error:?}").contains("planted"));
    }
}

/// What Cloud Storage says of an object: plainly where it is asked for content.
fn stores(request: &str, status: u16, reason: &str) -> Reply {
    if request.contains("alt=media") {
        let headers = "content-type: text/html; charset=UTF-8\r\n";
        return with_headers(status, headers, b"No such object: planted");
    }
    let errors = json!([{"message": "planted", "domain": "global", "reason": reason}]);
    let told = json!({"error": {"code": status, "message": "planted", "errors": errors}});
    Reply::json(status, &told.to_string())
}

#[tokio::test]
async fn a_refusal_of_cloud_storage_is_told_from_one_of_what_stands_before_it() {
    for (status, reason, told) in [
        (404, "notFound", Reason::SecretNotFound),
        (403, "forbidden", Reason::SecretDenied),
        (401, "authError", Reason::EngineUnauthenticated),
    ] {
        let bench = Bench::start(move |request| stores(request, status, reason)).await;
        let error = bench.storage().fetch(&object("")).await.unwrap_err();
        assert_eq!(error.reason(), told, "{error}");
        assert_eq!(bench.server.requests().len(), 2);
        assert!(!format!("{error} {error:?}").contains("planted"));
    }
    for status in [400, 403, 404] {
        let bench = Bench::start(move |_| with_headers(status, "", b"planted")).await;
        let error = bench.storage().fetch(&object("")).await.unwrap_err();
        assert_eq!(error.reason(), Reason::EngineUnavailable, "{error}");
    }
    // What is said about the object may be closed to something else than its content.
    let bench = Bench::start(|request| {
        if request.contains("alt=media") {
            return with_headers(403, "", b"planted");
        }
        Reply::json(200, r#"{"generation":"17"}"#)
    })
    .await;
    let error = bench.storage().fetch(&object("")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnavailable, "{error}");
}

#[tokio::test]
async fn after_a_401_the_key_file_is_read_again() {
    let answers = Mutex::new(vec![read(DOCUMENT), refused(401, "UNAUTHENTICATED")]);
    let next = move |_: &str| answers.lock().unwrap().pop().unwrap_or(Reply::Hang);
    let bench = Bench::start(next).await;
    let secrets = bench.secrets();
    let error = secrets.fetch(&secret("")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnauthenticated);
    fs::write(bench.path("key.json"), key_file("second").to_string()).unwrap();
    secrets.fetch(&secret("")).await.unwrap();
    let keys: Vec<Value> = bench
        .server
        .requests()
        .iter()
        .map(|request| key_id(request))
        .collect();
    assert_eq!(keys, ["first", "second"]);
}

/// The id in the head of the token that a request carries.
fn key_id(request: &str) -> Value {
    let token = request.split("Bearer ").nth(1).unwrap();
    let head = URL_SAFE_NO_PAD
        .decode(token.split('.').next().unwrap())
        .unwrap();
    serde_json::from_slice::<Value>(&head).unwrap()["kid"].clone()
}

/// An answer that goes wrong, the key asked for, and what is made of it.
type Wrong = (Reply, &'static str, Reason);

/// What Google says when it refuses.
fn refusals() -> impl Iterator<Item = Wrong> {
    let told = [
        (404, "NOT_FOUND", Reason::SecretNotFound),
        (400, "FAILED_PRECONDITION", Reason::SecretNotFound),
        (400, "INVALID_ARGUMENT", Reason::SecretNotFound),
        (403, "PERMISSION_DENIED", Reason::SecretDenied),
        (401, "UNAUTHENTICATED", Reason::EngineUnauthenticated),
        (429, "RESOURCE_EXHAUSTED", Reason::EngineThrottled),
        (403, "RESOURCE_EXHAUSTED", Reason::EngineThrottled),
        (500, "INTERNAL", Reason::EngineUnavailable),
        (503, "UNAVAILABLE", Reason::EngineUnavailable),
    ];
    let refusals = told.into_iter();
    refusals.map(|(code, word, reason)| (refused(code, word), "", reason))
}

/// What others say on the way.
fn foreign() -> impl Iterator<Item = Wrong> {
    let html = |status| with_headers(status, "content-type: text/html\r\n", b"<p>planted</p>");
    let redirect = with_headers(307, "location: https://planted.example/\r\n", b"");
    let garbage = Reply::Bytes(b"planted garbage\r\n\r\n".to_vec());
    let cut = Reply::Bytes(b"HTTP/1.1 200 X\r\ncontent-length: 99\r\n\r\nplanted".to_vec());
    let bodies = [
        "",
        "planted",
        "{}",
        r#"{"error":"planted"}"#,
        r#"{"error":{"code":5,"status":"NOT_FOUND"}}"#,
        r#"{"error":{"code":404,"message":"planted"}}"#,
        r#"{"code":404,"status":"NOT_FOUND"}"#,
    ];
    let refused = |body| [400, 403, 404].map(|status| Reply::json(status, body));
    let unavailable = [html(502), html(404), html(403), redirect, garbage, cut];
    let unavailable = unavailable.into_iter();
    unavailable
        .chain(bodies.into_iter().flat_map(refused))
        .map(|reply| (reply, "", Reason::EngineUnavailable))
        .chain([
            (Reply::json(204, ""), "", Reason::EngineUnavailable),
            (html(200), "", Reason::SecretCorrupt),
        ])
}

/// Successes that are none.
fn corrupt() -> impl Iterator<Item = Wrong> {
    let changed = |pointer: &str, value: Value| {
        let mut answer = accessed(DOCUMENT);
        *answer.pointer_mut(pointer).unwrap() = value;
        Reply::json(200, &answer.to_string())
    };
    let other = json!("projects/1/secrets/planted/versions/5");
    let corrupt = [
        (Reply::json(200, "{\"payload\": planted"), ""),
        (Reply::json(200, "\"planted\""), ""),
        (Reply::json(200, ""), ""),
        (changed("/payload/data", json!("planted!")), ""),
        (changed("/payload/data", json!(["planted"])), ""),
        (changed("/payload", json!("planted")), ""),
        (changed("/name", other), ""),
        (changed("/name", json!("planted")), ""),
        (read(DOCUMENT), "teams"),
        (read(b"planted: ["), "planted"),
        (read(b"planted \xff"), "planted"),
    ];
    let corrupt = corrupt.into_iter();
    corrupt
        .map(|(reply, key)| (reply, key, Reason::SecretCorrupt))
        .chain([
            (read(DOCUMENT), "missing", Reason::SecretField),
            (read(DOCUMENT), "teams.missing", Reason::SecretField),
        ])
}

#[tokio::test]
async fn no_failure_and_no_log_line_shows_a_planted_value() {
    let (logged, _guard) = Logged::start();
    for (reply, key, reason) in refusals().chain(foreign()).chain(corrupt()) {
        let bench = Bench::once(reply).await;
        let error = bench.secrets().fetch(&secret(key)).await.unwrap_err();
        let shown = format!("{} {error:?}", Chain(&error));
        assert_eq!(error.reason(), reason, "{shown}");
        assert!(
            !shown.replace("field `planted`", "").contains("planted"),
            "{shown}"
        );
        assert_eq!(bench.server.requests().len(), 1, "{shown}");
    }
    let bench = Bench::start(|_| read(DOCUMENT)).await;
    bench.secrets().fetch(&secret("")).await.unwrap();
    let text = logged.text();
    assert!(text.contains("TRACE"), "nothing was captured");
    let request = bench.server.requests().remove(0);
    let token = request.split("Bearer ").nth(1).unwrap();
    let token = token.get(..40).unwrap();
    for planted in ["planted", token, "PRIVATE KEY"] {
        assert!(!text.contains(planted), "{planted}: {text}");
    }
}

#[tokio::test]
async fn the_time_to_come_back_is_believed_up_to_an_hour() {
    for (said, believed) in [
        ("7", Some(7)),
        ("18446744073709551615", Some(3600)),
        ("soon", None),
    ] {
        let headers = format!("retry-after: {said}\r\n");
        let bench = Bench::once(with_headers(429, &headers, b"planted")).await;
        let error = bench.storage().fetch(&object("")).await.unwrap_err();
        let retry_after = believed.map(Duration::from_secs);
        assert_eq!(
            error.kind,
            crate::credential::FetchErrorKind::Throttled { retry_after }
        );
    }
}

#[tokio::test]
async fn a_service_that_hangs_never_ends_or_is_not_trusted_is_given_up() {
    let bench = Bench::start(|_| Reply::Hang).await;
    let mut secrets = bench.secrets();
    secrets.deadline = Duration::from_millis(500);
    let error = secrets.fetch(&secret("")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnavailable);

    let bench = Bench::start(|_| Reply::json(200, &" ".repeat(5 * 1024 * 1024))).await;
    let error = bench.secrets().fetch(&secret("")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnavailable);
    assert!(error.to_string().contains("too large"), "{error}");

    fs::write(bench.path("ca.pem"), Authority::new().pem()).unwrap();
    let asked = bench.server.requests().len();
    let error = bench.secrets().fetch(&secret("")).await.unwrap_err();
    assert!(
        error.to_string().contains("certificate is not one of"),
        "{error}"
    );
    let mut settings = bench.settings();
    settings.ca_file = None;
    let failure = Secrets::new(settings).fetch(&secret("")).await.unwrap_err();
    let hints = [
        "not one that this system trusts",
        "has no certificate authorities",
    ];
    assert!(
        hints.iter().any(|hint| failure.hint.contains(hint)),
        "{failure:?}"
    );
    assert_eq!(bench.server.requests().len(), asked);
}

#[tokio::test]
async fn a_probe_sends_no_credential_and_takes_any_answer_of_a_working_service() {
    for (status, works) in [
        (200, true),
        (404, true),
        (401, true),
        (429, false),
        (503, false),
    ] {
        let bench = Bench::once(refused(status, "")).await;
        fs::remove_file(bench.path("key.json")).unwrap();
        let probed = Secrets::new(bench.settings()).probe().await;
        assert_eq!(probed.is_ok(), works, "{status}");
        let request = bench.server.requests()[0].to_lowercase();
        assert!(!request.contains("authorization"), "{request}");
    }
}
