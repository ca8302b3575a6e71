//! Certificates change under load, and nobody who watches notices.

use crate::support::{hand_over, load};

#[tokio::test]
async fn rotations_under_load_lose_and_repeat_nothing_and_ask_the_cluster_nothing() {
    let _turn = load::turn().await;
    let report = hand_over::rotate(20, 500).await;
    println!("{report:?}");
    assert_eq!(report.rotations, 20, "{report:?}");
    assert_eq!(
        (report.lost, report.duplicated, report.reordered),
        (0, 0, 0),
        "{report:?}"
    );
    assert_eq!((report.lists, report.watches), (0, 0), "{report:?}");
    assert!(
        report.sent > 0 && report.seen > 0 && report.seen <= report.sent,
        "{report:?}"
    );
}
