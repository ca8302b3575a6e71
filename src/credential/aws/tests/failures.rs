//! Everything that can go wrong: the right kind, in time, once, and nothing planted to be seen.

use crate::credential::Surroundings;
use std::time::Duration;

use tokio::time::Instant;

use super::bench::{Bench, SECRET, answer, named, object, secret, xml};
use crate::credential::connection::Connection;
use crate::credential::testkit::{Authority, Logged, Reply};
use crate::credential::{EngineSettings, FetchErrorKind, Key, MAX_STALE, REFRESH, Settings};

fn connection(
    bench: &Bench,
    engine: fn(crate::credential::aws::Settings) -> EngineSettings,
) -> Connection {
    Connection::new(
        Settings {
            name: "prod".to_owned(),
            default: true,
            refresh: REFRESH,
            max_stale: MAX_STALE,
            engine: engine(bench.settings()),
        },
        &Surroundings::of_system(),
    )
}

fn unavailable() -> FetchErrorKind {
    FetchErrorKind::Unavailable { sealed: false }
}

fn throttled(seconds: Option<u64>) -> FetchErrorKind {
    FetchErrorKind::Throttled {
        retry_after: seconds.map(Duration::from_secs),
    }
}

fn coded(status: u16, code: &str) -> Reply {
    Reply::json(
        status,
        &format!(r#"{{"__type":"{code}","Message":"planted-detail"}}"#),
    )
}

/// The runtime of the libraries prints whole answers at TRACE; the program writes nothing of its
/// targets at any level (`telemetry::log`). Nobody else may show anything.
fn assert_only_capped(text: &str) {
    let is_capped = |line: &&str| line.contains("aws_smithy_runtime::client::orchestrator");
    let leaks: Vec<_> = text
        .lines()
        .filter(|line| line.contains("planted"))
        .filter(|line| !is_capped(line))
        .collect();
    assert_eq!(leaks, [] as [&str; 0]);
}

/// Errors as Secrets Manager tells them.
fn errors() -> Vec<(Reply, FetchErrorKind)> {
    use FetchErrorKind::{Denied, NotFound, Unauthenticated};
    let throttling = r#"{"__type":"ThrottlingException","Message":"planted-detail"}"#;
    vec![
        (coded(400, "ResourceNotFoundException"), NotFound),
        (coded(400, "InvalidRequestException"), NotFound),
        (coded(400, "InvalidParameterException"), NotFound),
        (coded(400, "AccessDeniedException"), Denied),
        (coded(400, "DecryptionFailure"), Denied),
        (coded(403, "ExpiredTokenException"), Unauthenticated),
        (coded(400, "UnrecognizedClientException"), Unauthenticated),
        (coded(400, "InvalidSignatureException"), Unauthenticated),
        (
            coded(403, "com.amazon.coral.service#IncompleteSignature"),
            Unauthenticated,
        ),
        (coded(400, "ThrottlingException"), throttled(None)),
        (
            answer(400, "retry-after: 7\r\n", throttling),
            throttled(Some(7)),
        ),
        (
            answer(429, "retry-after: 999999\r\n", "planted"),
            throttled(Some(3600)),
        ),
        (coded(500, "InternalServiceError"), unavailable()),
        (coded(400, "planted-unknown-code"), unavailable()),
        (coded(403, "planted-unknown-code"), unavailable()),
        // As moto does: the body is of another protocol than the service's.
        (
            answer(
                403,
                "x-amzn-errortype: AccessDenied\r\n",
                "<ErrorResponse><Message>planted</Message></ErrorResponse>",
            ),
            Denied,
        ),
        (
            answer(
                400,
                "x-amzn-errortype: ResourceNotFoundException:http://planted/\r\n",
                "",
            ),
            NotFound,
        ),
        (xml(403, "<Error><Code>AccessDenied</Code></Error>"), Denied),
    ]
}

/// Refusals of what stands before AWS: they say nothing about a secret.
fn foreign() -> Vec<(Reply, FetchErrorKind)> {
    let bodies = [
        "",
        "default backend - planted",
        "<html>planted</html>",
        "{}",
        r#"{"message":"planted"}"#,
        r#"{"code":"AccessDenied","message":"planted"}"#,
        r#"{"error":{"code":404,"status":"NOT_FOUND"}}"#,
        r#"{"__type":404}"#,
    ];
    let refusals = bodies.into_iter().flat_map(|body| {
        let of = move |status| (answer(status, "", body), unavailable());
        [400, 401, 403, 404, 405].map(of)
    });
    refusals.collect()
}

/// Answers to a question for the field `kubeconfig` that are no answers.
fn nonsense() -> Vec<(Reply, FetchErrorKind)> {
    use FetchErrorKind::Corrupt;
    let planted = SECRET.replace("kubeconfig\\\"", "kubekonfig\\\"");
    vec![
        (
            answer(502, "content-type: text/html\r\n", "<html>planted</html>"),
            unavailable(),
        ),
        // A success is read for no code.
        (answer(200, "", "<Code>AccessDenied</Code>"), Corrupt),
        (
            answer(200, "content-type: text/html\r\n", "<html>planted</html>"),
            Corrupt,
        ),
        (
            answer(307, "location: https://127.0.0.1:1/planted\r\n", ""),
            unavailable(),
        ),
        (Reply::json(200, r#"{"SecretString":"planted"#), Corrupt),
        (Reply::json(200, r#"{"SecretString":["planted"]}"#), Corrupt),
        (
            Reply::json(200, r#"{"SecretString":"planted, not JSON"}"#),
            Corrupt,
        ),
        (
            Reply::json(200, r#"{"SecretString":"[\"planted\"]"}"#),
            Corrupt,
        ),
        (
            Reply::json(
                200,
                r#"{"SecretString":"{\"kubeconfig\":{\"a\":\"planted\"}}"}"#,
            ),
            Corrupt,
        ),
        (Reply::json(200, r#"{"SecretBinary":"planted!!"}"#), Corrupt),
        (Reply::json(200, "{}"), Corrupt),
        (Reply::json(200, ""), Corrupt),
        (
            Reply::json(200, &planted),
            FetchErrorKind::Invalid {
                field: "kubeconfig".to_owned(),
            },
        ),
        (
            Reply::Bytes(b"HTTP/1.1 200 X\r\ncontent-length: 99\r\n\r\nplanted".to_vec()),
            unavailable(),
        ),
        (Reply::Bytes(b"planted\r\n\r\n".to_vec()), unavailable()),
        (
            Reply::json(200, &format!("\"planted{}\"", " ".repeat(5 << 20))),
            unavailable(),
        ),
    ]
}

#[tokio::test]
async fn every_answer_has_its_kind_and_none_is_shown() {
    let (logged, _guard) = Logged::start();
    let mut cases = 0;
    for (reply, kind) in errors().into_iter().chain(nonsense()).chain(foreign()) {
        let reply = std::sync::Mutex::new(Some(reply));
        let script = move |_: &str| reply.lock().unwrap().take().unwrap_or(Reply::Hang);
        let bench = Bench::start(script).await;
        let connection = connection(&bench, EngineSettings::SecretsManager);
        let error = connection
            .fetch(&secret(named("kubeconfig")))
            .await
            .unwrap_err();
        assert_eq!(error.kind, kind, "case {cases}: {error}");
        assert_eq!(bench.server.requests().len(), 2, "case {cases} asks once");
        assert!(!format!("{error} {error:?}").contains("planted"), "{error}");
        cases += 1;
    }
    assert_eq!(cases, 74);
    let text = logged.text();
    assert!(
        text.contains("TRACE") && text.contains("aws_smithy"),
        "nothing was captured"
    );
    assert_only_capped(&text);
}

/// Errors of S3 are XML.
#[tokio::test]
async fn every_answer_of_s3_has_its_kind() {
    use FetchErrorKind::{Corrupt, Denied, NotFound, Unauthenticated};
    let coded = |status: u16, code: &str| {
        let body = format!("<Error><Code>{code}</Code><Message>planted-detail</Message></Error>");
        (status, body)
    };
    let (logged, _guard) = Logged::start();
    for ((status, body), kind) in [
        (coded(404, "NoSuchKey"), NotFound),
        (coded(404, "NoSuchBucket"), NotFound),
        (coded(403, "AccessDenied"), Denied),
        (coded(400, "ExpiredToken"), Unauthenticated),
        (coded(403, "InvalidAccessKeyId"), Unauthenticated),
        (coded(403, "SignatureDoesNotMatch"), Unauthenticated),
        (coded(403, "RequestTimeTooSkewed"), Unauthenticated),
        (coded(503, "SlowDown"), throttled(None)),
        (coded(301, "PermanentRedirect"), unavailable()),
        (coded(403, "InvalidObjectState"), unavailable()),
        (coded(500, "InternalError"), unavailable()),
        (coded(403, "planted-unknown-code"), unavailable()),
        ((404, "<html>planted</html>".to_owned()), unavailable()),
        (
            (403, r#"{"code":"AccessDenied"}"#.to_owned()),
            unavailable(),
        ),
        ((403, String::new()), unavailable()),
        ((200, "planted: [".to_owned()), Corrupt),
        ((200, "planted: &a 1".to_owned()), Corrupt),
        (
            (200, "- planted".to_owned()),
            FetchErrorKind::Invalid {
                field: "a".to_owned(),
            },
        ),
    ] {
        let bench = Bench::start(move |_| xml(status, &body)).await;
        let connection = connection(&bench, EngineSettings::S3);
        let error = connection.fetch(&object(named("a"))).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(!format!("{error} {error:?}").contains("planted"), "{error}");
    }
    assert_only_capped(&logged.text());
}

#[tokio::test]
async fn a_silent_server_is_given_up_at_the_deadline() {
    for engine in [EngineSettings::SecretsManager, EngineSettings::S3] {
        let bench = Bench::start(|_| Reply::Hang).await;
        let mut connection = connection(&bench, engine);
        let reference = match engine(bench.settings()) {
            EngineSettings::S3(_) => object(Key::Whole),
            _ => secret(Key::Whole),
        };
        connection.deadline = Duration::from_millis(700);
        let began = Instant::now();
        let error = connection.fetch(&reference).await.unwrap_err();
        assert_eq!(error.kind, unavailable());
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn only_the_configured_authority_is_trusted() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    std::fs::write(bench.folder.path().join("ca.pem"), Authority::new().pem()).unwrap();
    for engine in [EngineSettings::SecretsManager, EngineSettings::S3] {
        let connection = connection(&bench, engine);
        let reference = match engine(bench.settings()) {
            EngineSettings::S3(_) => object(Key::Whole),
            _ => secret(Key::Whole),
        };
        let error = connection.fetch(&reference).await.unwrap_err();
        assert_eq!(error.kind, unavailable());
        assert!(
            error.to_string().contains("certificate is not one of"),
            "{error}"
        );
    }
    assert!(bench.server.requests().is_empty());
}
