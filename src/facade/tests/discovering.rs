//! Discovery and OpenAPI, from memory.

use super::*;

#[tokio::test]
async fn both_forms_of_discovery_name_the_same_kinds_core_first() {
    let world = World::start().await;
    world.away();
    assert_eq!(world.get("/api").await.json()["versions"], json!(["v1"]));
    let groups = world.get("/apis").await.json();
    let names: Vec<&Value> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, ["apps", "batch"]);
    assert_eq!(groups["groups"][1]["preferredVersion"]["version"], "v1");
    let apps = world.get("/apis/apps/v1").await.json();
    assert_eq!(apps["groupVersion"], "apps/v1");
    assert_eq!(apps["resources"][0]["shortNames"], json!(["de"]));
    assert_eq!(apps["resources"][1]["name"], "deployments/scale");
    assert_eq!(apps["resources"][1]["group"], "autoscaling");
    assert_eq!(world.get("/apis/apps").await.json()["kind"], "APIGroup");
    assert_eq!(world.get("/apis/none/v1").await.status, 404);

    for version in ["v2", "v2beta1"] {
        let form =
            format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        let accept = format!("{form},application/json");
        let core = world.ask("GET", "/api", &[("accept", &accept)], "").await;
        assert_eq!(core.header("content-type"), Some(form.as_str()));
        let core = core.json();
        assert_eq!(core["items"][0]["metadata"]["name"], "");
        assert_eq!(
            core["items"][0]["versions"][0]["resources"]
                .as_array()
                .unwrap()
                .len(),
            4
        );
        let apis = world
            .ask("GET", "/apis", &[("accept", &accept)], "")
            .await
            .json();
        let batch = &apis["items"][1]["versions"];
        assert_eq!(
            (&batch[0]["version"], &batch[1]["version"]),
            (&json!("v1"), &json!("v1beta1"))
        );
        let scale = &apis["items"][0]["versions"][0]["resources"][0]["subresources"][0];
        assert_eq!(scale["responseKind"]["kind"], "Scale");
    }
    assert_eq!(world.sent(), Vec::<String>::new());
    assert_eq!(world.audits().len(), 1, "only the refusal");
}

#[tokio::test]
async fn open_api_is_enough_for_writes() {
    let world = World::start().await;
    let index = world.get("/openapi/v3").await.json();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let document = world.get(url).await.json();
    let patch =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"]["kind"],
        "Deployment"
    );
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|it| it["name"] == "fieldValidation"));

    let accept = [(
        "accept",
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    )];
    let second = world.ask("GET", "/openapi/v2", &accept, "").await;
    assert_eq!(
        second.header("content-type"),
        Some("application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
    );
    assert_eq!(
        &second.body[..],
        b"\x0a\x032.0\x12\x10\x0a\x0aKubernetes\x12\x02v1"
    );
    assert_eq!(world.get("/version").await.json()["gitVersion"], "v1.33.0");
    assert_eq!(&world.get("/readyz").await.body[..], b"ok");
}

#[tokio::test]
async fn who_asks_for_a_kind_that_the_agent_is_asking_for_waits_and_nobody_else() {
    let world = World::start().await;
    let gadgets = Gvr::new("example.org", "v1", "gadgets");
    let asked = [
        "/apis",
        "/apis/example.org/v1",
        "/openapi/v3",
        "/apis/example.org/v1/gadgets",
    ];
    for path in asked {
        let before = Arc::clone(&world.cluster.account.lock().unwrap());
        let mut newer = Account::clone(&before);
        let mut kinds = before.discovery.as_ref().clone();
        kinds.push(kind(gadgets.clone(), "Gadget", Level::Live, &[]));
        newer.discovery = Arc::new(kinds);
        *world.cluster.newer.lock().unwrap() = Some(Arc::new(newer));
        world.change(|account| account.outdated = true);
        // Were one of these to wait, nothing would be left for the one that has to.
        for current in ["/version", "/healthz", "/api/v1/pods", "/api/v1/pods/none"] {
            world.get(current).await;
        }
        world.script(|_| Reply::Json(200, json!({"kind": "GadgetList", "from": "example.org"})));
        let answer = world.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        let text = String::from_utf8_lossy(&answer.body);
        assert!(text.contains("example.org"), "{path}: {text}");
        assert!(world.cluster.newer.lock().unwrap().is_none(), "{path}");
        *world.cluster.account.lock().unwrap() = before;
    }
}
