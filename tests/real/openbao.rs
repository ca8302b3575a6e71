//! OpenBao: secrets, tokens, the seal, and logins of a cluster's service accounts.

use std::fs;

use http::{Method, StatusCode};
use serde_json::json;

use crate::support::openbao::Bao;
use crate::support::pki::Authority;
use crate::support::testbed::Testbed;

const READ_ALL: &str = r#"path "kv/*" { capabilities = ["read"] }"#;

#[tokio::test]
async fn a_secret_is_put_read_and_closed_by_the_seal() {
    let bao = Bao::start(&Authority::root("bao")).await;
    bao.enable_kv2("kv").await;
    assert_eq!(
        bao.put("kv", "shop", &json!({"kubeconfig": "one"})).await,
        1
    );
    assert_eq!(
        bao.put("kv", "shop", &json!({"kubeconfig": "two"})).await,
        2
    );
    assert_eq!(bao.get("kv", "shop").await, json!({"kubeconfig": "two"}));

    bao.seal().await;
    let sealed = bao
        .ask_as(bao.root_token(), Method::GET, "kv/data/shop")
        .await;
    assert_eq!(sealed.status, StatusCode::SERVICE_UNAVAILABLE);
    bao.unseal().await;
    assert_eq!(bao.get("kv", "shop").await, json!({"kubeconfig": "two"}));
}

#[tokio::test]
async fn a_token_reads_what_its_policy_allows_until_it_is_revoked() {
    let bao = Bao::start(&Authority::root("bao")).await;
    bao.enable_kv2("kv").await;
    bao.put("kv", "shop", &json!({"k": "v"})).await;
    bao.policy("reader", READ_ALL).await;
    let token = bao.create_token(&["reader"], "5m").await;

    let read = bao.ask_as(&token.secret, Method::GET, "kv/data/shop").await;
    assert_eq!(read.status, StatusCode::OK);
    let list = bao.ask_as(&token.secret, Method::GET, "sys/mounts").await;
    assert_eq!(list.status, StatusCode::FORBIDDEN);
    bao.revoke(&token).await;
    let revoked = bao.ask_as(&token.secret, Method::GET, "kv/data/shop").await;
    assert_eq!(revoked.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_service_account_logs_in_with_its_own_token() {
    let cluster = Testbed::shared().await.cluster();
    let api = cluster.api();
    let namespace = api.namespace("login").await;
    let bao = Bao::start(&Authority::root("bao")).await;
    bao.policy("reader", READ_ALL).await;
    let ca = fs::read_to_string(&cluster.ca).unwrap();
    bao.enable_kubernetes(&cluster.url, &ca, &cluster.token)
        .await;
    bao.kubernetes_role("agent", (&namespace, "default"), "vault", &["reader"])
        .await;

    let spec = json!({"audiences": ["vault"]});
    let jwt = api.token(&namespace, "default", &spec).await;
    let login = json!({"role": "agent", "jwt": jwt});
    let session = bao.write("auth/kubernetes/login", &login).await;
    assert!(
        session["auth"]["policies"]
            .as_array()
            .unwrap()
            .contains(&json!("reader"))
    );
}
