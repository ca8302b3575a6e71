//! Log events, written as text or as one JSON object per line.

use std::fmt;
use std::str::FromStr;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// For people.
    #[default]
    Text,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(format!(
                "`{text}` is not a log format; use `text` or `json`"
            )),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

/// Which events are written: ours from `level` on, audit records from `audit` on, other crates'
/// warnings and errors only.
///
/// Several libraries print whole answers at DEBUG or TRACE; their levels are not for operators to
/// open.
fn filter(level: LevelFilter, audit: LevelFilter) -> Targets {
    // They print the debug form of errors, which holds raw answers, at WARN.
    let aws = [
        "aws_config",
        "aws_runtime",
        "aws_sdk",
        "aws_sigv4",
        "aws_smithy",
    ];
    Targets::new()
        .with_targets(aws.map(|target| (target, LevelFilter::OFF)))
        .with_default(level.min(LevelFilter::WARN))
        .with_target("sortie", level)
        .with_target("sortie::audit", audit)
        // Prints undecodable answers at WARN.
        .with_target("rustify", LevelFilter::OFF)
        .with_target("vaultrs", LevelFilter::OFF)
        .with_target("google_cloud_auth", LevelFilter::OFF)
}

/// Writes events of one filter to one writer.
fn layer<S, W>(
    filter: Targets,
    format: Format,
    color: bool,
    writer: W,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(color);
    match format {
        Format::Text => layer.with_filter(filter).boxed(),
        Format::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_filter(filter)
            .boxed(),
    }
}

/// A subscriber that writes to `writer`.
pub fn subscriber<W>(
    level: LevelFilter,
    format: Format,
    color: bool,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    Registry::default().with(layer(
        filter(level, LevelFilter::INFO),
        format,
        color,
        writer,
    ))
}

/// As [`subscriber`] without audit records, for a terminal that shows something else; everything
/// that could ever be written goes to `auditor`.
pub fn audited<W, A>(
    level: LevelFilter,
    format: Format,
    color: bool,
    writer: W,
    auditor: A,
) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    A: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let trace = filter(LevelFilter::TRACE, LevelFilter::TRACE);
    let everything = layer(trace, Format::Text, false, auditor);
    let quiet = filter(level, LevelFilter::OFF);
    Registry::default()
        .with(layer(quiet, format, color, writer))
        .with(everything)
}

/// Makes `subscriber` the process's own, and takes in the events of crates that use `log`.
///
/// # Errors
/// There is one already.
pub fn install(
    subscriber: impl Subscriber + Send + Sync,
) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
    tracing::subscriber::set_global_default(subscriber)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_crates_never_write_below_warnings() {
        use tracing::Level;
        let filter = filter(LevelFilter::TRACE, LevelFilter::INFO);
        assert!(filter.would_enable("sortie::stream", &Level::TRACE));
        assert!(!filter.would_enable("hyper::proto", &Level::INFO));
        assert!(filter.would_enable("hyper::proto", &Level::WARN));
        assert!(!filter.would_enable("rustify::client", &Level::ERROR));
        for target in ["aws_config::ecs", "aws_sdk_sts::a", "aws_smithy_runtime::b"] {
            assert!(!filter.would_enable(target, &Level::ERROR), "{target}");
        }
    }

    #[test]
    fn audit_records_are_written_at_every_level() {
        let filter = filter(LevelFilter::ERROR, LevelFilter::INFO);
        assert!(filter.would_enable("sortie::audit", &tracing::Level::INFO));
        assert!(!filter.would_enable("sortie::hub", &tracing::Level::INFO));
    }
}
