use super::bench::{Bench, answer, named, object, text};
use crate::credential::aws::S3;
use crate::credential::testkit::Reply;
use crate::credential::{Engine as _, FetchErrorKind, Key, Locator};

const OBJECT: &str = "clusters:\n  shop:\n    kubeconfig: |\n      planted-kubeconfig\nother: planted-other\nlist: [1]\n";

fn engine(bench: &Bench) -> S3 {
    S3::new(bench.settings(), bench.clock.clone())
}

fn found(_request: &str) -> Reply {
    answer(200, "etag: \"0a1b\"\r\n", OBJECT)
}

#[tokio::test]
async fn an_object_or_a_path_in_it_is_read_with_its_version() {
    let bench = Bench::start(found).await;
    let engine = engine(&bench);
    let fetched = engine.fetch(&object(Key::Whole)).await.unwrap();
    assert_eq!(text(&fetched), OBJECT.as_bytes());
    assert_eq!(fetched.version.as_deref(), Some("0a1b"));
    let path = named("clusters.shop.kubeconfig");
    let fetched = engine.fetch(&object(path)).await.unwrap();
    assert_eq!(text(&fetched), b"planted-kubeconfig\n");
    let names = engine.keys(&object(Key::Each)).await.unwrap();
    assert_eq!(names, ["clusters", "other", "list"]);
    assert_eq!(bench.count("GET /configs/team/shop%201.yaml HTTP/1.1"), 3);
    assert_eq!(bench.count("/eu-west-1/s3/aws4_request"), 3);
    let empty =
        "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(bench.count(empty), 3);
}

#[tokio::test]
async fn a_path_that_leads_nowhere_is_named_and_one_that_is_no_text_is_corrupt() {
    let bench = Bench::start(found).await;
    let engine = engine(&bench);
    let failure = engine
        .fetch(&object(named("clusters.lost")))
        .await
        .unwrap_err();
    let field = "clusters.lost".to_owned();
    assert_eq!(failure.kind, FetchErrorKind::Invalid { field });
    let failure = engine
        .fetch(&object(named("clusters.shop")))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::Corrupt);
    let bench = Bench::start(|_| answer(200, "", "a: planted\na: twice\n")).await;
    let failure = S3::new(bench.settings(), bench.clock.clone())
        .fetch(&object(named("a")))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::Corrupt);
}

#[tokio::test]
async fn whether_an_object_is_current_is_asked_without_reading_it() {
    let bench = Bench::start(|_| answer(200, "etag: \"0a1b\"\r\n", "")).await;
    let engine = engine(&bench);
    let reference = object(Key::Whole);
    assert_eq!(
        engine.is_current(&reference, "0a1b").await.unwrap(),
        Some(true)
    );
    assert_eq!(
        engine.is_current(&reference, "0a1c").await.unwrap(),
        Some(false)
    );
    assert_eq!(bench.count("HEAD /configs/"), 2);
    assert_eq!(bench.count("GET /configs/"), 0);
}

/// An answer to `HEAD` has no body, so seldom a code: the object itself tells what is so.
#[tokio::test]
async fn a_refusal_without_a_code_tells_nothing_of_the_object() {
    let denied = "x-amzn-errortype: AccessDenied\r\n";
    let unavailable = FetchErrorKind::Unavailable { sealed: false };
    for (status, headers, told) in [
        (400, "", Ok(None)),
        (403, "", Ok(None)),
        (404, "", Ok(None)),
        (403, denied, Err(FetchErrorKind::Denied)),
        (503, "", Err(unavailable)),
    ] {
        let bench = Bench::start(move |_| answer(status, headers, "")).await;
        let engine = engine(&bench);
        let current = engine.is_current(&object(Key::Whole), "0a1b").await;
        let current = current.map_err(|failure| failure.kind);
        assert_eq!(current, told, "{status} {headers}");
    }
}

#[tokio::test]
async fn a_bucket_becomes_a_label_only_if_it_is_one() {
    let bench = Bench::start(found).await;
    let mut settings = bench.settings();
    settings.endpoint = None;
    let engine = S3::new(settings, bench.clock);
    for (region, bucket, key, url) in [
        (
            None,
            "configs",
            "a/b",
            "https://configs.s3.eu-west-1.amazonaws.com/a/b",
        ),
        (
            None,
            "my.configs",
            "a",
            "https://s3.eu-west-1.amazonaws.com/my.configs/a",
        ),
        (None, "x", "a", "https://s3.eu-west-1.amazonaws.com/x/a"),
        (
            None,
            "evil.example/@x",
            "a?b#c",
            "https://s3.eu-west-1.amazonaws.com/evil.example%2F%40x/a%3Fb%23c",
        ),
        (
            Some("cn-north-1"),
            "configs",
            "a",
            "https://configs.s3.cn-north-1.amazonaws.com.cn/a",
        ),
    ] {
        let mut reference = object(Key::Whole);
        reference.locator = Locator::S3 {
            region: region.map(str::to_owned),
            bucket: bucket.to_owned(),
            object: key.to_owned(),
        };
        assert_eq!(engine.object(&reference).unwrap().1, url);
    }
    for key in ["../other/a", "a/./b", ".."] {
        let mut reference = object(Key::Whole);
        if let Locator::S3 { object, .. } = &mut reference.locator {
            *object = key.to_owned();
        }
        let failure = engine.object(&reference).unwrap_err();
        assert_eq!(failure.kind, FetchErrorKind::NotFound, "{key}");
    }
}
