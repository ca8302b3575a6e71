//! Each part dies once, while everything changes and is read.

use std::time::Duration;

use crate::support::matrix::{Blow, World};

/// How long a cut lasts here; longer ones are for the soak.
const CUT: Duration = Duration::from_secs(5);

/// Slowest answer of a build without optimisation, with other tests beside it; the soak holds the
/// promise of one second.
const SLOWEST: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_dies_the_facade_shows_the_cluster_again_and_never_less_than_it_knew() {
    let mut world = World::start().await;
    for blow in Blow::all(CUT) {
        let round = world.round(blow).await;
        println!("{round}");
        round.check(SLOWEST);
    }
}
