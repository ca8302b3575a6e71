//! What is told when the engine cannot answer, or will not.

use super::*;
use crate::support::eventually::eventually_async;

const SEALED: FetchErrorKind = FetchErrorKind::Unavailable { sealed: true };

#[tokio::test]
async fn a_sealed_engine_says_so_and_its_login_outlives_that() {
    let bench = Bench::start().await;
    let proof = bench.enable_userpass(json!({})).await;
    let vault = bench.with_login("userpass", proof);
    fetch(&vault, &shop()).await;
    let before = bench.tokens().await;
    bench.bao.seal().await;
    let failure = refused(&vault, &shop()).await;
    assert_eq!((failure.kind, failure.status), (SEALED, Some(503)));
    assert_eq!(vault.probe().await.unwrap_err().kind, SEALED);
    bench.file("token", "planted");
    let newcomer = bench.with_token_file("token");
    assert_eq!(refused(&newcomer, &shop()).await.kind, SEALED);
    bench.bao.unseal().await;
    vault.probe().await.unwrap();
    fetch(&vault, &shop()).await;
    assert!(bench.new_tokens(&before).await.is_empty());
}

#[tokio::test]
async fn an_engine_that_is_started_again_is_asked_again() {
    let mut bench = Bench::start().await;
    let proof = bench.enable_userpass(json!({})).await;
    let vault = bench.with_login("userpass", proof);
    fetch(&vault, &shop()).await;
    bench.bao.server().kill().await;
    let failure = refused(&vault, &shop()).await;
    assert_eq!(failure.kind, FetchErrorKind::Unavailable { sealed: false });
    assert!(failure.hint.contains("cannot be reached"), "{failure:?}");
    vault.probe().await.unwrap_err();
    bench.bao.start_again().await;
    assert_eq!(refused(&vault, &shop()).await.kind, SEALED);
    bench.bao.unseal().await;
    fetch(&vault, &shop()).await;
}

#[tokio::test]
async fn a_revoked_token_and_a_removed_policy_are_told_apart() {
    let bench = Bench::start().await;
    let token = bench.bao.create_token(&["reader"], "1h").await;
    bench.file("token", &token.secret);
    let vault = bench.with_token_file("token");
    fetch(&vault, &shop()).await;

    let path = "sys/policies/acl/reader";
    let removed = bench.bao.ask(Method::DELETE, path, &Value::Null).await;
    removed.success();
    let failure = refused(&vault, &shop()).await;
    assert_eq!(
        (&failure.kind, failure.status),
        (&FetchErrorKind::Denied, Some(403))
    );
    assert!(failure.hint.contains("policy"), "{failure:?}");
    bench.bao.policy("reader", READ_ALL).await;
    fetch(&vault, &shop()).await;

    bench.bao.revoke(&token).await;
    is_unauthenticated(&refused(&vault, &shop()).await, "expired or revoked");
    let other = bench.bao.create_token(&["reader"], "1h").await;
    bench.file("token", &other.secret);
    fetch(&vault, &shop()).await;
}

#[tokio::test]
async fn a_role_without_its_policy_is_denied_and_leaves_no_logins_behind() {
    let bench = Bench::start().await;
    let proof = bench.enable_userpass(json!({})).await;
    let vault = bench.with_login("userpass", proof);
    let nothing = r#"path "kv/*" { capabilities = ["deny"] }"#;
    bench.bao.policy("reader", nothing).await;
    let before = bench.tokens().await;
    for _ in 0..5 {
        let failure = refused(&vault, &shop()).await;
        assert_eq!(failure.kind, FetchErrorKind::Denied);
    }
    assert_eq!(bench.new_tokens(&before).await.len(), 1);
}

#[tokio::test]
async fn an_engine_that_asks_for_fewer_requests_says_when_to_come_back() {
    let bench = Bench::start().await;
    let vault = bench.with_token(&["reader"]).await;
    fetch(&vault, &shop()).await;
    let headers = json!({"enable_rate_limit_response_headers": true});
    bench.bao.write("sys/quotas/config", &headers).await;
    let quota = json!({"path": "kv", "rate": 1, "interval": "60s"});
    bench.bao.write("sys/quotas/rate-limit/few", &quota).await;
    let failure = eventually_async("the quota is spent", async || {
        vault.fetch(&shop()).await.err()
    })
    .await;
    let FetchErrorKind::Throttled { retry_after } = failure.kind else {
        panic!("{failure:?}");
    };
    let time = retry_after.expect("it says when");
    assert!((1..=60).contains(&time.as_secs()), "{time:?}");
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let bench = Bench::start().await;
    let mut settings = bench.settings(AuthMethod::TokenFile(bench.file("token", "planted")));
    settings.ca_file = bench.file("other.pem", &Authority::root("other").pem());
    let failure = refused(&Vault::new(settings, OwnCertificate::default()), &shop()).await;
    assert!(
        failure.hint.contains("certificate is not one of"),
        "{failure:?}"
    );
}
