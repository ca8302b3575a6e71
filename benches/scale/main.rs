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

mod accounts;
mod agents;
mod process;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|part| part != "--bench")
        .collect();
    let parts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [agents::CHILD, rest @ ..] = parts.as_slice() {
        return agents::child(rest);
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
                agents::run(agents::AGENTS).await;
            }
            ["accounts"] => accounts::run().await,
            ["agents"] => agents::run(agents::AGENTS).await,
            ["agents", count] => agents::run(count.parse().expect("a number")).await,
            other => println!("unknown: {other:?}"),
        }
    });
}

fn row(what: &str, measured: f64, unit: &str, bar: Option<f64>) {
    let bar = bar.map_or_else(String::new, |bar| format!("{bar} {unit}"));
    println!("{what:<60}{:>14}{bar:>14}", format!("{measured:.2} {unit}"));
}
