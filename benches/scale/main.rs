//! What many clusters, many agents, slow readers and long runs cost; hub and agents as processes
//! of their own, clusters in this one.
//!
//! `cargo bench --bench scale -- accounts` runs one part; `-- slow-hub 10`, `-- soak 60` take
//! minutes. Without a part it runs those that take minutes at most. Bars are for an idle machine.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark stops at the first surprise and prints its figures"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::Duration;

mod accounts;
mod agents;
mod neighbours;
mod soak;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|part| part != "--bench")
        .collect();
    let parts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match parts.as_slice() {
        [agents::CHILD, rest @ ..] => return agents::child(rest),
        [neighbours::CHILD, rest @ ..] => return neighbours::child(rest),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        println!("{:<60}{:>14}{:>14}", "", "measured", "bar");
        match parts.as_slice() {
            [] => {
                accounts::run().await;
                neighbours::run().await;
                agents::run(agents::AGENTS).await;
            }
            ["accounts"] => accounts::run().await,
            ["neighbours"] => neighbours::run().await,
            ["agents"] => agents::run(agents::AGENTS).await,
            ["agents", count] => agents::run(count.parse().expect("a number")).await,
            ["slow-hub"] => slow_hub(10).await,
            ["slow-hub", minutes] => slow_hub(minutes.parse().expect("a number")).await,
            ["soak"] => soak::run(60).await,
            ["soak", minutes] => soak::run(minutes.parse().expect("a number")).await,
            other => println!("unknown: {other:?}"),
        }
    });
}

/// An agent whose way to the hub carries a fraction of what its cluster tells.
async fn slow_hub(minutes: u64) {
    let report = support::slow_hub::run(Duration::from_mins(minutes)).await;
    println!("{report:?}");
    let over = report.peak - report.steady;
    row("agent, peak over steady, RSS", over, "MiB", Some(32.0));
    let caught_up = report.caught_up.as_secs_f64();
    row("caught up after", caught_up, "s", Some(30.0));
    let lost = f64::from(u32::try_from(report.lost).expect("few"));
    row("objects lost", lost, "", Some(0.0));
}

fn row(what: &str, measured: f64, unit: &str, bar: Option<f64>) {
    let bar = bar.map_or_else(String::new, |bar| format!("{bar} {unit}"));
    println!("{what:<60}{:>14}{bar:>14}", format!("{measured:.2} {unit}"));
}
