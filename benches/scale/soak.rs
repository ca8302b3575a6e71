//! Memory of hub and agent over a long time of many events.

use std::time::Duration;

use crate::row;
use crate::support::double::{Double, Settings};
use crate::support::eventually::idle;
use crate::support::process::{memory, processor};
use crate::support::stand::{Plan, Stand};

/// Pods that change in turn, and changes a second.
const OBJECTS: usize = 1_000;
const RATE: u64 = 1_200;

/// Time between two samples.
const SAMPLE: Duration = Duration::from_mins(1);

/// Samples are quartered after this share of them, which is warm-up.
const WARM_UP: usize = 10;

pub(crate) async fn run(minutes: usize) {
    let double = Double::start(Settings {
        objects: vec![("pods", OBJECTS)],
        changing: true,
        ..Settings::default()
    });
    let plan = Plan::one("lab", &double.write_kubeconfig(), "");
    let stand = Stand::start_with(&["--allow-dump"], plan).await;
    double.drive("pods", RATE);
    let (mut agent, mut hub) = (Vec::new(), Vec::new());
    for minute in 1..=minutes {
        idle(SAMPLE).await;
        agent.push(memory(stand.agent.pid(), "VmRSS"));
        hub.push(memory(stand.hub.pid(), "VmRSS"));
        println!(
            "minute {minute}: agent {:.1} MiB, hub {:.1} MiB, {} events; processor time {:.1} and {:.1} s",
            agent[minute - 1],
            hub[minute - 1],
            double.emitted(),
            processor(stand.agent.pid()),
            processor(stand.hub.pid()),
        );
    }
    double.drive("pods", 0);
    row(
        "agent, last quarter to first, RSS",
        growth(&agent),
        "x",
        Some(1.05),
    );
    row(
        "hub, last quarter to first, RSS",
        growth(&hub),
        "x",
        Some(1.05),
    );
}

/// Mean of the last quarter of the samples by that of the first after the warm-up.
fn growth(samples: &[f64]) -> f64 {
    let warm = &samples[samples.len() / WARM_UP..];
    let quarter = warm.len().div_ceil(4);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.iter().map(|_| 1.0).sum::<f64>();
    mean(&warm[warm.len() - quarter..]) / mean(&warm[..quarter])
}
