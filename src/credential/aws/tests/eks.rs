use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::bench::{Bench, NOW, expiry, text};
use crate::clock::{SharedClock, from_unix_seconds};
use crate::credential::aws::{Eks, TOKEN_LIFETIME};
use crate::credential::testkit::Reply;
use crate::credential::{EngineSettings, FetchErrorKind, Fetched, Minting, minting};

/// What `botocore.auth.SigV4QueryAuth` makes of the same request with the credentials that the
/// bench lends, at its time.
const SIGNED: &str = "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=ASIAfirst%2F21000101%2Feu-west-1%2Fsts%2Faws4_request&X-Amz-Date=21000101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-k8s-aws-id&X-Amz-Security-Token=planted-session-token&X-Amz-Signature=0dd745a6cf257605e27943b98e2ee599bcc735c13ebc71ea3116c69820c84b96";

/// The address in a token.
fn url(document: crate::secret::SecretBytes) -> String {
    let fetched = Fetched {
        document,
        version: None,
        lease: None,
        gone_at: None,
    };
    let token = std::str::from_utf8(text(&fetched)).unwrap();
    let encoded = token.strip_prefix("k8s-aws-v1.").unwrap();
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_is_a_signed_request_to_sts_for_one_cluster() {
    let bench = Bench::start(|_| Reply::Hang).await;
    let eks = Eks::with_clock(bench.settings(), bench.clock.clone());
    let (token, until) = eks.token("prod").await.unwrap();
    assert_eq!(until, from_unix_seconds(NOW) + TOKEN_LIFETIME);
    assert_eq!(format!("{token:?}"), "[REDACTED]");
    let url = url(token);
    // The order of the parameters is not part of what is signed.
    let sorted = |url: &str| {
        let mut parts: Vec<String> = url.split('&').map(str::to_owned).collect();
        parts.sort();
        parts
    };
    assert_eq!(sorted(&url), sorted(SIGNED));
    assert_eq!(bench.server.requests().len(), 1, "the login, and no more");
}

#[tokio::test]
async fn a_token_does_not_outlive_the_login() {
    let bench = Bench::start(|_| Reply::Hang).await;
    let eks = Eks::with_clock(bench.settings(), bench.clock.clone());
    eks.token("prod").await.unwrap();
    bench.clock.advance(Duration::from_mins(50));
    let (_token, until) = eks.token("prod").await.unwrap();
    assert_eq!(until, expiry());
}

#[tokio::test]
async fn a_refused_token_is_made_anew_of_another_login() {
    let bench = Bench::start(|_| Reply::Hang).await;
    let minting = Minting::Eks {
        profile: "prod".to_owned(),
        cluster: "prod".to_owned(),
    };
    let settings = EngineSettings::SecretsManager(bench.settings());
    let clock: SharedClock = bench.clock.clone();
    let minter = minting::source(&minting, &settings, &clock).unwrap();
    minter.mint().await.unwrap();
    minter.mint().await.unwrap();
    assert_eq!(bench.count("Action=AssumeRole"), 1);
    minter.forget().await;
    minter.mint().await.unwrap();
    assert_eq!(bench.count("Action=AssumeRole"), 2);
}

#[tokio::test]
async fn a_cluster_with_an_impossible_name_gets_no_token() {
    let bench = Bench::start(|_| Reply::Hang).await;
    let eks = Eks::with_clock(bench.settings(), bench.clock.clone());
    for name in ["", "a b", "x\r\ny", &"a".repeat(101)] {
        let failure = eks.token(name).await.unwrap_err();
        assert_eq!(failure.kind, FetchErrorKind::Unauthenticated);
    }
    assert_eq!(bench.server.requests().len(), 0);
}
