//! The help texts are the ones in `tests/golden/cli`.
//!
//! `SORTIE_GOLDEN=write cargo test --test cli` writes them anew.

use std::path::PathBuf;
use std::{env, fs};

use crate::support::sortie::run;

const PAGES: [&str; 26] = [
    "",
    "account",
    "account approve",
    "account remove",
    "account suspend",
    "agent",
    "backup",
    "client",
    "client create",
    "cluster",
    "cluster add",
    "cluster remove",
    "demo",
    "get",
    "hub",
    "kubeconfig",
    "ref",
    "ref check",
    "ref explain",
    "ref migrate",
    "restore",
    "revoke",
    "token",
    "token create",
    "token delete",
    "no-such-command",
];

#[tokio::test]
async fn every_help_text_is_as_agreed() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/cli"));
    let mut drifted = Vec::new();
    for page in PAGES {
        let words = page.split_whitespace().chain(["--help"]);
        let ran = run(&words.collect::<Vec<_>>(), "").await;
        let text = format!("{}{}", ran.stdout, ran.stderr);
        let name = if page.is_empty() { "sortie" } else { page };
        let file = folder.join(format!("{}.txt", name.replace(' ', "-")));
        if env::var_os("SORTIE_GOLDEN").is_some_and(|what| what == "write") {
            fs::write(&file, &text).unwrap();
        }
        if fs::read_to_string(&file).unwrap_or_default() != text {
            drifted.push(file);
        }
    }
    assert!(
        drifted.is_empty(),
        "not what the program prints: {drifted:?}"
    );
}

#[tokio::test]
async fn help_is_data_and_a_mistake_is_not() {
    let ran = run(&["--help"], "").await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    for wrong in [
        &["--no-such-flag"][..],
        &[],
        &["hub"],
        &["get", "secrets"],
        &["token", "create", "a", "--ttl", "0s"],
        &["get", "tokens", "--wait", "ACTIVE"],
        &["get", "agents", "--wait", "active"],
        &[
            "cluster", "add", "a", "--issuer", "i", "--jwks", "f", "--allow", "b",
        ],
    ] {
        let ran = run(wrong, "").await;
        assert_eq!(ran.code, Some(64), "{wrong:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{wrong:?}");
        assert!(
            ran.stderr.contains("error: ") || wrong.is_empty(),
            "{}",
            ran.stderr
        );
    }
}
