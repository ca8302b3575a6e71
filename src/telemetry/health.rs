//! `/livez`, `/readyz` and `/version`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use tokio::net::TcpListener;

use super::serve;
use crate::tasks::Tasks;

/// What readiness waits for, by name.
#[derive(Clone, Debug, Default)]
pub struct Latches(Arc<Mutex<BTreeSet<&'static str>>>);

impl Latches {
    /// Waits for each of `names`.
    pub fn open(names: &[&'static str]) -> Self {
        Self(Arc::new(Mutex::new(names.iter().copied().collect())))
    }

    /// `name` has come.
    pub fn close(&self, name: &'static str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }

    /// `name` is waited for again.
    pub fn reopen(&self, name: &'static str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name);
    }

    /// What is still waited for.
    pub fn pending(&self) -> Vec<&'static str> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect()
    }
}

/// Serves health on `listener` until `tasks` stop.
pub fn serve(tasks: &Tasks, listener: TcpListener, latches: Latches) {
    let answer = move |path: &str| match path {
        "/livez" => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/readyz" => readiness(&latches.pending()),
        "/version" => (
            StatusCode::OK,
            "text/plain",
            concat!(env!("CARGO_PKG_VERSION"), "\n").to_owned(),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "not found\n".to_owned(),
        ),
    };
    serve::serve(tasks, "health", listener, Arc::new(answer));
}

fn readiness(pending: &[&str]) -> (StatusCode, &'static str, String) {
    if pending.is_empty() {
        (StatusCode::OK, "text/plain", "ok\n".to_owned())
    } else {
        let body = format!("waiting for {}\n", pending.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, "text/plain", body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_it_waits_for() {
        let latches = Latches::open(&["hub", "accounts"]);
        let (status, _, body) = readiness(&latches.pending());
        assert_eq!(
            (status, body.as_str()),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "waiting for accounts, hub\n"
            )
        );
        latches.close("hub");
        latches.close("accounts");
        assert_eq!(readiness(&latches.pending()).0, StatusCode::OK);
    }
}
