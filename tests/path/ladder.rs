//! How a kind is listed and watched where the API server, or what is before it, does not do it well.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::double::{Change, Double, Fault, Settings};
use crate::support::eventually::{eventually, eventually_async};
use crate::support::facade::Facade;
use crate::support::relay::Relay;
use crate::support::stand::{Plan, Stand};

/// Watches that end at once, and how long it takes at least to open so many of them, each after a
/// pause of a tenth of 0.2, 0.4, 0.8, 1.6 and 3.2 s.
const WATCHES: u64 = 6;
const PAUSES: Duration = Duration::from_millis(600);

/// Cuts of a watch that has worked each time, and how long they may take together: pauses that grow
/// from one to the next come to 29 s on average, the first one of each to 1.1 s.
const CUTS: usize = 10;
const RETURNS: Duration = Duration::from_secs(12);

fn cluster() -> Double {
    Double::start(Settings {
        objects: vec![("pods", 100)],
        ..Settings::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_breaks_off_again_and_again_is_taken_page_by_page() {
    let cluster = cluster();
    cluster.fault("/api/v1/pods", Fault::BrokenLists);
    // Serves only once every kind is known.
    let _stand = Stand::start(Plan::one("lab", &cluster.write_kubeconfig(), "")).await;
    assert_eq!(
        cluster.count("list", "pods"),
        3,
        "two that broke off, a page"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_ends_at_once_is_not_opened_again_at_once() {
    let cluster = cluster();
    let _stand = Stand::start(Plan::one("lab", &cluster.write_kubeconfig(), "")).await;
    let before = cluster.count("watch", "pods");
    cluster.fault("/api/v1/pods", Fault::EmptyWatches);
    let since = Instant::now();
    cluster.close_watches();
    eventually("watches that end at once", || {
        (cluster.count("watch", "pods") >= before + WATCHES).then_some(())
    })
    .await;
    assert!(since.elapsed() >= PAUSES, "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_cut_comes_back_at_once_however_often_it_was_cut_before() {
    let cluster = cluster();
    let relay = Relay::to(cluster.address());
    let kubeconfig = cluster.kubeconfig(&format!("https://{}", relay.address()));
    let file = cluster.folder().join("cut.kubeconfig");
    std::fs::write(&file, kubeconfig).unwrap();
    let stand = Stand::start(Plan::one("lab", &file, "")).await;
    let facade = Facade::of(&stand.kubeconfig("lab", "visitor").await);
    let since = Instant::now();
    for _ in 0..CUTS {
        relay.cut();
        let version = cluster.change("pods", 1, Change::Modified).to_string();
        eventually_async("what has changed is seen", async || {
            let list = facade.get("/api/v1/pods").await;
            let pods = list["items"].as_array()?;
            let seen = |pod: &serde_json::Value| pod["metadata"]["resourceVersion"] == *version;
            pods.iter().any(seen).then_some(())
        })
        .await;
    }
    assert!(since.elapsed() < RETURNS, "{:?}", since.elapsed());
}
