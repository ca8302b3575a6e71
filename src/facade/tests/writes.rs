//! Writes, and what is read after them.

use super::*;

const POD: &str = "/api/v1/namespaces/shop/pods/a";
const PODS: &str = "/api/v1/namespaces/shop/pods";

fn pod(version: u64) -> Value {
    let version = version.to_string();
    json!({ "kind": "Pod", "metadata": { "name": "a", "uid": "uid-a", "resourceVersion": version } })
}

/// Answers writes with `answer`, and lists with one that only the cluster has.
fn cluster(answer: &Value) -> impl Fn(&LiveRequest) -> Reply + Send + Sync + 'static {
    let answer = answer.clone();
    move |request| match request.method {
        Method::GET => Reply::Raw(
            200,
            "application/json",
            r#"{"kind":"PodList","metadata":{"resourceVersion":"30"},"items":[{"metadata":{"name":"live"}}]}"#,
        ),
        _ => Reply::Json(200, answer.clone()),
    }
}

#[tokio::test]
async fn a_write_is_seen_by_the_next_list() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    world.script(cluster(&pod(20)));
    let answer = world
        .ask("PATCH", POD, &[("content-type", "application/json")], "{}")
        .await;
    assert_eq!((answer.status, answer.json()), (200, pod(20)));
    assert_eq!(
        world.get(PODS).await.names(),
        ["live"],
        "the view has not passed 20"
    );
    assert_eq!(
        world.get("/api/v1/namespaces/other/pods").await.names(),
        Vec::<String>::new()
    );
    world.put_pod("a", 20);
    assert_eq!(world.get(PODS).await.names(), ["a"]);
}

#[tokio::test]
async fn a_write_in_one_version_is_seen_in_the_others() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    world.change(|account| {
        let gvr = Gvr::new("", "v1beta1", "pods");
        Arc::make_mut(&mut account.discovery).push(kind(gvr, "Pod", Level::Live, &[]));
    });
    world.script(cluster(&pod(20)));
    let older = "/api/v1beta1/namespaces/shop/pods/a";
    world.ask("PUT", older, &[], "{}").await;
    assert_eq!(world.get(PODS).await.names(), ["live"]);
    world.put_pod("a", 20);
    assert_eq!(world.get(PODS).await.names(), ["a"]);
}

#[tokio::test]
async fn a_list_waits_for_the_view_to_pass_a_write() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    world.script(cluster(&pod(20)));
    world.ask("PUT", POD, &[], "{}").await;
    let (listed, ()) = tokio::join!(world.get(PODS), async {
        tokio::task::yield_now().await;
        world.put_pod("a", 20);
    });
    assert_eq!(listed.names(), ["a"]);
}

#[tokio::test]
async fn a_deletion_is_seen_by_its_uid() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    let status = json!({ "kind": "Status", "status": "Success", "details": { "uid": "uid-a" } });
    world.script(cluster(&status));
    world.ask("DELETE", POD, &[], "{}").await;
    assert_eq!(world.get(PODS).await.names(), ["live"]);
    world.view.bookmark(&pods_key(), ResourceVersion(25));
    assert_eq!(
        world.get(PODS).await.names(),
        ["live"],
        "a version proves nothing"
    );
    world.view.delete(&pods_key(), &identity("shop", "a", 26));
    assert_eq!(world.get(PODS).await.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_deleted_collection_is_live_until_the_view_has_passed_a_live_list() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    world.script(cluster(&pod(20)));
    world.ask("DELETE", PODS, &[], "").await;
    world.view.bookmark(&pods_key(), ResourceVersion(25));
    assert_eq!(world.get(PODS).await.names(), ["live"]);
    assert_eq!(
        world.get(PODS).await.names(),
        ["live"],
        "the live list was at 30"
    );
    world.view.bookmark(&pods_key(), ResourceVersion(30));
    assert_eq!(world.get(PODS).await.names(), ["a"]);
}

#[tokio::test]
async fn a_write_of_unknown_outcome_sends_its_collection_live() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    world.script(|request| match request.method {
        Method::GET => Reply::Json(200, json!({ "items": [] })),
        _ => Reply::Fail(UpstreamError::OutcomeUnknown),
    });
    assert_eq!(world.ask("PUT", POD, &[], "{}").await.status, 504);
    world.sent();
    world.get(PODS).await;
    assert_eq!(world.sent(), [format!("GET {PODS}")]);
}

#[tokio::test]
async fn what_changes_nothing_fences_nothing() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    world.script(cluster(&pod(20)));
    world
        .ask("PATCH", &format!("{POD}?dryRun=All"), &[], "{}")
        .await;
    world.ask("DELETE", POD, &[], r#"{"dryRun":["All"]}"#).await;
    world.script(|_| Reply::Json(409, json!({ "kind": "Status" })));
    assert_eq!(world.ask("PUT", POD, &[], "{}").await.status, 409);
    world.script(|_| Reply::Fail(UpstreamError::Busy));
    assert_eq!(world.ask("PUT", POD, &[], "{}").await.status, 429);
    assert_eq!(world.get(PODS).await.names(), ["a"]);
}

#[tokio::test]
async fn a_write_is_sent_once_and_not_at_all_while_the_agent_is_away() {
    let world = World::start().await;
    world.script(|_| Reply::Json(500, json!({})));
    assert_eq!(world.ask("POST", PODS, &[], "{}").await.status, 500);
    assert_eq!(world.sent(), [format!("POST {PODS}")]);
    world.away();
    let answer = world.ask("POST", PODS, &[], "{}").await;
    assert_eq!(answer.reason(), "ServiceUnavailable");
    assert_eq!(world.sent(), Vec::<String>::new());
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let world = World::start().await;
    let body = "x".repeat(crate::limits::REQUEST_BODY_BYTES + 1);
    let answer = world.ask("POST", PODS, &[], &body).await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (413, "RequestEntityTooLarge")
    );
    assert_eq!(world.sent(), Vec::<String>::new());
}

#[tokio::test]
async fn the_connection_closes_after_a_write_to_a_masked_kind() {
    let world = World::start().await;
    world.script(|_| Reply::Json(201, json!({ "kind": "Secret" })));
    let secrets = "/api/v1/namespaces/shop/secrets";
    let answer = world.ask("POST", secrets, &[], "{}").await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (201, Some("close"))
    );
    let answer = world.get(secrets).await;
    assert_eq!(answer.header("connection"), None);
    world.away();
    let answer = world.ask("POST", secrets, &[], "{}").await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (503, Some("close"))
    );
}

#[tokio::test]
async fn a_write_whose_client_goes_away_is_audited_and_fenced() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    world.script(|_| Reply::Never);
    {
        let mut socket = TcpStream::connect(world.address).await.unwrap();
        let request = format!("PUT /accounts/{ID}{POD} HTTP/1.1\r\nhost: hub\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        while world.cluster.sent.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    }
    let audits = loop {
        let audits = world.audits();
        if !audits.is_empty() {
            break audits;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (audits[0].status.as_u16(), audits[0].verb),
        (499, Some(Verb::Update))
    );
    world.script(cluster(&pod(20)));
    assert_eq!(world.get(PODS).await.names(), ["live"]);
}
