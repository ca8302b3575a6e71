//! Follows an agent's configuration file while it runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::agent::Running;
use crate::config::agent::{self as config, Live};
use crate::config::source::{self, Environment};

/// How often the file is looked at. A mounted `ConfigMap` changes about once a minute.
const EVERY: Duration = Duration::from_secs(5);

/// The file as it was read last.
pub(super) struct Followed {
    path: PathBuf,
    environment: Environment,
    text: String,
    live: Option<Live>,
}

impl Followed {
    /// From here on, what differs from `text` counts as changed.
    pub(super) fn new(path: &Path, text: String, environment: Environment) -> Self {
        let live = config::live(path, &text, &environment).ok();
        Self {
            path: path.to_owned(),
            environment,
            text,
            live,
        }
    }

    /// Follows the file until `stop`: a valid one takes effect, one that is not changes nothing.
    pub(super) async fn follow(mut self, running: &Running, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.look(running);
        }
    }

    fn look(&mut self, running: &Running) {
        // One that is being replaced is there again at the next look.
        let Ok(text) = source::load(&self.path) else {
            return;
        };
        if text == self.text {
            return;
        }
        self.text = text;
        let live = match config::live(&self.path, &self.text, &self.environment) {
            Ok(live) => live,
            Err(error) => {
                let error = error.to_string();
                tracing::error!(
                    error,
                    "the changed configuration is not valid; everything stays as it was"
                );
                return;
            }
        };
        let restart = self.live.as_ref().map(|before| live.needs_restart(before));
        if let Some(keys) = restart.filter(|keys| !keys.is_empty()) {
            let keys = keys.join(",");
            tracing::warn!(keys, "these changes take effect at the next start only");
        }
        running.reload(live.wanted.clone());
        self.live = Some(live);
    }
}
