//! Reads, with the cluster there and without it.

use super::*;

const POD: &str = "/api/v1/namespaces/shop/pods/a";
const PODS: &str = "/api/v1/namespaces/shop/pods";
const TABLE: [(&str, &str); 1] = [(
    "accept",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
)];

#[tokio::test]
async fn one_object_is_read_live_and_its_404_is_believed() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    world.script(|_| Reply::Json(200, json!({ "live": true })));
    let answer = world.get(POD).await;
    assert_eq!(answer.json(), json!({ "live": true }));
    assert_eq!(
        (answer.header("set-cookie"), answer.header("retry-after")),
        (None, None)
    );
    world.script(|_| Reply::Json(404, json!({ "kind": "Status" })));
    assert_eq!(world.get(POD).await.status, 404);
    let audits = world.audits();
    assert_eq!(
        (audits[0].served, audits[0].verb),
        (Served::Live, Some(Verb::Get))
    );
    assert_eq!(
        (audits[0].client.as_str(), audits[0].name.as_deref()),
        ("clouddriver", Some("a"))
    );
}

#[tokio::test]
async fn an_object_that_the_cluster_does_not_answer_for_comes_from_the_view() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    for script in [
        || Reply::Never,
        || Reply::Json(401, json!({})),
        || Reply::Json(403, json!({})),
        || Reply::Json(503, json!({})),
        || Reply::Fail(UpstreamError::TimedOut),
    ] {
        world.script(move |_| script());
        let answer = world.get(POD).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["metadata"]["name"], "a");
        assert_eq!(answer.json()["kind"], "Pod");
    }
}

#[tokio::test]
async fn while_the_agent_is_away_the_last_known_state_is_served_with_its_age() {
    let world = World::start().await;
    world.know_pods(&["b", "a"]);
    world.away();
    world.clock.advance(Duration::from_mins(1));
    for (path, headers) in [(POD, &[][..]), (PODS, &[][..]), (PODS, &TABLE[..])] {
        let answer = world.ask("GET", path, headers, "").await;
        assert_eq!(
            (answer.status, answer.header("age")),
            (200, Some("60")),
            "{path}"
        );
        assert!(
            answer
                .header("warning")
                .unwrap()
                .starts_with("299 sortie \"")
        );
    }
    assert_eq!(world.get(PODS).await.names(), ["a", "b"]);
    let missing = world.get("/api/v1/namespaces/shop/pods/none").await;
    assert_eq!(missing.json()["message"], "pods \"none\" not found");
    assert_eq!(missing.reason(), "NotFound");

    world.clock.advance(Duration::from_mins(5));
    for path in [
        POD,
        PODS,
        "/api/v1/namespaces/shop/pods/none",
        "/api/v1/pods?watch=1",
    ] {
        let answer = world.get(path).await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (503, "ServiceUnavailable")
        );
        assert_eq!(answer.header("retry-after"), None);
    }
    assert_eq!(world.sent(), Vec::<String>::new());
}

#[tokio::test]
async fn namespaces_are_listed_however_old_they_are() {
    let world = World::start().await;
    let path = "/api/v1/namespaces";
    world.away();
    assert_eq!(world.get(path).await.status, 503, "never an empty list");
    world.view.snapshot_begin(&namespaces_key());
    put(&world.view, &namespaces_key(), identity("", "shop", 3));
    world
        .view
        .snapshot_end(&namespaces_key(), ResourceVersion(4));
    world.clock.advance(Duration::from_hours(100));
    assert_eq!(world.get(path).await.names(), ["shop"]);
}

#[tokio::test]
async fn the_namespaces_of_a_limited_account_are_known_by_their_names() {
    let world = World::start().await;
    world.change(|account| {
        account.namespaces = vec!["shop".into(), "bank".into()];
        account.freshness = Freshness::Unknown;
    });
    let path = "/api/v1/namespaces";
    assert_eq!(world.get(path).await.names(), ["bank", "shop"]);
    let one = world
        .get("/api/v1/namespaces?fieldSelector=metadata.name%3Dshop")
        .await;
    assert_eq!(one.names(), ["shop"]);
    let shop = world.get("/api/v1/namespaces/shop").await;
    assert_eq!(
        (shop.status, &shop.json()["kind"]),
        (200, &json!("Namespace"))
    );
    assert_eq!(world.get("/api/v1/namespaces/other").await.status, 503);
}

#[tokio::test]
async fn a_list_without_a_snapshot_is_live_or_unavailable() {
    let world = World::start().await;
    let list = json!({ "kind": "PodList", "items": [] });
    world.script(move |_| Reply::Json(200, list.clone()));
    assert_eq!(world.get(PODS).await.status, 200);
    assert_eq!(world.sent(), [format!("GET {PODS}")]);
    for status in [401, 403, 429, 500, 503] {
        world.script(move |_| Reply::Json(status, json!({})));
        let answer = world.get(PODS).await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (503, None),
            "{status}"
        );
    }
    world.away();
    assert_eq!(world.get(PODS).await.status, 503);
}

#[tokio::test]
async fn lists_come_from_the_view_whole_and_selected() {
    let world = World::start().await;
    let names: Vec<String> = (0..3000).map(|at| format!("pod-{at:04}")).collect();
    let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
    world.know_pods(&borrowed);
    let all = world.get("/api/v1/pods?limit=500").await;
    assert_eq!(all.names(), names);
    assert_eq!(all.json()["kind"], "PodList");
    assert_eq!(all.json()["metadata"]["resourceVersion"], "10");
    assert_eq!(all.header("age"), None);
    let labelled = world
        .get("/api/v1/pods?labelSelector=t+%3D+rs&limit=500")
        .await;
    assert_eq!(labelled.names().len(), 3000);
    assert_eq!(
        world
            .get("/api/v1/pods?labelSelector=t+%3D+x")
            .await
            .names()
            .len(),
        0
    );
    assert_eq!(world.sent(), Vec::<String>::new());
    assert!(world.audits().iter().any(|it| it.served == Served::View));
}

#[tokio::test]
async fn tables_live_kinds_and_parts_come_from_the_cluster() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    world.script(|_| Reply::Raw(200, "text/plain", "from the cluster"));
    for (path, headers) in [
        (PODS, &TABLE[..]),
        ("/api/v1/namespaces/shop/events", &[][..]),
        ("/api/v1/namespaces/shop/events?watch=true", &[][..]),
        ("/api/v1/namespaces/shop/pods/a/log?follow=true", &[][..]),
        ("/api/v1/pods?continue=abc", &[][..]),
        ("/api/v1/pods?fieldSelector=spec.x%3D1", &[][..]),
        ("/api/v1/pods?fieldSelector=spec.x%3D1&watch=1", &[][..]),
    ] {
        let answer = world.ask("GET", path, headers, "").await;
        assert_eq!(&answer.body[..], b"from the cluster", "{path}");
        assert_eq!(world.sent(), [format!("GET {path}")]);
    }
    world.script(|_| Reply::Json(401, json!({})));
    assert_eq!(
        world.get("/api/v1/namespaces/shop/events").await.status,
        503
    );
    world.away();
    assert_eq!(
        world.get("/api/v1/namespaces/shop/events").await.status,
        503
    );
}

#[tokio::test]
async fn each_failure_of_the_agent_has_its_status() {
    let world = World::start().await;
    let refused = |kind, field: Option<&str>| UpstreamError::Refused {
        kind,
        message: "because".into(),
        field: field.map(str::to_owned),
    };
    for (error, code, reason) in [
        (UpstreamError::Away, 503, "ServiceUnavailable"),
        (UpstreamError::Busy, 429, "TooManyRequests"),
        (UpstreamError::TimedOut, 504, "Timeout"),
        (UpstreamError::OutcomeUnknown, 504, "Timeout"),
        (UpstreamError::Unfilterable, 502, "InternalError"),
        (refused(Refusal::Policy, None), 403, "Forbidden"),
        (refused(Refusal::Malformed, None), 400, "BadRequest"),
        (
            refused(Refusal::UnsupportedMediaType, None),
            415,
            "UnsupportedMediaType",
        ),
        (
            refused(Refusal::MaskedContent, Some("data.password")),
            422,
            "Invalid",
        ),
    ] {
        let fails = error.clone();
        world.script(move |_| Reply::Fail(fails.clone()));
        let answer = world.get("/api/v1/namespaces/shop/secrets/s").await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (code, reason),
            "{error:?}"
        );
        if code == 422 {
            assert_eq!(
                answer.json()["details"]["causes"][0]["field"],
                "data.password"
            );
        }
    }
}

#[tokio::test]
async fn a_limited_account_lists_the_namespaces_that_it_watches_as_they_are() {
    let world = World::start().await;
    world.change(|account| account.namespaces = vec!["shop".into(), "bank".into(), "gone".into()]);
    world.view.detach(&namespaces_key());
    for (scope, objects) in [("shop", 1), ("gone", 0)] {
        let key = StreamKey {
            scope: Scope::Namespace(scope.into()),
            ..namespaces_key()
        };
        world.view.attach(&key, "Namespace");
        world.view.snapshot_begin(&key);
        for _ in 0..objects {
            put(&world.view, &key, identity("", scope, 3));
        }
        world.view.snapshot_end(&key, ResourceVersion(7));
    }
    let listed = world.get("/api/v1/namespaces").await;
    assert_eq!(listed.names(), ["bank", "shop"]);
    assert_eq!(
        listed.json()["items"][1]["metadata"]["resourceVersion"],
        "3"
    );
    assert_eq!(world.sent(), Vec::<String>::new());
}

#[tokio::test]
async fn a_stream_that_is_interrupted_makes_its_kind_old_while_the_agent_is_there() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    world.script(|_| Reply::Json(503, json!({})));
    world.view.interrupted(&pods_key());
    world.clock.advance(Duration::from_mins(1));
    let listed = world.get(PODS).await;
    assert_eq!(
        (listed.names(), listed.header("age")),
        (vec!["a".to_owned()], Some("60"))
    );
    world.clock.advance(Duration::from_mins(5));
    assert_eq!(world.get(PODS).await.status, 503);
    world.view.resumed(&pods_key());
    assert_eq!(world.get(PODS).await.header("age"), None);
}

#[tokio::test]
async fn all_namespaces_of_a_limited_account_are_never_asked_of_the_cluster() {
    let world = World::start().await;
    world.change(|account| account.namespaces = vec!["shop".into()]);
    world.script(|_| {
        Reply::Fail(UpstreamError::Refused {
            kind: Refusal::Policy,
            message: "beyond its namespaces".into(),
            field: None,
        })
    });
    let path = "/api/v1/pods";
    for (query, headers) in [("", &[][..]), ("", &TABLE[..]), ("?watch=true", &[][..])] {
        let answer = world
            .ask("GET", &format!("{path}{query}"), headers, "")
            .await;
        assert_eq!(answer.status, 503, "known of no namespace yet: {query}");
    }
    world.know_pods(&["a"]);
    for headers in [&[][..], &TABLE[..]] {
        let answer = world.ask("GET", path, headers, "").await;
        assert_eq!(answer.names(), ["a"]);
    }
    assert_eq!(world.sent(), Vec::<String>::new());
}

#[tokio::test]
async fn an_object_that_the_view_cannot_tell_of_is_waited_for() {
    let world = World::start().await;
    world.script(|_| Reply::Never);
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    assert_eq!(world.get(POD).await.status, 504);
    assert_eq!(
        begun.elapsed().as_secs(),
        crate::limits::ANSWER_TIMEOUT.as_secs()
    );
}

#[tokio::test]
async fn a_kind_that_is_in_no_namespace_is_not_found_in_one() {
    let world = World::start().await;
    world.change(|account| {
        let gvr = Gvr::new("", "v1", "nodes");
        let mut nodes = kind(gvr, "Node", Level::Live, &[]);
        nodes.resource.namespaced = false;
        Arc::make_mut(&mut account.discovery).push(nodes);
    });
    for method in ["GET", "DELETE"] {
        let answer = world
            .ask(method, "/api/v1/namespaces/shop/nodes/n", &[], "")
            .await;
        assert_eq!((answer.status, answer.reason()), (404, "NotFound".into()));
    }
    assert_eq!(world.sent(), Vec::<String>::new());
}
