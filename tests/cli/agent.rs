//! An agent under its command line.
#![expect(
    clippy::expect_used,
    reason = "a folder that cannot be written to fails the test"
)]

use std::path::Path;

use crate::support::sortie::Sortie;

/// An agent whose join string is in `join`, beside its configuration.
fn agent(join: &str) -> Sortie {
    Sortie::agent(|folder: &Path| {
        std::fs::write(folder.join("join"), join).expect("written");
        "\
name: prod-eu
listen: { health: 127.0.0.1:0, metrics: 127.0.0.1:0 }
identity: { join: { method: token, join-file: join } }
accounts: [{ name: lab, credential: { kubeconfig-file: not-there.yaml } }]
"
        .to_owned()
    })
}

async fn hub() -> (Sortie, String) {
    let hub = Sortie::hub(crate::hub::config);
    hub.ready().await;
    let made = hub.command(&["token", "create", "prod-eu"]).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    (hub, made.stdout)
}

#[tokio::test]
async fn an_agent_joins_and_ends_when_told() {
    let (hub, join) = hub().await;
    let mut agent = agent(&join);
    let wait = [
        "get",
        "agents",
        "prod-eu",
        "--wait",
        "ACTIVE",
        "--timeout",
        "30s",
    ];
    let active = hub.command(&wait).await;
    assert_eq!(active.code, Some(0), "{}{:?}", active.stderr, agent.log());
    assert!(
        active.stdout.starts_with("NAME     STATE   JOIN"),
        "{}",
        active.stdout
    );
    assert_eq!(agent.stop().await, 0, "{:?}", agent.log());
    agent.log().assert_without(&[join.trim_end()]);
}

#[tokio::test]
async fn an_agent_that_is_refused_for_good_ends_with_77() {
    let (hub, join) = hub().await;
    let tokens = hub.command(&["get", "tokens", "-o", "json"]).await.stdout;
    let tokens: serde_json::Value = serde_json::from_str(&tokens).unwrap();
    let id = tokens["items"][0]["id"].as_str().unwrap();
    let deleted = hub.command(&["token", "delete", id]).await;
    assert_eq!(deleted.code, Some(0), "{}", deleted.stderr);
    let agent = agent(&join);
    assert_eq!(agent.ended().await, 77, "{:?}", agent.log());
}
