//! What stays of kubeconfigs from AWS, and of the login by which they were had.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::looks::{AT_REST, IN_USE, SECOND, Values, assert_gone, looked_through, rewrite};
use crate::aws::{READ, plan, pod_identity, stand};
use crate::support::eventually::idle;
use crate::support::moto::Moto;
use crate::support::pki::Authority;
use crate::support::planted;
use crate::support::stand::account_yaml;
use crate::support::testbed::Testbed;

/// Name of an account, its reference, and where its kubeconfig is put.
const ACCOUNTS: [(&str, &str); 2] = [
    ("manager", "sec+secrets-manager://aws/manager"),
    ("object", "sec+s3://objects/configs/object"),
];

/// In how many places a value is held: each of the two connections has the login.
fn holders(name: &str) -> usize {
    if name.starts_with("login") { 2 } else { 1 }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_from_aws_lies_in_memory_once_and_goes_with_its_account() {
    let cluster = Testbed::shared().await.cluster();
    let namespace = cluster.api().namespace("aws-copies").await;
    let moto = Moto::start(&Authority::root("aws")).await;
    let role = moto.role("reader", &READ).await;
    let session = json!({"RoleArn": role, "RoleSessionName": "pod"});
    let lent = moto.call("sts", "assume_role", session).await["Credentials"].clone();
    let mut values = Values::default();
    for name in ["SecretAccessKey", "SessionToken"] {
        let value = lent[name].as_str().unwrap();
        let value = value.as_bytes().to_vec();
        values.0.push((format!("login: {name}"), value));
    }
    let manager = planted::token(cluster, &namespace, "manager").await;
    let object = planted::token(cluster, &namespace, "object").await;
    values.add("manager", &manager);
    values.add("object", &object);
    let location = json!({"LocationConstraint": "eu-west-1"});
    moto.calls(&[
        (
            "secretsmanager",
            "create_secret",
            json!({"Name": "manager", "SecretString": manager.kubeconfig}),
        ),
        (
            "s3",
            "create_bucket",
            json!({"Bucket": "configs", "CreateBucketConfiguration": location}),
        ),
        (
            "s3",
            "put_object",
            json!({"Bucket": "configs", "Key": "object", "Body": object.kubeconfig}),
        ),
    ])
    .await;
    moto.enforce().await;

    let folder = TempDir::new().unwrap();
    let (_pod, variables) = pod_identity(&folder, &lent, "planted-token-of-the-pod").await;
    let plan = plan(&moto, &ACCOUNTS, "");
    let stand = stand(&plan, folder.path(), &variables, &["--allow-dump"]).await;
    let names = ACCOUNTS.map(|(name, _)| name);
    for name in names {
        stand.wait(name, "ACTIVE").await;
    }
    let pid = stand.agent.pid();
    let most = looked_through(&stand, &names, &values, pid).await;
    for ((name, _), most) in values.0.iter().zip(most) {
        assert!(most <= holders(name) * IN_USE, "in use: {name}: {most}");
    }
    // At rest nothing is asked for: so far each secret was, every second.
    let engines = plan.engines_yaml.replace("refresh: 1s", "refresh: 1h");
    let engines = format!("engines:\n{engines}");
    rewrite(&stand, &engines, &plan.accounts_yaml).await;
    for name in names {
        stand.wait(name, "ACTIVE").await;
    }
    idle(SECOND).await;
    let found = values.needles().scan(pid);
    let copies = values.report("at rest", &found);
    for ((name, _), copies) in values.0.iter().zip(copies) {
        let most = holders(name) * AT_REST;
        assert!((1..=most).contains(&copies), "{name}: {copies}, {found:?}");
    }

    let steady = planted::token(cluster, &namespace, "steady").await;
    let file = folder.path().join("steady.yaml");
    fs::write(&file, &steady.kubeconfig).unwrap();
    rewrite(&stand, "", &account_yaml("steady", &file, "")).await;
    assert_gone(&values, pid).await;
}
