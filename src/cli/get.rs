//! `sortie get`

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::admin::{self, Row};
use super::args::{Get, Global, Output, Sort};
use super::table::table;
use super::{Exit, print, process};
use crate::config::text::written;
use crate::hub::admin::{self as hub, Answer, AskError, Key, Request, ask};

/// Pause before a hub that is not up, or has ended, is looked for again while a state is waited for.
const POLL: Duration = Duration::from_millis(200);

/// States of an account.
const ACCOUNT_STATES: [&str; 8] = [
    "ACTIVATING",
    "ACTIVE",
    "FAILED",
    "INACTIVE",
    "ORPHANED",
    "PENDING",
    "STALE",
    "SUSPENDED",
];

/// States of an instance of an agent.
const AGENT_STATES: [&str; 5] = ["ACTIVE", "AWAY", "BANNED", "DRAINING", "STANDBY"];

impl Sort {
    pub(super) const fn at_the_hub(self) -> hub::Sort {
        match self {
            Self::Accounts => hub::Sort::Accounts,
            Self::Agents => hub::Sort::Agents,
            Self::Clients => hub::Sort::Clients,
            Self::Clusters => hub::Sort::Clusters,
            Self::Tokens => hub::Sort::Tokens,
        }
    }

    /// One of them, and several.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Accounts => ("account", "accounts"),
            Self::Agents => ("agent", "agents"),
            Self::Clients => ("client", "clients"),
            Self::Clusters => ("cluster", "clusters"),
            Self::Tokens => ("token", "tokens"),
        }
    }

    /// The columns of the table; JSON has all.
    pub(super) const fn columns(self, output: Output) -> &'static [&'static str] {
        match self {
            Self::Accounts if matches!(output, Output::Wide) => &[
                "name",
                "state",
                "reason",
                "credential.source",
                "credential.version",
                "credential.changed",
                "credential.confirmed",
                "credential.refresh",
                "credential.lease-ends",
                "credential.usable-until",
                "credential.certificate-ends",
            ],
            Self::Accounts => &[
                "name", "state", "reason", "agent", "objects", "since", "message",
            ],
            Self::Agents => &[
                "name",
                "state",
                "join",
                "host",
                "instance",
                "version",
                "since",
                "certificate-serial",
                "certificate-not-after",
                "accounts",
            ],
            Self::Clients => &["name", "accounts", "certificates", "revoked"],
            Self::Clusters => &["name", "issuer", "allow"],
            Self::Tokens => &["id", "agent", "accounts", "expires", "spent"],
        }
    }

    const fn states(self) -> &'static [&'static str] {
        match self {
            Self::Accounts => &ACCOUNT_STATES,
            Self::Agents => &AGENT_STATES,
            Self::Clients | Self::Clusters | Self::Tokens => &[],
        }
    }
}

pub(super) fn run(get: &Get, global: &Global) -> Exit {
    if let Some(state) = &get.wait {
        let known = get.what.states();
        if !known.contains(&state.as_str()) {
            let (_, many) = get.what.words();
            print::error_text(&format!("{many} have no state `{state}`"));
            if !known.is_empty() {
                print::hint(&format!("the states of {many} are {}", known.join(", ")));
            }
            return Exit::Usage;
        }
    }
    if get.watch {
        return process::block_on(1, super::watch::run(get, global));
    }
    let mut outcome = Err(Exit::Failed);
    process::block_on(1, async {
        outcome = match &get.wait {
            Some(state) => wait(get, state, global).await,
            None => list(get, global).await,
        };
        Exit::Done
    });
    match outcome {
        Ok(rows) => show(get, &rows),
        Err(exit) => exit,
    }
}

async fn list(get: &Get, global: &Global) -> Result<Vec<Row>, Exit> {
    let what = get.what.at_the_hub();
    match admin::settle(ask(&global.hub, &Request::Get { what }).await)? {
        Answer::List { rows, .. } => Ok(named(get, rows)),
        _ => Err(admin::unexpected()),
    }
}

/// The rows that were asked for.
pub(super) fn named(get: &Get, mut rows: Vec<Row>) -> Vec<Row> {
    if let Some(name) = &get.name {
        rows.retain(|row| hub::key(row).0 == *name);
    }
    rows
}

fn show(get: &Get, rows: &[Row]) -> Exit {
    let (one, many) = get.what.words();
    if rows.is_empty()
        && let Some(name) = &get.name
    {
        print::error_text(&format!("no {one} {name}"));
        print::hint(&format!("`sortie get {many}` lists them"));
        return Exit::Failed;
    }
    if get.output == Output::Json {
        return print::done(&format!("{}\n", json!({ "version": 1, "items": rows })));
    }
    if rows.is_empty() {
        print::note(&format!("no {many}"));
        return Exit::Done;
    }
    print::done(&table(get.what.columns(get.output), rows))
}

/// Watches until the state is there; a hub that is not up yet is waited for as well.
async fn wait(get: &Get, state: &str, global: &Global) -> Result<Vec<Row>, Exit> {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen::default();
    let mut lost = None;
    let waiting = async {
        loop {
            ticks.tick().await;
            match until(get, state, global, &mut seen).await {
                Ok(settled) => return settled,
                Err(error) => {
                    seen = Seen::default();
                    lost = Some(error);
                }
            }
        }
    };
    // A hub that does not answer may not hold us longer than asked for.
    let in_time = tokio::time::timeout(get.timeout, waiting).await;
    match (in_time, lost) {
        (Ok(settled), _) => settled.map(|()| seen.rows(get)),
        (Err(_), Some(error)) if !seen.told => Err(admin::unreachable(&error)),
        (Err(_), _) => Err(too_late(get, state, &seen.rows(get))),
    }
}

/// Watches one connection's length.
async fn until(
    get: &Get,
    state: &str,
    global: &Global,
    seen: &mut Seen,
) -> Result<Result<(), Exit>, AskError> {
    let mut watching = hub::watch(&global.hub, get.what.at_the_hub()).await?;
    loop {
        let answer = match admin::settle(Ok(watching.next().await?)) {
            Ok(answer) => answer,
            Err(exit) => return Ok(Err(exit)),
        };
        if seen.take(answer).is_none() {
            return Ok(Err(admin::unexpected()));
        }
        if has_state(get, state, &seen.rows(get)) {
            return Ok(Ok(()));
        }
    }
}

/// What a watch has told so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    rows: BTreeMap<Key, Row>,
    /// Whether the hub has told anything, be it that there is nothing.
    told: bool,
}

impl Seen {
    /// Takes over an answer; gives what is new in it and what is gone, or nothing if it is not for
    /// a watch.
    pub(super) fn take(&mut self, answer: Answer) -> Option<(Vec<Row>, Vec<Row>)> {
        let (rows, gone) = match answer {
            Answer::List { rows, .. } => {
                self.rows.clear();
                (rows, Vec::new())
            }
            Answer::Changes { rows, gone, .. } => (rows, gone),
            _ => return None,
        };
        self.told = true;
        for row in &gone {
            self.rows.remove(&hub::key(row));
        }
        for row in &rows {
            self.rows.insert(hub::key(row), row.clone());
        }
        Some((rows, gone))
    }

    /// Whether a row that is gone has no successor. An agent that is away has one row without an
    /// instance, which gives way to those of its instances and comes back after them.
    pub(super) fn misses(&self, gone: &Row) -> bool {
        let (name, instance) = hub::key(gone);
        let mut others = self.rows.keys().filter(|(other, _)| *other == name);
        !others.any(|(_, other)| instance.is_empty() || other.is_empty())
    }

    fn rows(&self, get: &Get) -> Vec<Row> {
        named(get, self.rows.values().cloned().collect())
    }
}

/// Whether one instance of what is named, or everything if nothing is, has the state.
fn has_state(get: &Get, state: &str, rows: &[Row]) -> bool {
    let mut has = rows
        .iter()
        .map(|row| row.get("state") == Some(&json!(state)));
    match get.name {
        Some(_) => has.any(|has| has),
        None => !rows.is_empty() && has.all(|has| has),
    }
}

fn too_late(get: &Get, state: &str, rows: &[Row]) -> Exit {
    let (one, many) = get.what.words();
    let what = match &get.name {
        Some(name) => format!("{one} {name}"),
        None => format!("every one of the {many}"),
    };
    let timeout = written(get.timeout);
    print::error_text(&format!("{what} is not {state} after {timeout}"));
    if !rows.is_empty() {
        let columns = get.what.columns(get.output);
        print::note(table(columns, rows).trim_end());
    }
    Exit::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: serde_json::Value) -> Row {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_agents_instances_take_the_place_of_its_absence() {
        let away = || row(json!({ "name": "a", "state": "AWAY" }));
        let one = || row(json!({ "name": "a", "instance": "1", "state": "ACTIVE" }));
        let two = || row(json!({ "name": "a", "instance": "2", "state": "STANDBY" }));
        let mut seen = Seen::default();
        let mut change = |rows: Vec<Row>, gone: Vec<Row>| {
            seen.take(Answer::Changes {
                version: 1,
                rows,
                gone,
            });
            [away(), one(), two()].map(|row| seen.misses(&row))
        };
        // Neither its absence is missed beside an instance, nor an instance beside its absence.
        assert!(!change(vec![one(), two()], vec![away()])[0]);
        assert!(change(vec![], vec![two()])[2]);
        assert!(!change(vec![away()], vec![one()])[1]);
    }
}
