//! A hub that takes in far less than the cluster tells: memory stays bounded, nothing is lost.

use std::time::Duration;

use crate::support::{load, slow_hub};

/// How much more memory than at rest the agent may hold, in MiB.
const OVER_STEADY: f64 = 32.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_way_to_the_hub_costs_bounded_memory_and_no_object() {
    let _turn = load::turn().await;
    let report = slow_hub::run(Duration::from_secs(10)).await;
    println!("{report:?}");
    assert_eq!(report.lost, 0);
    assert!(report.coalesced > 0, "the way was slow enough to matter");
    assert!(report.peak - report.steady <= OVER_STEADY);
    assert_eq!((report.lists, report.connections), (0, 1));
}
