//! How a kind is listed and watched where the API server, or what is before it, does not do it well.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::double::{Double, Fault, Settings};
use crate::support::eventually::eventually;
use crate::support::stand::{Plan, Stand};

/// Watches that end at once, and how long it takes at least to open so many of them, each after a
/// pause of a tenth of 0.2, 0.4, 0.8, 1.6 and 3.2 s.
const WATCHES: u64 = 6;
const PAUSES: Duration = Duration::from_millis(600);

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
