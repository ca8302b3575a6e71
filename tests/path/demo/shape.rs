//! The program itself: exit code, report, terminal, and what it leaves behind.

use std::path::Path;

use http::Method;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{command, left, once};
use crate::support::eventually::{eventually, eventually_async};
use crate::support::server::Server;
use crate::support::testbed::Testbed;

#[tokio::test]
async fn a_demonstration_holds_and_its_report_has_the_promised_shape() {
    let (ran, report) = once(&[]).await;
    println!("{report}");
    assert_eq!(ran.code, Some(0), "{ran:?}\n{report}");
    assert_eq!(ran.stderr, "", "the terminal is quiet");
    for line in [
        "cluster  ",
        "hub      ",
        "enrolled ",
        "synced   ",
        "masked   ",
        "try      ",
        "rotated  ",
        "ok       ",
    ] {
        assert!(
            ran.stdout.lines().any(|said| said.starts_with(line)),
            "{line}: {}",
            ran.stdout
        );
    }
    assert_eq!(report["ok"], true);
    assert_eq!(report["failed"], serde_json::json!([]));
    assert_eq!(report["accounts"][0]["name"], "demo");
    assert_eq!(report["accounts"][0]["state"], "ACTIVE");
    let number = |pointer: &str| {
        let value = report.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("{pointer} is no number in {report}"))
    };
    assert!(number("/accounts/0/objects/Pod") > 0.0);
    assert!(number("/rotations") >= 2.0);
    for pointer in [
        "/events/sent",
        "/events/applied",
        "/masked_values",
        "/canaries/planted",
        "/canaries/scanned_bytes",
        "/lag_ms/p50",
        "/lag_ms/p99",
        "/rss_mib",
    ] {
        assert!(number(pointer) > 0.0, "{pointer}");
    }
    for pointer in [
        "/events/lost",
        "/events/duplicated",
        "/events/relists",
        "/canaries/found",
    ] {
        assert!(number(pointer).abs() < f64::EPSILON, "{pointer}");
    }
    assert_eq!(report["canaries"]["control_found"], true);
    assert_eq!(
        report["state_hash"]["cluster"],
        report["state_hash"]["view"]
    );
    assert_eq!(
        report["state_hash"]["view"].as_str().map(str::len),
        Some(64)
    );
}

/// A demonstration that goes on until it is told to stop, with a folder for temporary files.
fn endless(arguments: &[&str], folder: &Path) -> Server {
    let temporary = folder.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    Server::start(&command(arguments, &temporary), &folder.join("demo"), None)
}

#[tokio::test]
async fn an_interrupt_ends_a_demonstration_well_and_leaves_no_folder() {
    let folder = TempDir::with_prefix("sortie-demo-test-").unwrap();
    let mut demo = endless(&[], folder.path());
    let said = |server: &Server| server.stdout().contains("\ntry ").then_some(());
    demo.wait_for("it has synced", said).await;
    assert_eq!(left(&folder.path().join("tmp")), 1, "its folder is there");
    demo.signal(Signal::INT);
    assert_eq!(demo.ended().await, 0, "{}", demo.stderr());
    assert_eq!(demo.stderr(), "", "the terminal is quiet");
    eventually("its folder has gone", || {
        (left(&folder.path().join("tmp")) == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_interrupted_plant_removes_its_namespace() {
    let cluster = Testbed::shared().await.cluster();
    let folder = TempDir::with_prefix("sortie-demo-test-").unwrap();
    let file = cluster.kubeconfig.display().to_string();
    let mut demo = endless(&["--kubeconfig", &file, "--plant"], folder.path());
    let find = |server: &Server| {
        let out = server.stdout();
        let line = out.lines().find(|line| line.starts_with("planted "))?;
        line.rsplit(' ').next().map(str::to_owned)
    };
    let namespace = demo.wait_for("it has planted", find).await;
    let path = format!("/api/v1/namespaces/{namespace}");
    cluster.api().get(&path).await;
    demo.signal(Signal::INT);
    assert_eq!(demo.ended().await, 0, "{}", demo.stderr());
    eventually_async("the namespace has gone", async || {
        let answer = cluster.api().ask(Method::GET, &path, None).await;
        (answer.status == 404).then_some(())
    })
    .await;
}
