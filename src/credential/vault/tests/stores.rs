use super::*;
use crate::clock::{ManualClock, from_unix_seconds};
use crate::credential::OwnCertificate;

pub(super) const PLAIN: &str = r#"{"request_id":"r","lease_id":"","lease_duration":2764800,"renewable":false,"warnings":null,"auth":null,"wrap_info":null,"data":{"kubeconfig":"planted-plain"}}"#;

pub(super) fn engine(bench: &Bench) -> Vault {
    let token = bench.folder.path().join("token");
    Vault::new(
        bench.own_settings(AuthMethod::TokenFile(token)),
        OwnCertificate::default(),
    )
}

#[tokio::test]
async fn a_store_is_looked_up_once() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    let vault = engine(&bench);
    for _ in 0..3 {
        vault.fetch(&field("kubeconfig")).await.unwrap();
    }
    let all = bench.server.requests();
    assert_eq!((all.len(), bench.requests().len()), (4, 3));
}

#[tokio::test]
async fn a_store_that_nobody_tells_of_is_tried_as_either_version() {
    for (told, first) in [(403, 404), (403, 403), (404, 404), (404, 405)] {
        let bench = Bench::bare(move |request| {
            if request.contains("/ui/mounts/") {
                return Reply::json(told, DENIED);
            }
            if request.starts_with("GET /v1/secret/data/") {
                return Reply::json(first, DENIED);
            }
            Reply::json(200, PLAIN)
        })
        .await;
        let vault = engine(&bench);
        let fetched = vault.fetch(&field("kubeconfig")).await.unwrap();
        assert_eq!(text(&fetched), b"planted-plain");
        assert!(fetched.version.is_none() && fetched.lease.is_none());
        // From then on it is known.
        let before = bench.requests().len();
        vault.fetch(&field("kubeconfig")).await.unwrap();
        assert_eq!(bench.requests().len(), before + 1);
    }
}

#[tokio::test]
async fn an_outage_while_a_store_is_looked_up_is_an_outage() {
    let bench = Bench::bare(|_| Reply::json(502, "planted")).await;
    let failure = engine(&bench)
        .fetch(&field("kubeconfig"))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::Unavailable { sealed: false });
    assert_eq!(bench.server.requests().len(), 1);
}

/// What stands before an engine, or in its place, says such things.
const FOREIGN: [&str; 8] = [
    "default backend - 404",
    "<html><body>planted</body></html>",
    "",
    "[]",
    "{}",
    r#"{"message":"no route planted"}"#,
    r#"{"errors":"planted"}"#,
    r#"{"errors":[{"title":"planted"}]}"#,
];

#[tokio::test]
async fn a_refusal_that_the_engine_did_not_write_is_an_outage() {
    for status in [400, 401, 403, 404, 405] {
        for body in FOREIGN {
            let bench = Bench::bare(move |_| Reply::json(status, body)).await;
            let failure = engine(&bench)
                .fetch(&field("kubeconfig"))
                .await
                .unwrap_err();
            let told = (failure.kind, failure.status);
            let outage = FetchErrorKind::Unavailable { sealed: false };
            assert_eq!(told, (outage, Some(status)), "{body}");
            assert!(failure.hint.contains("not the engine"), "{}", failure.hint);
        }
    }
}

/// As of a store of version 2 that is asked for a path of version 1.
#[tokio::test]
async fn a_refusal_with_an_empty_document_is_the_engines_own() {
    let empty = r#"{"request_id":"r","data":null,"warnings":["planted"]}"#;
    let bench = Bench::start(move |_| Reply::json(404, empty)).await;
    let failure = engine(&bench)
        .fetch(&field("kubeconfig"))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::NotFound);
}

#[tokio::test]
async fn a_store_is_read_though_something_before_the_engine_denies_other_paths() {
    let denied = FOREIGN[1];
    for (readable, answer) in [("/v1/secret/data/", SECRET), ("/v1/secret/team/", PLAIN)] {
        let bench = Bench::bare(move |request| {
            if request.contains(readable) {
                return Reply::json(200, answer);
            }
            Reply::json(403, denied)
        })
        .await;
        engine(&bench).fetch(&field("kubeconfig")).await.unwrap();
    }
    // Its metadata, too: the document itself tells what is so.
    let bench = Bench::start(move |_| Reply::json(403, denied)).await;
    let vault = engine(&bench);
    for _ in 0..2 {
        let current = vault.is_current(&field("kubeconfig"), "3@t").await;
        assert_eq!(current, Ok(None));
    }
}

#[tokio::test]
async fn the_time_to_come_back_is_believed_up_to_an_hour() {
    for (said, believed) in [("7", Some(7)), ("999999999", Some(3600)), ("soon", None)] {
        let head = format!(
            "HTTP/1.1 429 X\r\nretry-after: {said}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let bench = Bench::start(move |_| Reply::Bytes(head.clone().into_bytes())).await;
        let failure = engine(&bench)
            .fetch(&field("kubeconfig"))
            .await
            .unwrap_err();
        let retry_after = believed.map(Duration::from_secs);
        assert_eq!(failure.kind, FetchErrorKind::Throttled { retry_after });
    }
}

#[tokio::test]
async fn a_cluster_without_a_leader_is_told_as_one() {
    let answer = r#"{"errors":["local node not active but active cluster node not found"]}"#;
    let bench = Bench::start(move |_| Reply::json(500, answer)).await;
    let failure = engine(&bench)
        .fetch(&field("kubeconfig"))
        .await
        .unwrap_err();
    assert!(failure.hint.contains("no active node"), "{failure:?}");
}

/// With `delete_version_after`, a version is written with the time at which it will be deleted.
#[tokio::test]
async fn a_version_is_there_until_the_time_comes_at_which_it_is_deleted() {
    let end = r#""deletion_time":"2100-01-01T00:00:00.5Z""#;
    let metadata = format!(
        r#"{{"request_id":"r","lease_id":"","lease_duration":0,"renewable":false,"warnings":null,"auth":null,"wrap_info":null,"data":{{"cas_required":false,"created_time":"t","current_version":3,"delete_version_after":"1h","max_versions":0,"oldest_version":0,"updated_time":"t","custom_metadata":null,"versions":{{"3":{{"created_time":"t","destroyed":false,{end}}}}}}}}}"#
    );
    let secret = SECRET.replace(r#""deletion_time":"""#, end);
    let bench = Bench::start(move |request| {
        let is_metadata = request.contains("/metadata/");
        Reply::json(200, if is_metadata { &metadata } else { &secret })
    })
    .await;
    let gone_at = from_unix_seconds(4_102_444_800) + Duration::from_millis(500);
    let clock = Arc::new(ManualClock::new(gone_at - Duration::from_secs(1)));
    let settings = bench.own_settings(AuthMethod::TokenFile(bench.folder.path().join("token")));
    let certificate = OwnCertificate::default();
    let vault = Vault::with_clock(settings, certificate, Arc::<ManualClock>::clone(&clock));
    let reference = field("kubeconfig");
    let fetched = vault.fetch(&reference).await.unwrap();
    assert_eq!(fetched.gone_at, Some(gone_at));
    let version = vault.version(&reference).await;
    assert_eq!(version, Ok(Some("3@t".to_owned())));
    assert_eq!(vault.is_current(&reference, "3@t").await, Ok(Some(true)));
    clock.advance(Duration::from_secs(1));
    assert_eq!(vault.is_current(&reference, "3@t").await, Ok(Some(false)));
    let failure = vault.version(&reference).await.unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::NotFound);
}

/// What the engine says of itself.
fn health(initialized: bool, sealed: bool) -> String {
    format!(r#"{{"initialized":{initialized},"sealed":{sealed},"standby":true,"version":"2.7.2"}}"#)
}

#[tokio::test]
async fn the_engine_is_there_when_it_can_serve_or_pass_on() {
    let (works, sealed, bare) = (health(true, false), health(true, true), health(false, true));
    for (status, body, away) in [
        (200, works.as_str(), None),
        (429, works.as_str(), None),
        (473, works.as_str(), None),
        (472, works.as_str(), Some(false)),
        (501, bare.as_str(), Some(false)),
        (503, sealed.as_str(), Some(true)),
        // Where the path is not served, the engine says that, too.
        (403, DENIED, None),
        (404, r#"{"errors":[]}"#, None),
    ] {
        let body = body.to_owned();
        let bench = Bench::bare(move |_| Reply::json(status, &body)).await;
        let probed = engine(&bench).probe().await.map_err(|failure| failure.kind);
        let wanted = away.map(|sealed| FetchErrorKind::Unavailable { sealed });
        assert_eq!(probed.err(), wanted, "{status}");
        let asked = &bench.server.requests()[0];
        assert!(!asked.to_lowercase().contains("x-vault-token"), "{asked}");
    }
}

#[tokio::test]
async fn what_stands_before_an_engine_is_not_taken_for_it_by_a_probe() {
    let outage = FetchErrorKind::Unavailable { sealed: false };
    for status in [200, 400, 401, 403, 404, 429, 451, 502, 503] {
        for body in FOREIGN {
            let bench = Bench::bare(move |_| Reply::json(status, body)).await;
            let failure = engine(&bench).probe().await.unwrap_err();
            let told = (&failure.kind, failure.status);
            assert_eq!(told, (&outage, Some(status)), "{body}");
            let is_named = failure.hint.contains("not the engine");
            assert_eq!(is_named, status < 500, "{status}");
        }
    }
}
