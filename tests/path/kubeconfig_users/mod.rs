//! Ways to a real API server that a kubeconfig can name: through a proxy, for somebody else, with
//! what a command or an issuer gives.
mod commands;
mod issuer;
mod proxies;

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::eventually::eventually_async;
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::{Cluster, Testbed};

/// A kubeconfig for `cluster`, with more lines for its cluster and these for its user.
fn kubeconfig(folder: &Path, name: &str, cluster: &Cluster, more: &str, user: &str) -> PathBuf {
    let ca = STANDARD.encode(fs::read(&cluster.ca).unwrap());
    let text = format!(
        "current-context: c\ncontexts: [{{ name: c, context: {{ cluster: c, user: u }} }}]\n\
         clusters:\n- name: c\n  cluster:\n    server: {}\n{}\
         users:\n- name: u\n  user:\n{user}",
        cluster.url,
        more.replace("@CA@", &ca)
    );
    let path = folder.join(format!("{name}.yaml"));
    fs::write(&path, text).unwrap();
    path
}

const CA: &str = "    certificate-authority-data: '@CA@'\n";

/// One entry of `accounts:`; `more` goes into its credential.
fn account(name: &str, kubeconfig: &Path, more: &str) -> String {
    format!(
        "  - name: {name}\n    credential: {{ kubeconfig-file: {}{more} }}\n",
        kubeconfig.display()
    )
}

fn plan(accounts: &[(&str, String)]) -> Plan {
    Plan {
        accounts: accounts
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect(),
        accounts_yaml: accounts.iter().map(|(_, yaml)| yaml.as_str()).collect(),
        engines_yaml: String::new(),
        agent_ttl: "24h",
    }
}

#[tokio::test]
async fn an_account_that_acts_for_another_does_so_in_every_request_and_watch() {
    let testbed = Testbed::start_audited(&[]).await;
    let cluster = testbed.cluster();
    let folder = tempfile::tempdir().unwrap();
    let user = format!(
        "    token: {}\n    as: jane\n    as-groups: ['system:masters', dev]\n    \
         as-user-extra: {{ example.com/why: [tests] }}\n",
        cluster.token
    );
    let path = kubeconfig(folder.path(), "jane", cluster, CA, &user);
    let _stand = Stand::start(plan(&[("jane", account("jane", &path, ""))])).await;
    let ours = |entry: &Value| {
        let agent = entry["userAgent"].as_str().unwrap_or_default();
        agent.starts_with("sortie")
    };
    let audit = eventually_async("watches are in the audit log", async || {
        let entries: Vec<Value> = testbed.audit().into_iter().filter(ours).collect();
        entries
            .iter()
            .any(|entry| entry["verb"] == "watch")
            .then_some(entries)
    })
    .await;
    for entry in &audit {
        let told = &entry["impersonatedUser"];
        assert_eq!(told["username"], "jane", "{entry}");
        assert_eq!(
            told["groups"],
            json!(["system:masters", "dev", "system:authenticated"])
        );
        assert_eq!(
            told["extra"]["example.com/why"],
            json!(["tests"]),
            "{entry}"
        );
    }
}

#[tokio::test]
async fn an_account_may_trust_anybody_and_is_told_off_for_it() {
    let cluster = Testbed::shared().await.cluster();
    let folder = tempfile::tempdir().unwrap();
    let user = format!("    token: {}\n", cluster.token);
    let more = "    insecure-skip-tls-verify: true\n";
    let path = kubeconfig(folder.path(), "lax", cluster, more, &user);
    let lax = account("lax", &path, ", allow: [insecure-skip-tls-verify]");
    let accounts = [("lax", lax), ("strict", account("strict", &path, ""))];
    let stand = Stand::joining(plan(&accounts)).await;
    stand.wait("lax", "ACTIVE").await;
    stand.wait("strict", "FAILED").await;
    let message = "the account's kubeconfig may give up the protection of TLS";
    let told = stand.agent.logged(message).await;
    assert_eq!(told.text("account"), Some("lax"));
}
