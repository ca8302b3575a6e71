use super::bench::{Bench, SECRET, named, secret, text};
use crate::credential::aws::SecretsManager;
use crate::credential::testkit::Reply;
use crate::credential::{Engine as _, FetchErrorKind, Key, Locator};

const DESCRIBED: &str = r#"{"ARN":"a","Name":"shop","VersionIdsToStages":{"new":["AWSCURRENT"],"old":["AWSPREVIOUS"]}}"#;

fn engine(bench: &Bench) -> SecretsManager {
    SecretsManager::new(bench.settings(), bench.clock.clone())
}

#[tokio::test]
async fn a_field_a_text_and_the_names_of_fields_are_read_with_their_version() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    let engine = engine(&bench);
    let fetched = engine.fetch(&secret(named("kubeconfig"))).await.unwrap();
    assert_eq!(text(&fetched), b"planted-kubeconfig");
    let version = fetched.version.as_deref();
    assert_eq!(version, Some("11111111-1111-1111-1111-111111111111"));
    assert!(!format!("{engine:?} {fetched:?}").contains("planted"));
    let fetched = engine.fetch(&secret(named("encoded"))).await.unwrap();
    assert_eq!(text(&fetched), b"planted");
    let fetched = engine.fetch(&secret(Key::Whole)).await.unwrap();
    assert!(text(&fetched).starts_with(b"{\"kubeconfig\""));
    let mut names = engine.keys(&secret(Key::Each)).await.unwrap();
    names.sort();
    assert_eq!(names, ["encoded", "kubeconfig", "number", "other"]);
    // One login serves them all, and the requests are signed with it.
    assert_eq!(bench.count("Action=AssumeRoleWithWebIdentity"), 1);
    assert_eq!(bench.count("Credential=ASIAfirst/"), 4);
    assert_eq!(bench.count("/eu-west-1/secretsmanager/aws4_request"), 4);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_read() {
    let body = r#"{"Name":"shop","SecretBinary":"AP8B","VersionId":"v"}"#;
    let bench = Bench::start(move |_| Reply::json(200, body)).await;
    let fetched = engine(&bench).fetch(&secret(Key::Whole)).await.unwrap();
    assert_eq!(text(&fetched), [0, 255, 1]);
}

#[tokio::test]
async fn a_reference_names_version_stage_and_region() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    let engine = engine(&bench);
    let mut reference = secret(Key::Whole);
    reference.locator = Locator::AwsSecret {
        region: Some("us-gov-west-1".to_owned()),
        name: "shop".to_owned(),
        version: Some("22222222-2222-2222-2222-222222222222".to_owned()),
        stage: Some("AWSPREVIOUS".to_owned()),
    };
    engine.fetch(&reference).await.unwrap();
    assert_eq!(bench.count("/us-gov-west-1/secretsmanager/"), 1);
    assert_eq!(
        bench.count(r#""VersionId":"22222222-2222-2222-2222-222222222222""#),
        1
    );
    assert_eq!(bench.count(r#""VersionStage":"AWSPREVIOUS""#), 1);
    reference.locator = Locator::AwsSecret {
        region: None,
        name: "arn:aws:secretsmanager:ap-south-2:123456789012:secret:shop-AbCdEf".to_owned(),
        version: None,
        stage: None,
    };
    engine.fetch(&reference).await.unwrap();
    assert_eq!(bench.count("/ap-south-2/secretsmanager/"), 1);
}

#[tokio::test]
async fn a_reference_cannot_choose_the_host() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    let mut settings = bench.settings();
    settings.endpoint = None;
    let engine = SecretsManager::new(settings, bench.clock.clone());
    for region in [
        "evil.example.com",
        "eu-west-1.evil.example",
        "eu/..",
        "",
        "@-x",
    ] {
        let mut reference = secret(Key::Whole);
        if let Locator::AwsSecret { region: named, .. } = &mut reference.locator {
            *named = Some(region.to_owned());
        }
        let failure = engine.fetch(&reference).await.unwrap_err();
        assert_eq!(failure.kind, FetchErrorKind::NotFound, "{region}");
        assert!(failure.hint.contains("region"), "{region}");
    }
    assert_eq!(bench.server.requests().len(), 0);
}

#[tokio::test]
async fn whether_a_version_is_current_is_asked_without_reading_the_secret() {
    let bench = Bench::start(|_| Reply::json(200, DESCRIBED)).await;
    let engine = engine(&bench);
    let current = async |version: &str, id: Option<&str>, stage: Option<&str>| {
        let mut reference = secret(Key::Whole);
        reference.locator = Locator::AwsSecret {
            region: None,
            name: "shop".to_owned(),
            version: id.map(str::to_owned),
            stage: stage.map(str::to_owned),
        };
        engine.is_current(&reference, version).await.unwrap()
    };
    assert_eq!(current("new", None, None).await, Some(true));
    assert_eq!(current("old", None, None).await, Some(false));
    assert_eq!(current("gone", None, None).await, Some(false));
    assert_eq!(current("old", None, Some("AWSPREVIOUS")).await, Some(true));
    assert_eq!(current("old", Some("old"), None).await, Some(true));
    assert_eq!(current("gone", Some("gone"), None).await, None);
    assert_eq!(bench.count("secretsmanager.GetSecretValue"), 0);
}

#[tokio::test]
async fn a_secret_marked_for_deletion_is_not_current() {
    let body = r#"{"Name":"shop","DeletedDate":1.0,"VersionIdsToStages":{"new":["AWSCURRENT"]}}"#;
    let bench = Bench::start(move |_| Reply::json(200, body)).await;
    let current = engine(&bench).is_current(&secret(Key::Whole), "new").await;
    assert_eq!(current.unwrap(), Some(false));
}

#[tokio::test]
async fn a_policy_without_describe_is_asked_for_it_once() {
    let denied = r#"{"__type":"AccessDeniedException","Message":"planted-detail"}"#;
    let bench = Bench::start(move |_| Reply::json(400, denied)).await;
    let engine = engine(&bench);
    for _ in 0..3 {
        let current = engine.is_current(&secret(Key::Whole), "new").await;
        assert_eq!(current.unwrap(), None);
    }
    assert_eq!(bench.count("secretsmanager.DescribeSecret"), 1);
}

#[tokio::test]
async fn a_probe_says_nothing_of_us() {
    let bench = Bench::start(|_| Reply::json(404, "{}")).await;
    engine(&bench).probe().await.unwrap();
    let requests = bench.server.requests();
    assert_eq!(requests.len(), 1);
    assert!(
        !requests[0].to_lowercase().contains("authorization"),
        "{}",
        requests[0]
    );
    let bench = Bench::start(|_| Reply::json(503, "{}")).await;
    let failure = engine(&bench).probe().await.unwrap_err();
    assert_eq!(failure.status, Some(503));
}
