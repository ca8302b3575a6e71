//! Accounts whose kubeconfig lies in Secret Manager or Cloud Storage.
mod memory;

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::eventually::eventually_async;
use crate::support::fake::Client;
use crate::support::google::{Google, PROJECT, SUBJECT_TOKEN};
use crate::support::kube::{Api, Watch};
use crate::support::pki::Authority;
use crate::support::stand::{self, Plan, Stand};
use crate::support::testbed::{Cluster, Testbed};

/// Engines for each way to log in.
fn engines_yaml(google: &Google) -> String {
    let common = format!(
        "endpoint: \"{}\", ca-file: {}, refresh: 1s",
        google.url(),
        google.ca_file().display()
    );
    let key = google.key_file().display().to_string();
    let federation = google.federation_file().display().to_string();
    let logins = [
        ("metadata", "method: metadata".to_owned()),
        ("key", format!("method: key-file, file: {key}")),
        (
            "federation",
            format!("method: federation, file: {federation}"),
        ),
    ];
    let engines = [("sm", "google-secrets-manager"), ("gcs", "gcs")];
    let of_login = |(name, auth): &(&str, String)| {
        engines.map(|(prefix, engine)| {
            format!("  {prefix}-{name}: {{ engine: {engine}, {common}, auth: {{ {auth} }} }}\n")
        })
    };
    logins.iter().flat_map(of_login).collect()
}

fn plan(google: &Google, accounts: &[(&str, String)]) -> Plan {
    let entry = |(name, reference): &(&str, String)| {
        format!("  - name: {name}\n    credential: {{ secret: \"{reference}\" }}\n")
    };
    Plan {
        accounts: accounts
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect(),
        accounts_yaml: accounts.iter().map(entry).collect(),
        engines_yaml: engines_yaml(google),
        agent_ttl: "24h",
    }
}

async fn stand_of(google: &Google, plan: &Plan, options: &[&str]) -> Stand {
    let hub = stand::hub(plan.agent_ttl).await;
    let agent = stand::agent_in(&google.variables(), options, &hub, "lab", plan, "").await;
    Stand { hub, agent }
}

/// Waits until an account shows this; gives the row.
async fn shown(stand: &Stand, account: &str, state: &str, reason: &str) -> Value {
    eventually_async(&format!("{account} is {state} ({reason})"), async || {
        let row = stand.account(account).await;
        (row["state"] == state && row["reason"] == reason).then_some(row)
    })
    .await
}

/// A watch of an account through the hub.
async fn watch(stand: &Stand, account: &str, namespace: &str) -> Watch {
    let client = Client::read(
        &stand
            .kubeconfig(account, &format!("{account}-watcher"))
            .await,
    );
    let path = format!(
        "{}/api/v1/namespaces/{namespace}/services?watch=1",
        client.path
    );
    Api::of(client.https()).watch(&path).await
}

/// A new Service comes through the watch.
async fn streams(watch: &mut Watch, cluster: &Cluster, namespace: &str, name: &str) {
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}]},
    });
    let path = format!("/api/v1/namespaces/{namespace}/services");
    cluster.api().create(&path, &service).await;
    loop {
        let event = watch.next().await;
        assert!(event.is_some(), "the watch has ended before `{name}`");
        if event.is_some_and(|event| event["object"]["metadata"]["name"] == *name) {
            return;
        }
    }
}

#[tokio::test]
async fn the_double_of_google_is_understood_by_googles_own_clients() {
    let google = Google::start(&Authority::root("google")).await;
    let binary: Vec<u8> = (0..=255).collect();
    google.put_secret("shop", b"first").await;
    assert_eq!(google.put_secret("shop", &binary).await, 2);
    let object = ("bucket", "team/shop 1.yaml");
    google.put_object(object.0, object.1, &binary).await;
    let told = google.read_by_official_clients("shop", object);
    for login in ["metadata", "key-file", "federation"] {
        let (secret, object) = (&told[login]["secret"], &told[login]["object"]);
        assert_eq!(secret["data"], STANDARD.encode(&binary), "{login}");
        assert_eq!(secret["name"], "projects/123456789/secrets/shop/versions/2");
        assert_eq!(secret["state"], "ENABLED");
        assert_eq!(object["data"], STANDARD.encode(&binary), "{login}");
    }
}

#[tokio::test]
async fn accounts_from_secret_manager_and_storage_stream_by_every_login() {
    let testbed = Testbed::shared().await;
    let cluster = testbed.cluster();
    let namespace = cluster.api().namespace("google").await;
    let kubeconfig = fs::read_to_string(&cluster.kubeconfig).unwrap();
    let google = Google::start(&Authority::root("google")).await;
    google.put_secret("whole", kubeconfig.as_bytes()).await;
    let fields = json!({"shop": {"kubeconfig": kubeconfig}}).to_string();
    google.put_secret("fields", fields.as_bytes()).await;
    google
        .put_object("bucket", "team/shop 1.yaml", fields.as_bytes())
        .await;
    let secret = |login: &str, rest: &str| {
        format!("sec+google-secrets-manager://sm-{login}/{PROJECT}/{rest}")
    };
    let accounts = [
        ("by-metadata", secret("metadata", "whole")),
        ("by-key", secret("key", "fields#shop.kubeconfig")),
        ("by-federation", secret("federation", "whole?version=1")),
        (
            "from-storage",
            "sec+gcs://gcs-key/bucket/team/shop%201.yaml#shop.kubeconfig".to_owned(),
        ),
        (
            "storage-federated",
            "sec+gcs://gcs-federation/bucket/team/shop%201.yaml#shop.kubeconfig".to_owned(),
        ),
    ];
    let stand = stand_of(&google, &plan(&google, &accounts), &[]).await;
    for (account, _) in &accounts {
        stand.wait(account, "ACTIVE").await;
    }
    for account in ["by-metadata", "from-storage"] {
        let mut watch = watch(&stand, account, &namespace).await;
        streams(&mut watch, cluster, &namespace, account).await;
    }
    let key = google.key_line();
    let planted = [key.as_str(), SUBJECT_TOKEN, "ya29.", cluster.token.as_str()];
    stand.agent.log().assert_without(&planted);
}

#[tokio::test]
async fn what_goes_wrong_at_google_is_told_and_the_account_goes_on() {
    let testbed = Testbed::shared().await;
    let cluster = testbed.cluster();
    let namespace = cluster.api().namespace("google").await;
    let kubeconfig = fs::read_to_string(&cluster.kubeconfig).unwrap();
    let google = Google::start(&Authority::root("google")).await;
    let first = google.put_secret("shop", kubeconfig.as_bytes()).await;
    let accounts = [
        (
            "shop",
            format!("sec+google-secrets-manager://sm-key/{PROJECT}/shop"),
        ),
        ("lost", "sec+gcs://gcs-key/bucket/lost.yaml".to_owned()),
    ];
    let stand = stand_of(&google, &plan(&google, &accounts), &[]).await;
    stand.wait("shop", "ACTIVE").await;
    stand.wait("lost", "FAILED").await;
    let mut watch = watch(&stand, "shop", &namespace).await;
    shown(&stand, "lost", "FAILED", "SecretNotFound").await;

    for (mode, reason) in [
        ("403", "SecretDenied"),
        ("429", "EngineThrottled"),
        ("503", "EngineUnavailable"),
        ("html", "EngineUnavailable"),
        ("401", "EngineUnauthenticated"),
    ] {
        google.set_mode(json!(mode)).await;
        shown(&stand, "shop", "ACTIVE", reason).await;
        streams(&mut watch, cluster, &namespace, &format!("while-{mode}")).await;
        google.set_mode(Value::Null).await;
        shown(&stand, "shop", "ACTIVE", "").await;
    }
    google
        .put_object("bucket", "lost.yaml", kubeconfig.as_bytes())
        .await;
    shown(&stand, "lost", "ACTIVE", "").await;
    google.set_state("shop", first, "DISABLED").await;
    shown(&stand, "shop", "ACTIVE", "SecretNotFound").await;
    google.put_secret("shop", kubeconfig.as_bytes()).await;
    shown(&stand, "shop", "ACTIVE", "").await;
    stand.agent.log().assert_without(&["planted"]);
}
