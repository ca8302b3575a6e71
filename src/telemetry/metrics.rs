//! `/metrics`, in the Prometheus text format.

use std::fmt;
use std::sync::Arc;

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
    serve::serve(tasks, listener, Arc::new(answer));
}
