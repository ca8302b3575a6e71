//! `vaultrs`, run by the test binary itself.

use std::collections::HashMap;
use std::env;

use rustls::crypto::aws_lc_rs;
use serde_json::json;
use tokio::process::Command;
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};

use super::{POINTS, Plain};
use crate::support::openbao::Bao;
use crate::support::pki::Authority;
use crate::support::planted;
use crate::support::scan::Needles;
use crate::support::testbed::Testbed;

/// Where the plain client finds its engine, and the file of its token.
const VARIABLES: [&str; 3] = ["SORTIE_PLAIN_URL", "SORTIE_PLAIN_CA", "SORTIE_PLAIN_TOKEN"];

/// How often the secret is fetched.
const FETCHES: usize = 20;

#[tokio::test]
#[ignore = "the other half of the test below, which runs it"]
async fn fetches_with_a_plain_client() {
    let [url, ca, token] = VARIABLES.map(|name| env::var_os(name).unwrap().into_string().unwrap());
    let _installed_before = aws_lc_rs::default_provider().install_default();
    let settings = VaultClientSettingsBuilder::default()
        .address(url)
        .ca_certs(vec![ca])
        .token(std::fs::read_to_string(token).unwrap())
        .build()
        .unwrap();
    let client = VaultClient::new(settings).unwrap();
    let mut held: Option<HashMap<String, String>> = None;
    for _ in 0..FETCHES {
        held = Some(vaultrs::kv2::read(&client, "kv", "shop").await.unwrap());
    }
    waits(POINTS[0]).await;
    drop(held);
    waits(POINTS[1]).await;
    drop(client);
    waits(POINTS[2]).await;
}

/// Says where it is, and waits for a line.
async fn waits(point: &str) {
    println!("{point}");
    let waiting = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_plain_client_leaves_more_than_the_agent_may() {
    let cluster = Testbed::shared().await.cluster();
    let namespace = cluster.api().namespace("plain").await;
    let bao = Bao::start(&Authority::root("bao")).await;
    bao.enable_kv2("kv").await;
    let planted = planted::token(cluster, &namespace, "plain").await;
    bao.put("kv", "shop", &json!({"kubeconfig": planted.kubeconfig}))
        .await;
    bao.policy("reader", r#"path "kv/*" { capabilities = ["read"] }"#)
        .await;
    let login = bao.create_token(&["reader"], "1h").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, &login.secret).unwrap();
    let needles = Needles::new(&[&planted.values[0].1, login.secret.as_bytes()]);

    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("leaks::plain::vault::fetches_with_a_plain_client")
        .env(VARIABLES[0], bao.url())
        .env(VARIABLES[1], bao.ca_file())
        .env(VARIABLES[2], &file);
    let mut client = Plain::start(&mut command);
    let mut copies = Vec::new();
    for point in POINTS {
        client.comes_to(point).await;
        let found = needles.scan(client.pid);
        copies.push((found.copies(0), found.copies(1)));
        println!(
            "plain client, {point}: {:?}, {:?}",
            copies.last(),
            found.forms
        );
        client.goes_on().await;
    }
    // The positive control of the other tests: this is what they would find.
    assert!(copies.iter().any(|(token, _)| *token > 1), "{copies:?}");
}
