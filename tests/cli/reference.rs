//! `sortie ref`
#![expect(
    clippy::expect_used,
    reason = "a file that cannot be written or read fails the test"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use tempfile::TempDir;

use crate::support::kubectl::Ran;
use crate::support::sortie::run;

/// One of each engine, and what is refused.
const EXPLAINED: [&str; 13] = [
    "encryptedFile:vault!e:secret!n:spinnaker/shop!k:kubeconfig!b:true",
    "sec+vault://prod/team%2Fkv/shop?version=3#*",
    "sec+file://mounted/",
    "encrypted:gcs!b:kubeconfigs!f:team/shop.yaml!k:clusters.shop",
    "secret://google-secrets-manager?p=123456789012&s=shop",
    "encryptedFile:k8s!n:Shop!k:config",
    "encrypted:noop!v:planted",
    "encryptedFile:s3!r:us-west-2!b:kubeconfigs!f:shop.yaml",
    "sec+secrets-manager:///team/shop?version=a1#kubeconfig",
    "sec+secrets-manager:///team/shop?region=eu-west-1&stage=AWSPREVIOUS",
    "sec+vault://vault.internal:8200/secret/shop#kubeconfig",
    "encrypted:vault!e:secret!p:planted",
    "planted",
];

const CONFIG: &str = "\
name: lab
hub: { data: \"hub.example.com:9091\", enrol: \"hub.example.com:9092\" }
identity:
  trust: { root-spki-sha256: \"0000000000000000000000000000000000000000000000000000000000000000\" }
  join: { method: kubernetes, token-file: /none }
engines:
  one: { engine: vault, address: \"https://127.0.0.1:1\", ca-file: /none, auth: { method: token, token-file: /none } }
  two: { engine: vault, address: \"https://127.0.0.1:1\", ca-file: /none, auth: { method: token, token-file: /none }, default: true }
accounts:
  - { name: own, credential: { service-account: true } }
";

fn shown(ran: &Ran) -> String {
    let (stdout, stderr) = (&ran.stdout, &ran.stderr);
    format!("{stdout}{stderr}[exit code {}]\n", ran.code.unwrap_or(-1))
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, text).expect("written");
    file
}

#[tokio::test]
async fn what_a_reference_means_is_shown_without_its_value() {
    let mut pages = Vec::new();
    for reference in EXPLAINED {
        let ran = run(&["ref", "explain", reference], "").await;
        let told = shown(&ran);
        assert!(!told.contains("planted"), "{told}");
        pages.push(format!("$ sortie ref explain '{reference}'\n{told}\n"));
    }
    let page = pages.concat();
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/references/explain.txt"
    );
    if env::var_os("SORTIE_GOLDEN").is_some_and(|what| what == "write") {
        fs::write(file, &page).expect("written");
    }
    let known = fs::read_to_string(file).unwrap_or_default();
    assert!(known == page, "not {file}:\n{page}");
}

#[tokio::test]
async fn the_connection_that_serves_a_reference_is_named() {
    let folder = TempDir::new().expect("a folder");
    let file = written(folder.path(), "agent.yaml", CONFIG);
    let file = file.to_str().expect("text");
    for (reference, connection) in [
        ("sec+vault://one/secret/shop#k", "one"),
        ("encrypted:vault!e:secret!p:shop!k:k", "two"),
    ] {
        let ran = run(&["ref", "explain", reference, "--config", file], "").await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let line = format!("connection  {connection}\n");
        assert!(ran.stdout.contains(&line), "{}", ran.stdout);
    }
    for (reference, missing) in [
        ("sec+vault://three/secret/shop#k", "of the name `three`"),
        ("sec+k8s://one/team/shop#k", "to `k8s` of the name `one`"),
        ("encrypted:noop!v:planted", "to `noop` with `default: true`"),
    ] {
        for command in ["explain", "check"] {
            let ran = run(&["ref", command, reference, "--config", file], "").await;
            assert_eq!((ran.code, ran.stdout.as_str()), (Some(64), ""));
            assert!(ran.stderr.contains(missing), "{}", ran.stderr);
            assert!(!ran.stderr.contains("planted"), "{}", ran.stderr);
        }
    }
}

#[tokio::test]
async fn a_check_that_fails_says_why_and_prints_nothing() {
    let folder = TempDir::new().expect("a folder");
    let file = written(folder.path(), "agent.yaml", CONFIG);
    let file = file.to_str().expect("text");
    let one = "sec+vault://one/secret/shop#k";
    let ran = run(&["ref", "check", one, "--config", file], "").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    let told = "error: cannot fetch `secret/shop` from engine `one`: ";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
    let each = "sec+vault://one/secret/shop#*";
    let ran = run(&["ref", "check", each, "--config", file], "").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
}

const OLD: &str = "\
accounts: # ours
  - { name: a, file: \"encryptedFile:vault!e:secret!n:shop!k:kubeconfig\" } # encrypted:noop!v:x
  - { name: b, file: encrypted:k8s!n:shop!k:config }
";

const NEW: &str = "\
accounts: # ours
  - { name: a, file: \"sec+vault:///secret/shop#kubeconfig\" } # encrypted:noop!v:x
  - { name: b, file: sec+k8s:///shop#config }
";

#[tokio::test]
async fn a_file_is_migrated_on_paper_first_and_then_in_place() {
    let folder = TempDir::new().expect("a folder");
    let file = written(folder.path(), "real.yaml", OLD);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("a mode");
    let link = folder.path().join("agent.yaml");
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    let name = link.to_str().expect("text");
    let ran = run(&["ref", "migrate", name], "").await;
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(0), NEW, "")
    );
    assert_eq!(fs::read_to_string(&file).expect("readable"), OLD);
    let ran = run(&["ref", "migrate", name, "--write"], "").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""));
    assert_eq!(ran.stderr, format!("`{name}`: 2 rewritten\n"));
    assert_eq!(fs::read_to_string(&file).expect("readable"), NEW);
    assert!(link.is_symlink(), "the link is still one");
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2);
    let again = run(&["ref", "migrate", name, "--write"], "").await;
    assert_eq!(again.code, Some(0));
    assert!(again.stderr.contains("no reference in an old form"));
}

#[tokio::test]
async fn nothing_is_written_if_one_reference_cannot_be_read() {
    let folder = TempDir::new().expect("a folder");
    let old = format!("{OLD}  - encrypted:vault!e:planted\n  - encrypted:aws!s:planted\n");
    let file = written(folder.path(), "agent.yaml", &old);
    let name = file.to_str().expect("text");
    let ran = run(&["ref", "migrate", name, "--write"], "").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(64), ""));
    for place in [
        format!("{name}:4: column 5: secret reference, byte 25: "),
        format!("{name}:5: column 5: secret reference, byte 10: no engine `aws`"),
    ] {
        assert!(ran.stderr.contains(&place), "{}", ran.stderr);
    }
    assert!(!ran.stderr.contains("planted"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(&file).expect("readable"), old);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
}
