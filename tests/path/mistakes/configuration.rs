//! Files and command lines that cannot be used.

use std::fs;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::page::{Page, compare};
use crate::support::sortie::run;

/// A hub's configuration that is fine.
const HUB: &str = "\
name: hub-1
trust-domain: test.example
names: [hub.example.com]
";

/// An agent's configuration that is fine, but for the accounts that follow.
const AGENT: &str = "\
name: lab
hub: { data: hub.example.com:9091, enrol: hub.example.com:9092 }
identity:
  trust: { root-spki-sha256: \"0000000000000000000000000000000000000000000000000000000000000000\" }
  join: { method: kubernetes, token-file: token }
";

const ACCOUNTS: &str = "\
accounts:
  - name: lab
    credential: { kubeconfig-file: lab.yaml }
";

/// What goes wrong, in which role, and the file that does it.
fn files() -> Vec<(&'static str, &'static str, String)> {
    let hub = |name, more: &str| (name, "hub", format!("{HUB}{more}"));
    let agent = |name, more: &str| (name, "agent", format!("{AGENT}{more}"));
    vec![
        hub("unknown-key-hub", "state_dir: /var/lib/sortie\n"),
        agent(
            "unknown-key-agent",
            &format!("{ACCOUNTS}    namespace: [shop]\n"),
        ),
        (
            "three-mistakes",
            "hub",
            "name: Hub 1\nnames: []\nlisten: { data: 9091 }\ntrust-domain: test.example\n"
                .to_owned(),
        ),
        hub("not-yaml", "listen: { data: \"0.0.0.0:9091\"\n"),
        hub("tab", "listen:\n\tdata: \"0.0.0.0:9091\"\n"),
        agent(
            "wrong-type",
            "accounts:\n  name: lab\n  credential: { kubeconfig-file: lab.yaml }\n",
        ),
        hub("bad-duration", "max-stale: 15 minutes\n"),
        hub("number-for-duration", "max-stale: 900\n"),
        agent(
            "duplicate-account",
            &format!(
                "{ACCOUNTS}  - name: lab\n    credential: {{ kubeconfig-file: other.yaml }}\n"
            ),
        ),
        agent(
            "engine-not-there-yet",
            "engines:\n  prod: { engine: aws, address: \"https://aws.example\", ca-file: ca.pem, \
             auth: { method: token, token-file: t } }\naccounts:\n  - name: shop\n    \
             credential: { secret: \"sec+vault://prod/secret/shop#kubeconfig\" }\n",
        ),
        (
            "proxy",
            "agent",
            format!("{AGENT}{ACCOUNTS}").replace("9092 }", "9092, proxy: environment }"),
        ),
        (
            "join-file-missing",
            "agent",
            format!(
                "name: lab\nidentity: {{ join: {{ method: token, join-file: join }} }}\n{ACCOUNTS}"
            ),
        ),
        (
            "join-string-cut",
            "agent",
            format!(
                "name: lab\nidentity: {{ join: {{ method: token, join-file: cut-join }} }}\n{ACCOUNTS}"
            ),
        ),
        agent(
            "service-account-outside-a-pod",
            "accounts:\n  - { name: lab, credential: { service-account: true } }\n",
        ),
    ]
}

/// The same, for references of accounts.
fn references() -> Vec<(&'static str, &'static str, String)> {
    let agent = |name, more: &str| (name, "agent", format!("{AGENT}{more}"));
    vec![
        agent(
            "unknown-engine",
            "accounts:\n  - name: shop\n    \
             credential: { secret: \"sec+vault://prod-vault/secret/shop#kubeconfig\" }\n",
        ),
        agent(
            "engine-without-profile",
            "accounts:\n  - name: shop\n    \
             credential: { secret: \"sec+vault:///secret/shop#kubeconfig\" }\n",
        ),
        agent(
            "reference-not-complete",
            "accounts:\n  - name: shop\n    \
             credential: { secret: \"encrypted:vault!e:secret!k:kubeconfig\" }\n",
        ),
        agent("each-field-one-name", &each_field("prod", "#*")),
        agent("one-field-many-names", &each_field("prod-*", "#kubeconfig")),
    ]
}

/// An account whose secret is in an engine that is there.
fn each_field(name: &str, key: &str) -> String {
    format!(
        "engines:\n  prod: {{ engine: vault, address: \"https://vault.example\", ca-file: ca.pem, \
         auth: {{ method: token, token-file: t }} }}\naccounts:\n  - name: \"{name}\"\n    \
         credential: {{ secret: \"sec+vault://prod/secret/shop{key}\" }}\n"
    )
}

/// What goes wrong, and the command line that does it.
const LINES: [(&str, &str); 7] = [
    ("missing-file", "sortie hub --config hub.yaml"),
    ("missing-option", "sortie hub"),
    (
        "unknown-option",
        "sortie agent --config agent.yaml --verbose",
    ),
    ("unknown-subcommand", "sortie status"),
    ("unknown-sort", "sortie get pods"),
    ("unknown-state", "sortie get accounts lab --wait READY"),
    ("bad-ttl", "sortie token create lab --ttl 15"),
];

#[tokio::test]
async fn what_is_wrong_with_a_file_or_a_command_line() {
    let of_file = async |(name, role, text): (&'static str, &str, String)| {
        let folder = TempDir::with_prefix("sortie-mistake-").unwrap();
        let file = folder.path().join(format!("{role}.yaml"));
        fs::write(&file, text).unwrap();
        fs::write(
            folder.path().join("cut-join"),
            "sortie-join-v1.AAECAwQFBgcICQ\n",
        )
        .unwrap();
        let path = file.display().to_string();
        let ran = run(&[role, "--config", &path], "").await;
        let command = format!("sortie {role} --config {role}.yaml");
        Page::new(name).within(folder.path()).ran(&command, &ran)
    };
    let of_line = async |(name, line): (&'static str, &str)| {
        let folder = TempDir::with_prefix("sortie-mistake-").unwrap();
        let file = folder.path().join("hub.yaml").display().to_string();
        let words: Vec<String> = line
            .split(' ')
            .skip(1)
            .map(|word| word.replace("hub.yaml", &file))
            .collect();
        let ran = run(&words, "").await;
        Page::new(name).within(folder.path()).ran(line, &ran)
    };
    let mut pages = join_all(files().into_iter().chain(references()).map(of_file)).await;
    pages.extend(join_all(LINES.into_iter().map(of_line)).await);
    compare("configuration", &pages);
}
