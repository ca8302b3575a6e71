//! `--check` of hub and agent.

use std::path::Path;

use super::{Exit, print, process};
use crate::telemetry::finding::Finding;

/// Runs the looks that a daemon takes, and prints one line for each of them.
pub(super) fn run(config: &Path, looking: impl Future<Output = Vec<Finding>>) -> Exit {
    let read = Finding::good("configuration", config.display().to_string());
    process::block_on(1, async {
        let mut findings = vec![read];
        findings.extend(looking.await);
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        match print::done(&format!("{}\n", lines.join("\n"))) {
            Exit::Done if findings.iter().all(Finding::is_good) => Exit::Done,
            Exit::Done => Exit::Failed,
            unwritten => unwritten,
        }
    })
}
