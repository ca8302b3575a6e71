//! Follows an agent's configuration file while it runs.
//!
//! A file is not always replaced at once: what an editor or a copy has written so far may be valid by
//! itself, and lack accounts. So what has changed is looked at twice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::agent::Running;
use crate::config::agent::{self as config, Live};
use crate::config::source::{self, Environment};
use crate::fault::Chain;
use crate::retry;

/// How often the file is looked at. A mounted `ConfigMap` changes about once a minute.
const EVERY: Duration = Duration::from_secs(5);

/// Time between two looks at what has changed: only what is the same at both was written to its end.
const SETTLES: Duration = Duration::from_millis(500);

/// The file as it was read last.
pub(super) struct Followed {
    path: PathBuf,
    environment: Environment,
    text: String,
    live: Option<Live>,
    /// Why it cannot be read, as the log was told last.
    unreadable: Option<String>,
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
            unreadable: None,
        }
    }

    /// Follows the file until `stop`: a valid one takes effect, one that is not changes nothing.
    pub(super) async fn follow(mut self, running: &Running, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let following = async {
            loop {
                ticks.tick().await;
                if let Some(text) = self.changed().await {
                    self.take(text, running);
                }
            }
        };
        let _stopped: Option<()> = stop.run_until_cancelled(following).await;
    }

    /// What the file holds now, if that is not what it held and is written to its end.
    async fn changed(&mut self) -> Option<String> {
        let first = self.load();
        if first.as_ref().is_ok_and(|text| *text == self.text) {
            self.unreadable = None;
            return None;
        }
        retry::pause(SETTLES).await;
        let second = self.load();
        if first != second {
            return None; // the next look sees what has become of it
        }
        match second {
            Ok(text) => {
                self.unreadable = None;
                Some(text)
            }
            Err(error) => {
                if self.unreadable.as_ref() != Some(&error) {
                    tracing::error!(
                        error,
                        "the configuration file cannot be read; everything stays as it was"
                    );
                    self.unreadable = Some(error);
                }
                None
            }
        }
    }

    fn load(&self) -> Result<String, String> {
        source::load(&self.path).map_err(|error| Chain(&error).to_string())
    }

    fn take(&mut self, text: String, running: &Running) {
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

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::credential::testkit::Logged;

    fn followed(folder: &TempDir, text: &str) -> Followed {
        let path = folder.path().join("agent.yaml");
        std::fs::write(&path, text).unwrap();
        Followed::new(&path, text.to_owned(), Environment::default())
    }

    /// What a look sees of a file that is changed by `write` in the middle of it.
    async fn seen(followed: &mut Followed, write: impl FnOnce(&Path)) -> Option<String> {
        let path = followed.path.clone();
        let writing = async {
            retry::pause(SETTLES / 2).await;
            write(&path);
        };
        tokio::join!(followed.changed(), writing).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_being_written_is_taken_once_it_is_whole() {
        let folder = TempDir::new().unwrap();
        let mut followed = followed(&folder, "accounts: [one, two]");
        assert_eq!(followed.changed().await, None);
        let put = |text: &'static str| move |path: &Path| std::fs::write(path, text).unwrap();
        put("accounts:\n- one\n")(&followed.path.clone());
        let whole = "accounts:\n- one\n- two\n";
        assert_eq!(seen(&mut followed, put(whole)).await, None);
        assert_eq!(seen(&mut followed, |_| ()).await.as_deref(), Some(whole));
        // Gone for a moment while it is replaced, and as it was again.
        std::fs::remove_file(&followed.path).unwrap();
        assert_eq!(seen(&mut followed, put("accounts: [one, two]")).await, None);
        assert_eq!(followed.changed().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_read_is_told_once_as_long_as_it_is_so() {
        let (logged, _guard) = Logged::start();
        let folder = TempDir::new().unwrap();
        let mut followed = followed(&folder, "accounts: []");
        let path = followed.path.clone();
        let told = || logged.text().matches("everything stays as it was").count();
        std::fs::remove_file(&path).unwrap();
        for _ in 0..3 {
            assert_eq!(followed.changed().await, None);
        }
        assert_eq!(told(), 1, "{}", logged.text());
        std::fs::write(&path, [0xff]).unwrap();
        for _ in 0..3 {
            assert_eq!(followed.changed().await, None);
        }
        assert_eq!(told(), 2, "another error is another line");
        // As it was again, and gone again.
        std::fs::write(&path, "accounts: []").unwrap();
        assert_eq!(followed.changed().await, None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(followed.changed().await, None);
        assert_eq!(told(), 3);
    }
}
