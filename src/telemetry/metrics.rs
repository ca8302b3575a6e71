//! `/metrics`, in the Prometheus text format.
//!
//! Names are `sortie_<room>_<noun>_<unit>[_total]`. A label's values come from a closed set, which
//! [`Tally`] holds by type; `account` is the only open one. `docs/metrics.md` lists every name
//! (test: `tests/path/metrics.rs`).

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpListener;

use super::serve;
use crate::tasks::Tasks;

/// Content type of the text format.
const TEXT: &str = "text/plain; version=0.0.4";

/// Writes the figures of the moment.
#[derive(Clone)]
pub struct Source(Arc<dyn Fn() -> String + Send + Sync>);

impl Source {
    /// Figures that `render` writes in the text format.
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(render))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

/// Serves metrics on `listener` until `tasks` stop.
pub fn serve(tasks: &Tasks, listener: TcpListener, source: Source) {
    let answer = move |path: &str| match path {
        "/metrics" => (StatusCode::OK, TEXT, (source.0)()),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "not found\n".to_owned(),
        ),
    };
    serve::serve(tasks, "metrics", listener, Arc::new(answer));
}

/// Counts by labels. Their values are written in the program, so there cannot be many.
#[derive(Debug)]
pub struct Tally<const N: usize>(Mutex<BTreeMap<[&'static str; N], u64>>);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<const N: usize> Tally<N> {
    /// Counts one more.
    pub fn add(&self, labels: [&'static str; N]) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(labels).or_default() += 1;
    }

    /// What was counted, by label.
    pub fn read(&self) -> Vec<([&'static str; N], u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .map(|(labels, count)| (*labels, *count))
            .collect()
    }
}

/// Upper ends of a histogram's buckets, in seconds; durations above the last count in none.
const BUCKETS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// How long something took.
#[derive(Debug, Default)]
pub struct Histogram(Mutex<Durations>);

/// Durations by bucket, all of them, and their sum.
#[derive(Clone, Copy, Debug, Default)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: Duration,
}

impl Histogram {
    /// Counts one more.
    pub fn record(&self, took: Duration) {
        let mut durations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (end, bucket) in BUCKETS.iter().zip(&mut durations.buckets) {
            *bucket += u64::from(took.as_secs_f64() <= *end);
        }
        durations.count += 1;
        durations.sum += took;
    }

    fn read(&self) -> Durations {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Figures, as they are written out.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// A figure that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, help, "gauge")
    }

    /// A figure that only grows while the process runs.
    pub fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, help, "counter")
    }

    /// Durations in seconds.
    pub fn histogram(&mut self, name: &'static str, help: &str, histogram: &Histogram) {
        let family = self.family(name, help, "histogram");
        let durations = histogram.read();
        // Writing into a string cannot fail.
        for (end, below) in BUCKETS.iter().zip(durations.buckets) {
            let _fits = writeln!(family.out, "{name}_bucket{{le=\"{end}\"}} {below}");
        }
        let (count, sum) = (durations.count, durations.sum.as_secs_f64());
        let _fits = writeln!(
            family.out,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}"
        );
    }

    fn family(&mut self, name: &'static str, help: &str, kind: &str) -> Family<'_> {
        let _fits = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        let out = &mut self.0;
        Family { out, name }
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.0
    }
}

/// The samples of one figure.
#[derive(Debug)]
pub struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl fmt::Display) {
        let pairs = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
        let pairs = pairs.collect::<Vec<_>>().join(",");
        let _fits = match pairs.as_str() {
            "" => writeln!(self.out, "{} {value}", self.name),
            pairs => writeln!(self.out, "{}{{{pairs}}} {value}", self.name),
        };
    }

    /// A sample per label that was counted.
    pub fn tally<const N: usize>(&mut self, names: [&str; N], tally: &Tally<N>) {
        for (labels, count) in tally.read() {
            let pairs: Vec<_> = names.into_iter().zip(labels).collect();
            self.sample(&pairs, count);
        }
    }

    /// One sample per state, 1 for the one that holds.
    pub fn one_hot(&mut self, account: &str, states: &[&str], holds: &str) {
        for state in states {
            let value = u8::from(*state == holds);
            self.sample(&[("account", account), ("state", state)], value);
        }
    }
}

/// A label's value as the text format wants it.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_a_bare_figure_has_no_braces() {
        let mut out = Exposition::default();
        out.gauge("sortie_a_bytes", "Bytes.").sample(&[], 7);
        out.counter("sortie_b_total", "Things.")
            .sample(&[("account", "a\"b\\c\nd"), ("state", "ACTIVE")], 1.5);
        let wanted = "\
# HELP sortie_a_bytes Bytes.
# TYPE sortie_a_bytes gauge
sortie_a_bytes 7
# HELP sortie_b_total Things.
# TYPE sortie_b_total counter
sortie_b_total{account=\"a\\\"b\\\\c\\nd\",state=\"ACTIVE\"} 1.5
";
        assert_eq!(out.finish(), wanted);
    }

    #[test]
    fn a_histograms_buckets_hold_what_is_not_above_them() {
        let histogram = Histogram::default();
        for millis in [1, 3, 2000, 60_000] {
            histogram.record(Duration::from_millis(millis));
        }
        let mut out = Exposition::default();
        out.histogram("sortie_a_seconds", "Time.", &histogram);
        let text = out.finish();
        for line in [
            "sortie_a_seconds_bucket{le=\"0.001\"} 1",
            "sortie_a_seconds_bucket{le=\"0.005\"} 2",
            "sortie_a_seconds_bucket{le=\"30\"} 3",
            "sortie_a_seconds_bucket{le=\"+Inf\"} 4",
            "sortie_a_seconds_sum 62.004",
            "sortie_a_seconds_count 4",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no `{line}` in {text}"
            );
        }
    }

    #[test]
    fn a_tally_tells_every_label_that_was_counted() {
        let tally = Tally::default();
        tally.add(["list", "ok"]);
        tally.add(["list", "ok"]);
        tally.add(["get", "refused"]);
        assert_eq!(tally.read(), [(["get", "refused"], 1), (["list", "ok"], 2)]);
    }
}
