//! Each part dies twenty times, at random instants, while everything changes and is read.
//!
//! `cargo bench --bench matrix` takes six hours; `-- 2 5` deals each blow twice, with cuts of 5 s, and
//! `-- 2 5 HubDeaf HubMute` only these.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark stops at the first surprise and prints its figures"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use support::matrix::{Blow, World};

/// How often each blow is dealt unless an argument says otherwise.
const ROUNDS: u64 = 20;

/// How long a cut lasts, in seconds.
const CUTS: [u64; 3] = [SHORTEST, 60, 300];
const SHORTEST: u64 = 5;

/// Cuts of more seconds than this are dealt less often.
const LONG: u64 = 60;
const LONG_ROUNDS: u64 = 3;

/// No answer of the facade may take longer, whatever is away.
const SLOWEST: Duration = Duration::from_secs(1);

fn main() {
    let (numbers, names): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .partition(|argument| argument.parse::<u64>().is_ok());
    let mut numbers = numbers.iter().filter_map(|number| number.parse().ok());
    let rounds = numbers.next().unwrap_or(ROUNDS);
    let chosen: Vec<u64> = numbers.collect();
    let cuts = if chosen.is_empty() {
        CUTS.to_vec()
    } else {
        chosen
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut world = World::start().await;
        for cut in cuts {
            let rounds = if cut > LONG {
                rounds.min(LONG_ROUNDS)
            } else {
                rounds
            };
            for number in 1..=rounds {
                for blow in Blow::all(Duration::from_secs(cut)) {
                    let is_named = |name: &String| format!("{blow:?}").starts_with(name.as_str());
                    if !names.is_empty() && !names.iter().any(is_named) {
                        continue;
                    }
                    // What dies at once has no length: it is dealt with the shortest.
                    if cut != SHORTEST && !blow.lasts() {
                        continue;
                    }
                    let round = world.round(blow).await;
                    println!("{number:>2} {round}");
                    round.check(SLOWEST);
                }
            }
        }
    });
}
