use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::bench::{Bench, SECRET, lent, lent_by, named, secret, xml};
use crate::credential::aws::{Role, SecretsManager};
use crate::credential::testkit::Reply;
use crate::credential::{Engine as _, FetchErrorKind};

fn engine(bench: &Bench) -> SecretsManager {
    SecretsManager::new(bench.settings(), bench.clock.clone())
}

#[tokio::test]
async fn a_login_is_renewed_before_it_expires_and_used_until_then() {
    let asked = AtomicUsize::new(0);
    let refused = "<ErrorResponse><Error><Code>ServiceUnavailable</Code></Error></ErrorResponse>";
    let sts = move |_: &str| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => lent(),
        _ => xml(503, refused),
    };
    let bench = Bench::with_sts(sts, |_| Reply::json(200, SECRET)).await;
    let engine = engine(&bench);
    let reference = secret(named("kubeconfig"));
    engine.fetch(&reference).await.unwrap();
    bench.clock.advance(Duration::from_mins(54));
    engine.fetch(&reference).await.unwrap();
    assert_eq!(bench.count("Action=AssumeRole"), 1);
    bench.clock.advance(Duration::from_mins(5));
    engine.fetch(&reference).await.unwrap();
    assert_eq!(bench.count("Action=AssumeRole"), 2);
    bench.clock.advance(Duration::from_mins(1));
    let failure = engine.fetch(&reference).await.unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::Unavailable { sealed: false });
    assert_eq!(bench.count("Action=AssumeRole"), 3);
}

#[tokio::test]
async fn credentials_that_are_not_accepted_are_not_used_again() {
    let reads = AtomicUsize::new(0);
    let expired = r#"{"__type":"ExpiredTokenException","message":"planted-detail"}"#;
    let bench = Bench::start(move |_| match reads.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::json(400, expired),
        _ => Reply::json(200, SECRET),
    })
    .await;
    let engine = engine(&bench);
    let failure = engine.fetch(&secret(named("other"))).await.unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::Unauthenticated);
    assert!(failure.hint.contains("clock"), "{}", failure.hint);
    engine.fetch(&secret(named("other"))).await.unwrap();
    assert_eq!(bench.count("Action=AssumeRole"), 2);
}

#[tokio::test]
async fn a_role_is_taken_on_with_the_credentials_that_were_found() {
    let sts = |request: &str| {
        if request.contains("Action=AssumeRoleWithWebIdentity") {
            lent_by("AssumeRoleWithWebIdentity", "first")
        } else {
            lent_by("AssumeRole", "second")
        }
    };
    let bench = Bench::with_sts(sts, |_| Reply::json(200, SECRET)).await;
    let mut settings = bench.settings();
    settings.role = Some(Role {
        arn: "arn:aws:iam::210987654321:role/reader".to_owned(),
        external_id: Some("ours".to_owned()),
    });
    let engine = SecretsManager::new(settings, bench.clock.clone());
    engine.fetch(&secret(named("other"))).await.unwrap();
    let requests = bench.server.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests[0].contains("WebIdentityToken=planted-jwt"));
    assert!(!requests[0].contains("Credential="));
    assert!(requests[1].contains("Credential=ASIAfirst/"));
    assert!(requests[1].contains("reader") && requests[1].contains("ExternalId=ours"));
    assert!(requests[2].contains("Credential=ASIAsecond/"));
}

#[tokio::test]
async fn a_login_that_is_refused_is_told_from_one_that_cannot_be_asked_for() {
    let error = |code: &str| {
        format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>\
             <Type>Sender</Type><Code>{code}</Code><Message>planted-detail</Message></Error>\
             </ErrorResponse>"
        )
    };
    let unavailable = FetchErrorKind::Unavailable { sealed: false };
    for (status, body, kind) in [
        (403, error("AccessDenied"), FetchErrorKind::Unauthenticated),
        (
            400,
            error("InvalidIdentityToken"),
            FetchErrorKind::Unauthenticated,
        ),
        (
            400,
            error("ExpiredTokenException"),
            FetchErrorKind::Unauthenticated,
        ),
        (
            400,
            error("Throttling"),
            FetchErrorKind::Throttled { retry_after: None },
        ),
        (500, error("InternalFailure"), unavailable.clone()),
        (200, "<html>planted</html>".to_owned(), unavailable.clone()),
        (200, String::new(), unavailable),
    ] {
        let sts = move |_: &str| xml(status, &body);
        let bench = Bench::with_sts(sts, |_| Reply::json(200, SECRET)).await;
        let failure = engine(&bench)
            .fetch(&secret(named("other")))
            .await
            .unwrap_err();
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert_eq!(bench.server.requests().len(), 1, "asked once");
    }
}

#[tokio::test]
async fn a_token_file_without_a_token_is_told_without_asking() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    std::fs::write(bench.folder.path().join("token"), "two words").unwrap();
    let failure = engine(&bench)
        .fetch(&secret(named("other")))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::Unauthenticated);
    assert_eq!(bench.server.requests().len(), 0);
}
