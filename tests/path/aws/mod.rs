//! Accounts whose kubeconfig lies in AWS, and an agent that is known there by the token of its
//! `ServiceAccount`. Amazon's own client sets up and verifies; an emulator stands for AWS.
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cache;
use crate::support::eventually::eventually_async;
use crate::support::fake::Client;
use crate::support::kube::Api;
use crate::support::moto::Moto;
use crate::support::pki::Authority;
use crate::support::server::Server;
use crate::support::stand::{self, Plan, Stand};
use crate::support::testbed::{Cluster, Testbed};

pub(crate) const READ: [&str; 3] = [
    "secretsmanager:GetSecretValue",
    "secretsmanager:DescribeSecret",
    "s3:GetObject",
];

/// Name of an account and its reference, without the profile's scheme.
const ACCOUNTS: [(&str, &str); 6] = [
    ("field", "sec+secrets-manager://aws/team/shop#kubeconfig"),
    ("text", "sec+secrets-manager://aws/whole"),
    (
        "before",
        "sec+secrets-manager://aws/staged?stage=AWSPREVIOUS",
    ),
    (
        "classic",
        "encrypted:secrets-manager!r:eu-west-1!s:team/shop!k:kubeconfig",
    ),
    ("object", "sec+s3://objects/configs/whole.yaml"),
    ("path", "sec+s3://objects/configs/all.yaml#clusters.shop"),
];

/// Puts the kubeconfig wherever an account looks for it.
async fn fill(moto: &Moto, kubeconfig: &str) {
    let indented = kubeconfig.trim_end().replace('\n', "\n    ");
    let all = format!("clusters:\n  shop: |\n    {indented}\n");
    let field = json!({"kubeconfig": kubeconfig, "other": "planted-other"}).to_string();
    moto.calls(&[
        (
            "secretsmanager",
            "create_secret",
            json!({"Name": "team/shop", "SecretString": field}),
        ),
        (
            "secretsmanager",
            "create_secret",
            json!({"Name": "whole", "SecretString": kubeconfig}),
        ),
        (
            "secretsmanager",
            "create_secret",
            json!({"Name": "staged", "SecretString": kubeconfig}),
        ),
        (
            "secretsmanager",
            "put_secret_value",
            json!({"SecretId": "staged", "SecretString": "not a kubeconfig"}),
        ),
        (
            "s3",
            "create_bucket",
            json!({"Bucket": "configs", "CreateBucketConfiguration": {"LocationConstraint": "eu-west-1"}}),
        ),
        (
            "s3",
            "put_object",
            json!({"Bucket": "configs", "Key": "whole.yaml", "Body": kubeconfig}),
        ),
        (
            "s3",
            "put_object",
            json!({"Bucket": "configs", "Key": "all.yaml", "Body": all}),
        ),
    ])
    .await;
}

pub(crate) fn plan(moto: &Moto, accounts: &[(&str, &str)], more: &str) -> Plan {
    let engine = |name: &str, engine: &str| {
        format!(
            "  {name}: {{ engine: {engine}, region: eu-west-1, default: true, refresh: 1s, \
             endpoint: \"{url}\", sts-endpoint: \"{url}\", ca-file: {}{more} }}\n",
            moto.ca_file().display(),
            url = moto.url()
        )
    };
    let account = |(name, reference): &(&str, &str)| {
        format!("  - name: {name}\n    credential: {{ secret: \"{reference}\" }}\n")
    };
    Plan {
        accounts: accounts
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect(),
        accounts_yaml: accounts.iter().map(account).collect(),
        engines_yaml: engine("aws", "secrets-manager") + &engine("objects", "s3"),
        agent_ttl: "24h",
    }
}

/// A hub, and an agent with these variables in its environment and `more` options.
pub(crate) async fn stand(
    plan: &Plan,
    home: &Path,
    variables: &[(&str, String)],
    more: &[&str],
) -> Stand {
    let home = [("HOME", home.display().to_string())];
    let variables = variables.iter().chain(&home);
    let variables: Vec<(String, String)> = variables
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let hub = stand::hub(plan.agent_ttl).await;
    let options = [&["--log-level", "trace"], more].concat();
    let agent = stand::agent_in(&variables, &options, &hub, "lab", plan, "").await;
    Stand { hub, agent }
}

/// Waits until an account that is ACTIVE at every look has this reason.
async fn stays_active(stand: &Stand, account: &str, reason: &str) -> Value {
    let what = format!("{account} has the reason `{reason}`");
    eventually_async(&what, async || {
        let row = stand.account(account).await;
        assert_eq!(row["state"], "ACTIVE", "{row}");
        (row["reason"] == reason).then_some(row)
    })
    .await
}

/// What is created in the cluster comes through the hub, in each account.
async fn all_stream(stand: &Stand, cluster: &Cluster, accounts: &[(&str, &str)]) {
    let api = cluster.api();
    let namespace = api.namespace("aws").await;
    let services = format!("/api/v1/namespaces/{namespace}/services");
    for (account, _) in accounts {
        let client = Client::read(&stand.kubeconfig(account, "watcher").await);
        let path = format!("{}{services}?watch=1", client.path);
        let mut watch = Api::of(client.https()).watch(&path).await;
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": account},
            "spec": {"ports": [{"port": 80}]},
        });
        api.create(&services, &service).await;
        let mut seen = false;
        while !seen {
            let event = watch.next().await.expect("the watch goes on");
            seen = event["object"]["metadata"]["name"] == *account;
        }
    }
}

#[tokio::test]
async fn accounts_whose_kubeconfig_lies_in_aws_are_active_stream_and_follow_it() {
    let cluster = Testbed::shared().await.cluster();
    let kubeconfig = fs::read_to_string(&cluster.kubeconfig).unwrap();
    let moto = Moto::start(&Authority::root("aws")).await;
    let role = moto.role("agent", &READ).await;
    fill(&moto, &kubeconfig).await;
    let folder = TempDir::new().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "planted-jwt-of-the-account").unwrap();
    // As EKS gives it to the pod of a ServiceAccount with a role.
    let variables = [
        ("AWS_ROLE_ARN", role),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string()),
    ];
    let plan = plan(&moto, &ACCOUNTS, "");
    let stand = stand(&plan, folder.path(), &variables, &[]).await;
    for (account, _) in ACCOUNTS {
        stand.wait(account, "ACTIVE").await;
    }
    all_stream(&stand, cluster, &ACCOUNTS).await;

    // Signatures are verified from here on. What is changed shows that it is read again.
    moto.enforce().await;
    let other = json!({"SecretId": "team/shop", "SecretString": "{\"other\":\"planted-other\"}"});
    let object = json!({"Bucket": "configs", "Key": "all.yaml", "Body": "clusters: {}"});
    moto.calls(&[
        ("secretsmanager", "put_secret_value", other),
        ("s3", "put_object", object),
    ])
    .await;
    for account in ["field", "classic", "path"] {
        stays_active(&stand, account, "SecretField").await;
    }
    for account in ["text", "before", "object"] {
        stays_active(&stand, account, "").await;
    }

    moto.permit("agent", &["sqs:SendMessage"]).await;
    for account in ["text", "object"] {
        stays_active(&stand, account, "SecretDenied").await;
    }
    moto.permit("agent", &READ).await;
    let now = json!({"SecretId": "whole", "ForceDeleteWithoutRecovery": true});
    let later = json!({"SecretId": "staged"});
    moto.calls(&[
        ("secretsmanager", "delete_secret", now),
        ("secretsmanager", "delete_secret", later),
        (
            "s3",
            "delete_object",
            json!({"Bucket": "configs", "Key": "whole.yaml"}),
        ),
    ])
    .await;
    for account in ["text", "before", "object"] {
        stays_active(&stand, account, "SecretNotFound").await;
    }
    let token = cluster.token.as_str();
    let planted = ["planted-other", "planted-jwt-of-the-account", token];
    stand.agent.log().assert_without(&planted);
    stand.hub.log().assert_without(&planted);
}

/// What gives a pod the credentials `lent` as EKS does, to whoever shows `token`; and the variables
/// by which the pod knows of it.
pub(crate) async fn pod_identity(
    folder: &TempDir,
    lent: &Value,
    token: &str,
) -> (Server, Vec<(&'static str, String)>) {
    let token_file = folder.path().join("token");
    fs::write(&token_file, token).unwrap();
    let given = json!({
        "AccessKeyId": lent["AccessKeyId"],
        "SecretAccessKey": lent["SecretAccessKey"],
        "Token": lent["SessionToken"],
        "Expiration": "2100-01-01T00:00:00Z",
    });
    let served = folder.path().join("served");
    fs::create_dir(&served).unwrap();
    fs::write(served.join("credentials"), given.to_string()).unwrap();
    let mut command = cache::python();
    command
        .args([
            "-u",
            "-m",
            "http.server",
            "--bind",
            "127.0.0.1",
            "--directory",
        ])
        .arg(&served)
        .arg("0");
    let pod = Server::start(&command, &folder.path().join("pod"), None);
    let port = pod
        .wait_for("the source of credentials listens", |server| {
            let log = server.stdout();
            let (_before, rest) = log.split_once(" port ")?;
            rest.split_once(' ').map(|(port, _rest)| port.to_owned())
        })
        .await;
    let variables = vec![
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("http://127.0.0.1:{port}/credentials"),
        ),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            token_file.display().to_string(),
        ),
    ];
    (pod, variables)
}

#[tokio::test]
async fn a_pod_identity_takes_on_a_role() {
    let cluster = Testbed::shared().await.cluster();
    let kubeconfig = fs::read_to_string(&cluster.kubeconfig).unwrap();
    let moto = Moto::start(&Authority::root("aws")).await;
    let reader = moto.role("reader", &READ).await;
    let pod = moto.role("pod", &["sts:AssumeRole"]).await;
    let session = json!({"RoleArn": pod, "RoleSessionName": "pod"});
    let lent = moto.call("sts", "assume_role", session).await["Credentials"].clone();
    fill(&moto, &kubeconfig).await;
    moto.enforce().await;

    let folder = TempDir::new().unwrap();
    let (_pod, variables) = pod_identity(&folder, &lent, "planted-token-of-the-pod").await;
    let accounts = &ACCOUNTS[..1];
    let more = format!(", role-arn: \"{reader}\", external-id: ours");
    let plan = plan(&moto, accounts, &more);
    let stand = stand(&plan, folder.path(), &variables, &[]).await;
    stand.wait("field", "ACTIVE").await;
    all_stream(&stand, cluster, accounts).await;
    let field = |name: &str| lent[name].as_str().unwrap();
    let planted = [
        "planted-token-of-the-pod",
        field("SecretAccessKey"),
        field("SessionToken"),
    ];
    stand.agent.log().assert_without(&planted);
}
