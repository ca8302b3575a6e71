//! What is not in the one accepted form is refused, and audited.

use super::*;

#[tokio::test]
async fn hostile_paths_are_refused_and_audited() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    let pods = "api/v1/namespaces/shop/pods";
    let corpus = [
        "/".to_owned(),
        "/api/v1/pods".to_owned(),
        "/accounts".to_owned(),
        "/accounts/".to_owned(),
        format!("/accounts//{pods}"),
        format!("//accounts/{ID}/{pods}"),
        format!("/Accounts/{ID}/{pods}"),
        format!("/accounts/0A1B2C/{pods}"),
        format!("/accounts/%30a1b2c/{pods}"),
        format!("/accounts/ffff/../{ID}/{pods}"),
        format!("/accounts/./{ID}/{pods}"),
        format!("/accounts/{ID}%2f{pods}"),
        format!("/accounts/{ID}/../{ID}/{pods}"),
        format!("/accounts/{ID}//{pods}"),
        format!("/accounts/{ID}/{pods}/"),
        format!("/accounts/{ID}/api/v1/namespaces/shop/%70ods"),
        format!("/accounts/{ID}/api/v1/namespaces/shop/../kube-system/pods"),
        format!("/accounts/{ID}/api/v1/namespaces/shop/Pods"),
        format!("/accounts/{ID}/api/v1/namespaces/shop/pods/a;b"),
        format!("/accounts/{ID}/metrics"),
        format!("/accounts/{}/{pods}", "a".repeat(65)),
        format!("/accounts/{ID}/{}", "x/".repeat(1000)),
    ];
    for path in corpus {
        let status = world.raw("GET", &path).await;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
        let audits = world.audits();
        assert_eq!(audits.len(), 1, "{path}");
        assert_eq!(audits[0].status.as_u16(), status, "{path}");
    }
    assert_eq!(world.sent(), Vec::<String>::new());
    assert_eq!(world.get("/api/v1/namespaces/shop/pods").await.status, 200);
}

#[tokio::test]
async fn an_unknown_account_names_the_command_that_lists_them() {
    let world = World::start().await;
    let target = "/accounts/ffff/api/v1/pods";
    let response = world.open("GET", target, &[], String::new()).await;
    assert_eq!(response.status(), 404);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("`sortie get accounts`"));
}

#[tokio::test]
async fn an_unbound_client_is_forbidden_everywhere() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    for path in [
        "/api",
        "/version",
        "/api/v1/pods",
        "/api/v1/namespaces/shop/pods/a",
    ] {
        let answer = world.ask("GET", path, &[("x-client", "mallory")], "").await;
        assert_eq!(answer.status, 403, "{path}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains("client `mallory` is not bound to account `prod`"));
        // Where kubectl does not look into a `Status`, it gets the sentence alone.
        let is_status = text.starts_with('{') && answer.reason() == "Forbidden";
        assert_eq!(is_status, path.starts_with("/api/"), "{path}: {text}");
        assert_eq!(world.audits().len(), 1, "{path}");
    }
    let answer = world.ask("GET", "/api", &[("x-client", "")], "").await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (401, "Unauthorized")
    );
}

#[tokio::test]
async fn impersonation_and_tunnels_are_forbidden_with_a_sentence() {
    let world = World::start().await;
    let impersonated = [("impersonate-user", "admin")];
    let answer = world.ask("GET", "/api/v1/pods", &impersonated, "").await;
    assert_eq!(answer.reason(), "Forbidden");
    for (method, path) in [
        ("POST", "/api/v1/namespaces/shop/pods/a/exec?command=sh"),
        ("GET", "/api/v1/namespaces/shop/pods/a/attach"),
        ("POST", "/api/v1/namespaces/shop/pods/a/portforward"),
        ("GET", "/api/v1/namespaces/shop/services/web/proxy/any/path"),
        ("GET", "/api/v1/nodes/n1/proxy/metrics"),
    ] {
        let answer = world.ask(method, path, &[], "").await;
        assert_eq!(answer.status, 403, "{path}");
        let message = answer.json()["message"].to_string();
        assert!(
            message.contains("not available through Sortie"),
            "{message}"
        );
    }
    assert_eq!(world.audits().len(), 6);
    assert_eq!(world.sent(), Vec::<String>::new());
}

#[tokio::test]
async fn kinds_parts_and_verbs_that_are_not_offered_do_not_exist() {
    let world = World::start().await;
    world.change(|account| {
        let kinds = Arc::make_mut(&mut account.discovery);
        let events = kinds.iter_mut().find(|kind| kind.resource.kind == "Event");
        events.unwrap().resource.verbs = vec!["get".into(), "list".into()];
    });
    for path in [
        "/api/v1/configmaps",
        "/apis/x.y/v1/zs",
        "/api/v1/namespaces/s/pods/a/eviction",
    ] {
        let answer = world.ask("GET", path, &[], "").await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (404, "NotFound"),
            "{path}"
        );
    }
    let answer = world
        .ask("DELETE", "/api/v1/namespaces/shop/events/e", &[], "")
        .await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (405, "MethodNotAllowed")
    );
    let answer = world.ask("POST", "/api", &[], "").await;
    assert_eq!(answer.status, 405);
}
