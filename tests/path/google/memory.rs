//! What is left of tokens, keys and documents in the agent's memory.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sortie::entropy;

use super::{plan, stand_of};
use crate::support::eventually::eventually;
use crate::support::google::{Google, PROJECT};
use crate::support::pki::Authority;
use crate::support::scan::Needles;
use crate::support::stand::account_yaml;
use crate::support::testbed::Testbed;

#[tokio::test]
async fn token_and_key_are_in_memory_while_they_are_used_and_no_longer() {
    let testbed = Testbed::shared().await;
    let cluster = testbed.cluster();
    let marker = hex::encode(entropy::bytes::<32>(&*entropy::system()));
    let kubeconfig = fs::read_to_string(&cluster.kubeconfig).unwrap();
    let google = Google::start(&Authority::root("google")).await;
    let document = format!("{kubeconfig}# {marker}\n");
    google.put_secret("shop", document.as_bytes()).await;
    google
        .put_object("bucket", "shop.yaml", document.as_bytes())
        .await;
    let accounts = [
        (
            "by-metadata",
            format!("sec+google-secrets-manager://sm-metadata/{PROJECT}/shop"),
        ),
        ("by-key", "sec+gcs://gcs-key/bucket/shop.yaml".to_owned()),
    ];
    let options = ["--allow-dump", "--log-level", "trace"];
    let stand = stand_of(&google, &plan(&google, &accounts), &options).await;
    for (account, _) in &accounts {
        stand.wait(account, "ACTIVE").await;
    }
    let tokens = google.tokens().await;
    let key = google.key_line();
    let decoded = STANDARD.decode(&key).unwrap();
    let mut login: Vec<Vec<u8>> = tokens.into_iter().map(String::into_bytes).collect();
    login.extend([key.clone().into_bytes(), decoded]);
    let (login, document) = (Needles::new(&login), Needles::new(&[marker.as_bytes()]));

    let used = login.scan(stand.agent.pid());
    println!("in use: {:?} in {:?}", used.forms, used.places);
    assert!(!used.values.is_empty(), "the scanner finds what is there");
    eventually("the document is gone", || {
        let found = document.scan(stand.agent.pid());
        println!("document: {:?}", found.forms);
        (found.total() == 0).then_some(())
    })
    .await;

    let text = fs::read_to_string(stand.agent.config_file()).unwrap();
    let head = text.split("engines:\n").next().unwrap();
    let steady = account_yaml("steady", &cluster.kubeconfig, "");
    fs::write(
        stand.agent.config_file(),
        format!("{head}accounts:\n{steady}"),
    )
    .unwrap();
    eventually("token and key are gone with their accounts", || {
        (login.scan(stand.agent.pid()).total() == 0).then_some(())
    })
    .await;
    let log = stand.agent.log();
    log.assert_without(&[&key, &marker, "ya29."]);
}
