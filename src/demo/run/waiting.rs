//! Waits for what the hub tells of agents and accounts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::{Progress, RunError, Settings};
use crate::demo::audit::Plant;
use crate::fault::Chain;
use crate::hub::admin::{Answer, Request, Sort, ask};

/// How often the hub is asked how things are.
const POLL: Duration = Duration::from_millis(200);

/// What the hub lists.
pub(super) type Rows = Vec<BTreeMap<String, serde_json::Value>>;

/// Asks the hub how things are, up to a deadline.
pub(super) struct Waiting<'a> {
    pub(super) socket: &'a Path,
    pub(super) deadline: Instant,
    pub(super) timeout: Duration,
}

impl Waiting<'_> {
    /// Polls the hub until `wanted` holds of its agents and accounts.
    pub(super) async fn until(
        &self,
        what: &'static str,
        wanted: impl Fn(&Rows, &Rows) -> bool,
    ) -> Result<(), RunError> {
        let mut tick = tokio::time::interval(POLL);
        loop {
            tick.tick().await;
            let agents = rows(self.socket, Sort::Agents).await?;
            let accounts = rows(self.socket, Sort::Accounts).await?;
            if wanted(&agents, &accounts) {
                return Ok(());
            }
            if Instant::now() >= self.deadline {
                let state = accounts.iter().map(describe).collect::<Vec<_>>().join("; ");
                return Err(RunError::TimedOut {
                    what,
                    timeout: self.timeout,
                    state,
                });
            }
        }
    }

    pub(super) async fn states(&self) -> Result<BTreeMap<String, String>, RunError> {
        let accounts = rows(self.socket, Sort::Accounts).await?;
        let text = |row: &BTreeMap<String, serde_json::Value>, key: &str| {
            row.get(key)
                .and_then(|value| value.as_str())
                .unwrap_or_default()
                .to_owned()
        };
        Ok(accounts
            .iter()
            .map(|row| (text(row, "name"), text(row, "state")))
            .collect())
    }
}

fn describe(row: &BTreeMap<String, serde_json::Value>) -> String {
    let text = |key: &str| {
        row.get(key)
            .and_then(|value| value.as_str())
            .unwrap_or_default()
    };
    format!(
        "{} is {} {} {}",
        text("name"),
        text("state"),
        text("reason"),
        text("message")
    )
}

/// Follows the agent's certificate at the hub until it has changed twice, or for ever.
pub(super) async fn rotations(
    settings: &Settings,
    waiting: &Waiting<'_>,
    mut plant: Option<&mut Plant>,
    say: &Progress,
) -> Result<u64, RunError> {
    let mut tick = tokio::time::interval(POLL);
    let (mut known, mut rotations) = (None, 0);
    loop {
        tick.tick().await;
        let now = serial(&rows(waiting.socket, Sort::Agents).await?);
        if let (Some(old), Some(new)) = (&known, &now)
            && old != new
        {
            rotations += 1;
            say(&format!("rotated  {old} → {new}"));
        }
        if let Some(plant) = &mut plant {
            let changed = plant.change().await;
            changed.map_err(|source| RunError::Read {
                side: "the cluster",
                source,
            })?;
        }
        known = now.or(known);
        let over = rotations >= 2 || Instant::now() >= waiting.deadline;
        if settings.once && over {
            return Ok(rotations);
        }
    }
}

pub(super) fn serial(agents: &Rows) -> Option<String> {
    agents
        .first()?
        .get("certificate-serial")?
        .as_str()
        .map(str::to_owned)
}

pub(super) fn state<'a>(accounts: &'a Rows, name: &str) -> Option<&'a str> {
    let row = accounts
        .iter()
        .find(|row| row.get("name").and_then(|n| n.as_str()) == Some(name))?;
    row.get("state")?.as_str()
}

pub(super) async fn rows(socket: &Path, what: Sort) -> Result<Rows, RunError> {
    match admin_ask(socket, "asking the hub", &Request::Get { what }).await? {
        Answer::List { rows, .. } => Ok(rows),
        _ => Err(refused("asking the hub", "another answer than asked for")),
    }
}

pub(super) async fn admin_ask(
    socket: &Path,
    what: &'static str,
    request: &Request,
) -> Result<Answer, RunError> {
    match ask(socket, request).await {
        Ok(Answer::Error { message }) => Err(refused(what, &message)),
        Ok(answer) => Ok(answer),
        Err(error) => Err(refused(what, &Chain(&error).to_string())),
    }
}

pub(super) fn refused(what: &'static str, message: &str) -> RunError {
    RunError::Admin {
        what,
        message: message.to_owned(),
    }
}
