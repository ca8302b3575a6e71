//! With the tokens of an issuer.
use std::fs;

use http::Method;
use serde_json::{Value, json};

use super::{account, plan};
use crate::support::eventually::eventually_async;
use crate::support::fake::Client;
use crate::support::issuer::Issuer;
use crate::support::kube::Api;
use crate::support::pki::Authority;
use crate::support::stand::Stand;

#[tokio::test]
async fn tokens_of_an_issuer_are_renewed_and_its_refresh_tokens_follow_each_other() {
    let authority = Authority::root("issuer");
    let issuer = Issuer::start(&authority).await;
    let testbed = issuer.testbed(&authority).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("oidc.yaml");
    let user = issuer.user(&authority, None);
    fs::write(&path, testbed.cluster().kubeconfig_as(&user)).unwrap();
    let stand = Stand::start(plan(&[("oidc", account("oidc", &path, ""))])).await;
    let client = Client::read(&stand.kubeconfig("oidc", "visitor").await);
    let facade = Api::of(client.https());
    let object = format!("{}/api/v1/namespaces/kube-system", client.path);
    // A single object is asked live, so that a token is needed now and then.
    eventually_async("the token was renewed three times", async || {
        let answer = facade.ask(Method::GET, &object, None).await;
        assert!(answer.status.is_success(), "{answer:?}");
        (issuer.renewals() >= 4).then_some(())
    })
    .await;
    let entries = testbed.audit();
    let by_issuer = |entry: &&Value| entry["user"]["username"] == "oidc:agent";
    assert!(entries.iter().filter(by_issuer).count() > 12);
    let row = stand.account("oidc").await;
    assert_eq!(
        (&row["state"], &row["reason"]),
        (&json!("ACTIVE"), &json!("")),
        "{row}"
    );
    let given = issuer.given();
    let mut planted: Vec<&str> = given.iter().map(String::as_str).collect();
    planted.extend(["planted-refresh", "planted-secret"]);
    stand.agent.log().assert_without(&planted);
    assert!(given.len() < 60, "{} tokens were made", given.len());
}
