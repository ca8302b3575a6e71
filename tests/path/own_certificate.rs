//! An engine that knows the agent by its own certificate: no secret is needed for the secret.

use std::fs;

use serde_json::{Value, json};

use crate::engines::{READ_ALL, engine_yaml, secret_yaml, shown};
use crate::support::eventually::within;
use crate::support::openbao::Bao;
use crate::support::pki::Authority;
use crate::support::stand::{self, Plan, Stand};
use crate::support::testbed::Testbed;

/// Lifetime of the agent's certificates, and how long the next one may take to be there.
const TTL: &str = "20s";
const ROTATED: std::time::Duration = std::time::Duration::from_secs(30);

/// An `OpenBao` with a kubeconfig, and an agent that logs in to it with its own certificate, which
/// is not let in yet.
async fn start() -> (Bao, Stand, Value) {
    let cluster = Testbed::shared().await.cluster();
    let bao = Bao::start(&Authority::root("bao")).await;
    bao.enable_kv2("kv").await;
    bao.policy("reader", READ_ALL).await;
    bao.write("sys/auth/cert", &json!({"type": "cert"})).await;
    let secret = json!({"kubeconfig": fs::read_to_string(&cluster.kubeconfig).unwrap()});
    bao.put("kv", "shop", &secret).await;
    let plan = Plan {
        accounts: vec!["shop".to_owned()],
        accounts_yaml: secret_yaml("shop", "kv/shop#kubeconfig"),
        engines_yaml: engine_yaml(&bao, "method: cert"),
        agent_ttl: TTL,
    };
    (bao, Stand::joining(plan).await, secret)
}

/// Lets the agent of this name in.
async fn let_in(bao: &Bao, stand: &Stand, agent: &str) {
    let root = stand.hub.folder().join("state").join("ca").join("root.pem");
    let role = json!({
        "certificate": fs::read_to_string(root).unwrap(),
        "allowed_uri_sans": [format!("spiffe://test.sortie.example/agent/{agent}")],
        "token_policies": ["reader"],
    });
    bao.write("auth/cert/certs/agent", &role).await;
}

/// The serial number of the certificate that the hub knows the agent by.
async fn serial(stand: &Stand) -> String {
    let listed = stand.hub.command(&["get", "agents", "-o", "json"]).await;
    let listed: Value = serde_json::from_str(&stand::ok(listed).stdout).unwrap();
    let serial = listed["items"][0]["certificate-serial"].as_str();
    serial.unwrap().to_owned()
}

#[tokio::test]
async fn an_agent_logs_in_to_its_engine_with_its_own_certificate_and_with_the_next_one() {
    let (bao, stand, secret) = start().await;
    stand.wait("shop", "FAILED").await;
    shown(&stand, "shop", "FAILED", "EngineUnauthenticated").await;
    let_in(&bao, &stand, "another").await;
    let row = shown(&stand, "shop", "FAILED", "EngineUnauthenticated").await;
    assert!(
        row["message"].as_str().unwrap().contains("the agent's own"),
        "{row}"
    );
    let_in(&bao, &stand, "lab").await;
    shown(&stand, "shop", "ACTIVE", "").await;

    // The login before is taken away; the next one is made with the next certificate.
    let first = serial(&stand).await;
    within(ROTATED, "the certificate is replaced", async || {
        (serial(&stand).await != first).then_some(())
    })
    .await;
    bao.write("sys/leases/revoke-prefix/auth/cert", &json!({}))
        .await;
    bao.put("kv", "shop", &json!({"other": "field"})).await;
    shown(&stand, "shop", "ACTIVE", "SecretField").await;
    bao.put("kv", "shop", &secret).await;
    shown(&stand, "shop", "ACTIVE", "").await;
}
