//! A panic of the running program while it holds secrets: it tells none, leaves none behind, and ends
//! nothing but what it was about.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::looks::{IN_USE, OPTIONS, Values, assert_gone, rewrite, secret_yaml};
use crate::support::capture::Entry;
use crate::support::eventually::{eventually, eventually_async};
use crate::support::google::{Google, PROJECT};
use crate::support::pki::Authority;
use crate::support::planted;
use crate::support::sortie::{Sortie, http_get};
use crate::support::stand::{self, Plan, Stand, account_yaml};
use crate::support::testbed::Testbed;

/// What the program answers when Google's library panics.
const BROKE_DOWN: &str = "Google's library broke down";

/// Panics so far, as the program's own hook writes them.
fn panics(agent: &Sortie) -> usize {
    agent.stderr().matches("panicked at").count()
}

/// Waits until the account, which is ACTIVE at every look, has this reason.
async fn shown(stand: &Stand, reason: &str) -> Value {
    eventually_async(&format!("shop has the reason `{reason}`"), async || {
        let row = stand.account("shop").await;
        assert_eq!(row["state"], "ACTIVE", "{row}");
        (row["reason"] == reason).then_some(row)
    })
    .await
}

/// Everything that agent and hub tell.
async fn told(stand: &Stand) -> Vec<(&'static str, String)> {
    let mut told = Vec::new();
    for form in ["json", "table"] {
        let listed = stand.hub.command(&["get", "accounts", "-o", form]).await;
        told.push((form, listed.stdout + &listed.stderr));
    }
    for process in [&stand.agent, &stand.hub] {
        let metrics = http_get(process.address("metrics").await, "/metrics").await;
        told.push(("figures", metrics.expect("figures")));
        told.push(("output", process.stdout()));
        told.push(("log", process.stderr()));
    }
    told
}

/// A hub and an agent with an account from Google, and one that stays.
struct Lab {
    stand: Stand,
    google: Google,
    /// What has to go with the account from Google.
    shop: Values,
    steady: Values,
    steady_yaml: String,
    /// The authorities of the system, as the agent sees them.
    bundle: PathBuf,
    _folder: TempDir,
}

impl Lab {
    async fn start() -> Self {
        let cluster = Testbed::shared().await.cluster();
        let namespace = cluster.api().namespace("panics").await;
        let google = Google::start(&Authority::root("google")).await;
        let folder = tempfile::tempdir().unwrap();
        let (mut shop, mut steady) = (Values::default(), Values::default());
        let planted = planted::token(cluster, &namespace, "shop").await;
        let text = planted.kubeconfig.as_bytes();
        google.put_secret("shop", text).await;
        shop.add("shop", &planted);
        let planted = planted::token(cluster, &namespace, "steady").await;
        let file = folder.path().join("steady.yaml");
        fs::write(&file, &planted.kubeconfig).unwrap();
        steady.add("steady", &planted);
        let steady_yaml = account_yaml("steady", &file, "");
        let reference = format!("sec+google-secrets-manager://google/{PROJECT}/shop");
        let plan = Plan {
            accounts: vec!["shop".to_owned(), "steady".to_owned()],
            accounts_yaml: secret_yaml("shop", &reference) + &steady_yaml,
            engines_yaml: format!(
                "  google: {{ engine: google-secrets-manager, endpoint: \"{}\", ca-file: {}, \
                 refresh: 1s, auth: {{ method: metadata }} }}\n",
                google.url(),
                google.ca_file().display()
            ),
            agent_ttl: "24h",
        };

        let bundle = folder.path().join("bundle.pem");
        fs::copy(google.ca_file(), &bundle).unwrap();
        let no_more = folder.path().join("certificates");
        fs::create_dir(&no_more).unwrap();
        let mut variables = google.variables();
        variables.retain(|(name, _)| name != "SSL_CERT_FILE");
        for (name, value) in [
            ("SSL_CERT_FILE", bundle.display().to_string()),
            ("SSL_CERT_DIR", no_more.display().to_string()),
            ("RUST_BACKTRACE", "full".to_owned()),
        ] {
            variables.push((name.to_owned(), value));
        }
        let hub = stand::hub_with(&OPTIONS, plan.agent_ttl).await;
        let agent = stand::agent_in(&variables, &OPTIONS, &hub, "lab", &plan, "").await;
        let stand = Stand { hub, agent };
        for account in &plan.accounts {
            stand.wait(account, "ACTIVE").await;
        }
        Self {
            stand,
            google,
            shop,
            steady,
            steady_yaml,
            bundle,
            _folder: folder,
        }
    }
}

/// The panic is one of Google's library, which cannot live without authorities of the system: they
/// are lost while the agent runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_tells_no_secret_leaves_none_and_is_recovered_from() {
    let mut lab = Lab::start().await;
    let pid = lab.stand.agent.pid();
    assert_eq!(panics(&lab.stand.agent), 0);
    for token in lab.google.tokens().await {
        let value = ("access token".to_owned(), token.into_bytes());
        lab.shop.0.push(value);
    }

    // The login is refused, and the next one finds no authorities.
    fs::write(&lab.bundle, "").unwrap();
    lab.google.set_mode(json!("401")).await;
    eventually("Google's library panics", || {
        (panics(&lab.stand.agent) > 0).then_some(())
    })
    .await;
    lab.google.set_mode(Value::Null).await;
    let row = shown(&lab.stand, "EngineUnavailable").await;
    let message = row["message"].as_str().unwrap();
    assert!(message.contains(BROKE_DOWN), "{row}");
    for values in [&lab.shop, &lab.steady] {
        let found = values.needles().scan(pid);
        values.assert_at_most(IN_USE, "after a panic", &found);
        assert!(found.total() > 0, "what is in use is found");
    }

    fs::copy(lab.google.ca_file(), &lab.bundle).unwrap();
    shown(&lab.stand, "").await;
    for values in [&lab.shop, &lab.steady] {
        let needles = values.needles();
        for (what, text) in told(&lab.stand).await {
            let found = needles.look(text.as_bytes());
            assert_eq!(found.total(), 0, "{what}: {found:?}");
        }
    }
    let died = |entry: &Entry| entry.message() == Some("task panicked");
    assert_eq!(lab.stand.agent.log().entries().filter(died).count(), 0);
    println!("{} panics, 0 values told", panics(&lab.stand.agent));

    rewrite(&lab.stand, "", &lab.steady_yaml).await;
    assert_gone(&lab.shop, pid).await;
    assert_eq!(lab.stand.account("steady").await["state"], "ACTIVE");
}
