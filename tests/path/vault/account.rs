//! An account of the built program whose kubeconfig is behind a login.

use super::*;
use crate::support::fake::Client;
use crate::support::kube::Api;
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::Testbed;

#[tokio::test]
async fn an_account_behind_a_wrapped_secret_id_and_a_store_of_version_1_is_active() {
    let cluster = Testbed::shared().await.cluster();
    let namespace = cluster.api().namespace("vault").await;
    let bench = Bench::start().await;
    let store = json!({"type": "kv", "options": {"version": "1"}});
    bench.bao.write("sys/mounts/plain", &store).await;
    let fields = json!({"kubeconfig": read(&cluster.kubeconfig)});
    bench.bao.write("plain/shop", &fields).await;
    let policy = r#"path "plain/*" { capabilities = ["read"] }"#;
    bench.bao.policy("plain", policy).await;
    bench.enable_auth("approle").await;
    let role = json!({"token_policies": ["plain"]});
    bench.bao.write("auth/approle/role/agent", &role).await;
    let path = "auth/approle/role/agent/role-id";
    let role_id = bench
        .bao
        .ask(Method::GET, path, &Value::Null)
        .await
        .success();
    let wrapped = bench
        .bao
        .write_wrapped("auth/approle/role/agent/secret-id", &json!({}))
        .await;
    let file = bench.file("wrapped", &wrapped);

    let engine = format!(
        "  bao: {{ engine: vault, address: \"{}\", ca-file: {}, default: true, refresh: 1s, \
         auth: {{ method: approle, role-id: {}, secret-id-file: {}, secret-id-wrapped: true }} }}\n",
        bench.bao.url(),
        bench.bao.ca_file().display(),
        role_id["data"]["role_id"],
        file.display(),
    );
    let account = "  - name: shop\n    credential: { secret: \
                   \"encrypted:vault!e:plain!p:shop!k:kubeconfig\" }\n";
    let stand = Stand::start(Plan {
        accounts: vec!["shop".to_owned()],
        accounts_yaml: account.to_owned(),
        engines_yaml: engine,
        agent_ttl: "24h",
    })
    .await;
    let client = Client::read(&stand.kubeconfig("shop", "watcher").await);
    let services = format!("/api/v1/namespaces/{namespace}/services");
    let path = format!("{}{services}?watch=1", client.path);
    let mut watch = Api::of(client.https()).watch(&path).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "seen"},
        "spec": {"ports": [{"port": 80}]},
    });
    cluster.api().create(&services, &service).await;
    let event = watch.next().await.expect("the watch goes on");
    assert_eq!(event["object"]["metadata"]["name"], "seen");
    stand.agent.log().assert_without(&[wrapped.as_str()]);
}
