//! Asks an API server for its kinds again and again, beside whatever its account does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::worker::{Known, learn};
use crate::cluster::Cluster;
use crate::fault::Chain;
use crate::retry::pause;

/// How often the kinds of a cluster are asked for again.
const EVERY: Duration = Duration::from_mins(5);

/// Pause between a changed `CustomResourceDefinition` and the next question.
const SOON: Duration = Duration::from_secs(1);

/// Pause before kinds are asked for once more after that: an API server may show them later than
/// it calls their definition established, or not answer.
const AGAIN: Duration = Duration::from_secs(10);

/// What a question came to.
pub(super) struct Answer {
    /// How often definitions had changed when it was asked.
    pub(super) definitions: u64,
    /// What the API server has; `None` if it did not say.
    pub(super) known: Option<Known>,
}

/// Whom to ask, and when.
pub(super) struct Rediscovery {
    pub(super) account: String,
    pub(super) cluster: watch::Receiver<Arc<Cluster>>,
    /// How often definitions have changed.
    pub(super) definitions: watch::Receiver<u64>,
    /// How often they had when the kinds were last asked for.
    pub(super) asked_at: u64,
}

impl Rediscovery {
    /// Asks, until nobody wants to know any more. For a task that is stopped from outside.
    pub(super) async fn run(mut self, answers: mpsc::Sender<Answer>) {
        let mut tick = tokio::time::interval(EVERY);
        tick.reset();
        loop {
            tokio::select! {
                changed = self.definitions.changed() => {
                    if changed.is_err() { return }
                    pause(SOON).await;
                    self.definitions.mark_unchanged();
                    tick.reset_immediately();
                }
                _ = tick.tick() => {
                    let definitions = *self.definitions.borrow_and_update();
                    if definitions != self.asked_at {
                        tick.reset_after(AGAIN);
                        self.asked_at = definitions;
                    }
                    let known = self.ask().await;
                    if answers.send(Answer { definitions, known }).await.is_err() { return }
                }
            }
        }
    }

    async fn ask(&self) -> Option<Known> {
        let cluster = Arc::clone(&self.cluster.borrow());
        match learn(&cluster).await {
            Ok(known) => Some(known),
            Err(error) => {
                tracing::warn!(account = self.account, error = %Chain(&error), "cannot discover kinds; the known ones are served");
                None
            }
        }
    }
}
