//! SDKs that are built by themselves, in `tests/plain-clients`, each with its own HTTP client.

use std::env;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{POINTS, Plain};
use crate::aws::{READ, pod_identity};
use crate::leaks::looks::{IN_USE, SECOND, Values};
use crate::support::eventually::idle;
use crate::support::google::Google;
use crate::support::moto::Moto;
use crate::support::pki::Authority;
use crate::support::planted::{self, Planted};
use crate::support::testbed::Testbed;

/// The program of an SDK.
fn program(name: &str) -> Command {
    let folder = env::var_os("SORTIE_PLAIN_CLIENTS")
        .expect("run it as `.ci/soak leaks`: the plain clients have to be built");
    Command::new(Path::new(&folder).join(name))
}

/// What a client is to fetch.
async fn shop(namespace: &str) -> Planted {
    let cluster = Testbed::shared().await.cluster();
    let namespace = cluster.api().namespace(namespace).await;
    planted::token(cluster, &namespace, "shop").await
}

/// Looks through the memory of a client at each point, at once and after a second; gives the most
/// copies of each value that a look found.
async fn looked_through(of: &str, command: &mut Command, values: &Values) -> Vec<usize> {
    let needles = values.needles();
    let mut client = Plain::start(command);
    let mut most = vec![0; values.0.len()];
    for point in POINTS {
        client.comes_to(point).await;
        for when in ["at once", "after a second"] {
            let found = needles.scan(client.pid);
            let copies = values.report(&format!("plain client of {of}, {point}, {when}"), &found);
            for (most, copies) in most.iter_mut().zip(copies) {
                *most = copies.max(*most);
            }
            idle(SECOND).await;
        }
        client.goes_on().await;
    }
    most
}

/// Every value was found, which is the positive control, and one more often than the agent may
/// have it.
#[track_caller]
fn assert_more_than_the_agent_may(most: &[usize]) {
    assert!(most.iter().all(|most| *most > 0), "{most:?}");
    assert!(most.iter().any(|most| *most > IN_USE), "{most:?}");
}

#[tokio::test]
#[ignore = "needs a program of its own: `.ci/soak leaks` builds and runs it"]
async fn the_sdk_of_aws_by_itself_leaves_more_than_the_agent_may() {
    let mut command = program("aws");
    let moto = Moto::start(&Authority::root("aws")).await;
    let role = moto.role("reader", &READ).await;
    let session = json!({"RoleArn": role, "RoleSessionName": "pod"});
    let lent = moto.call("sts", "assume_role", session).await["Credentials"].clone();
    let shop = shop("plain-aws").await;
    let secret = json!({"Name": "shop", "SecretString": shop.kubeconfig});
    moto.call("secretsmanager", "create_secret", secret).await;
    let mut values = Values::default();
    values.add("shop", &shop);
    for name in ["SecretAccessKey", "SessionToken"] {
        let value = lent[name].as_str().unwrap().as_bytes().to_vec();
        values.0.push((name.to_owned(), value));
    }

    let folder = tempfile::tempdir().unwrap();
    let (_pod, variables) = pod_identity(&folder, &lent, "planted-token-of-the-pod").await;
    command
        .env("HOME", folder.path())
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ENDPOINT_URL", moto.url())
        .env("SSL_CERT_FILE", moto.ca_file())
        .envs(variables);
    let most = looked_through("AWS", &mut command, &values).await;
    assert_more_than_the_agent_may(&most);
}

/// A client of Google's that finds the double, trusts it, and has the key of the service account;
/// and what is looked for.
fn at_google(google: &Google, name: &str, shop: &Planted) -> (Command, Values) {
    let mut command = program(name);
    command
        .arg(google.url())
        .env("SSL_CERT_FILE", google.ca_file())
        .env("GOOGLE_APPLICATION_CREDENTIALS", google.key_file());
    let mut values = Values::default();
    values.add("shop", shop);
    let login = ("login of Google".to_owned(), google.key_part());
    values.0.push(login);
    (command, values)
}

#[tokio::test]
#[ignore = "needs a program of its own: `.ci/soak leaks` builds and runs it"]
async fn the_sdk_of_secret_manager_by_itself_leaves_more_than_the_agent_may() {
    let google = Google::start(&Authority::root("google")).await;
    let shop = shop("plain-secret-manager").await;
    google.put_secret("shop", shop.kubeconfig.as_bytes()).await;
    let (mut command, values) = at_google(&google, "google_secret_manager", &shop);
    let most = looked_through("Secret Manager", &mut command, &values).await;
    assert_more_than_the_agent_may(&most);
}

#[tokio::test]
#[ignore = "needs a program of its own: `.ci/soak leaks` builds and runs it"]
async fn the_sdk_of_cloud_storage_by_itself_leaves_more_than_the_agent_may() {
    let google = Google::start(&Authority::root("google")).await;
    let shop = shop("plain-storage").await;
    let text = shop.kubeconfig.as_bytes();
    google.put_object("bucket", "shop", text).await;
    let (mut command, values) = at_google(&google, "google_storage", &shop);
    let most = looked_through("Cloud Storage", &mut command, &values).await;
    assert_more_than_the_agent_may(&most);
}

#[tokio::test]
#[ignore = "needs a program of its own: `.ci/soak leaks` builds and runs it"]
async fn the_client_of_kubernetes_by_itself_leaves_more_than_the_agent_may() {
    let mut command = program("kube");
    let cluster = Testbed::shared().await.cluster();
    let namespace = cluster.api().namespace("plain-kube").await;
    let shop = planted::token(cluster, &namespace, "shop").await;
    let data = json!({"kubeconfig": STANDARD.encode(&shop.kubeconfig)});
    let secret = json!({"metadata": {"name": "shop"}, "data": data});
    let secrets = format!("/api/v1/namespaces/{namespace}/secrets");
    cluster.api().create(&secrets, &secret).await;
    let login = planted::token(cluster, &namespace, "login").await;
    let mut values = Values::default();
    values.add("shop", &shop);
    values.add("login", &login);

    let mut kubeconfig: Value = serde_json::from_str(&login.kubeconfig).unwrap();
    kubeconfig["contexts"][0]["context"]["namespace"] = json!(namespace);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    command.env("KUBECONFIG", &file);
    let most = looked_through("Kubernetes", &mut command, &values).await;
    assert_more_than_the_agent_may(&most);
}
