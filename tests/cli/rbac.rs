//! `sortie agent --print-rbac`
#![expect(
    clippy::expect_used,
    reason = "a file that cannot be read fails the test"
)]

use std::{env, fs};

use tempfile::TempDir;

use crate::support::kubectl::Ran;
use crate::support::sortie::run;

/// What is printed for a configuration.
async fn printed(config: &str) -> Ran {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("agent.yaml");
    fs::write(&file, config).expect("written");
    let file = file.display().to_string();
    run(&["agent", "--config", &file, "--print-rbac"], "").await
}

/// The `agent.yaml` in a `ConfigMap`.
fn of_config_map(text: &str) -> String {
    let (_, block) = text.split_once("agent.yaml: |\n").expect("it is there");
    let lines = block
        .lines()
        .map(|line| line.strip_prefix("    ").unwrap_or(line));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// `SORTIE_GOLDEN=write cargo test --test cli` writes the file anew.
#[tokio::test]
async fn the_rights_under_deploy_are_those_of_the_configuration_under_deploy() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/agent");
    let config = fs::read_to_string(format!("{folder}/config.yaml")).expect("readable");
    let ran = printed(&of_config_map(&config)).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let file = format!("{folder}/rbac.yaml");
    if env::var_os("SORTIE_GOLDEN").is_some_and(|what| what == "write") {
        fs::write(&file, &ran.stdout).expect("written");
    }
    let known = fs::read_to_string(&file).expect("readable");
    assert_eq!(known, ran.stdout);
}

const TWO: &str = "\
name: lab
hub: { data: \"hub.example.com:9091\", enrol: \"hub.example.com:9092\" }
identity:
  trust: { root-spki-sha256: \"0000000000000000000000000000000000000000000000000000000000000000\" }
  join: { method: kubernetes, token-file: /none }
accounts:
  - name: own
    credential: { service-account: true }
    kinds: { cached: [Pod, crontabs.stable.example.com], live: [] }
  - name: other
    credential: { kubeconfig-file: other.yaml }
    kinds: { cached: [Pod], live: [\"*\"] }
";

#[tokio::test]
async fn only_the_agents_own_account_is_bound_and_what_is_not_exact_is_said() {
    let ran = printed(TWO).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let (own, other) = ran
        .stdout
        .split_once("# Account other")
        .expect("two accounts");
    assert!(own.contains("kind: ClusterRoleBinding"), "{own}");
    assert!(
        own.contains("# Taken as resources, as they are written: crontabs.stable.example.com.")
    );
    assert!(!other.contains("Binding"), "{other}");
    assert!(other.contains("bind it there to the"), "{other}");
    assert!(other.contains("RBAC cannot leave any out"), "{other}");
}

#[tokio::test]
async fn a_kind_whose_resource_nobody_knows_is_a_mistake_and_nothing_is_printed() {
    let ran = printed(&TWO.replace("crontabs.", "CronTab.")).await;
    assert_eq!(ran.code, Some(64));
    assert_eq!(ran.stdout, "");
    for part in [
        "error: ",
        "`crontab.stable.example.com`",
        "hint: `kubectl api-resources`",
    ] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
}
