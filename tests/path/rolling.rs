//! Instances of one agent: one serves, the others wait, and never two serve.

use std::time::Duration;

use crate::support::{load, rolling};

/// Longest gap between two events while a draining instance hands over.
const HAND_OVER: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_replace_each_other_lose_and_repeat_nothing_and_list_nothing() {
    let _turn = load::turn().await;
    let report = rolling::roll(4, 500).await;
    println!("{report:?}");
    assert_eq!(
        (report.lost, report.duplicated, report.reordered),
        (0, 0, 0),
        "{report:?}"
    );
    assert_eq!(report.lists, 0, "{report:?}");
    assert!(report.sent > 0 && report.seen > 0, "{report:?}");
    assert!(
        report.drained.iter().all(|stall| *stall <= HAND_OVER),
        "{report:?}"
    );
}
