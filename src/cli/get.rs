//! `sortie get`

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::admin::{self, Row};
use super::args::{Get, Global, Output, Sort};
use super::table::table;
use super::{Exit, print, process};
use crate::config::text::written;
use crate::hub::admin::{self as hub, Answer, AskError, Request, ask};

/// How often the hub is asked while a state is waited for.
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
    const fn request(self) -> Request {
        Request::Get {
            what: match self {
                Self::Accounts => hub::Sort::Accounts,
                Self::Agents => hub::Sort::Agents,
                Self::Clients => hub::Sort::Clients,
                Self::Clusters => hub::Sort::Clusters,
                Self::Tokens => hub::Sort::Tokens,
            },
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
    const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Accounts => &[
                "name", "state", "reason", "agent", "objects", "since", "message",
            ],
            Self::Agents => &[
                "name",
                "state",
                "join",
                "host",
                "since",
                "certificate-not-after",
            ],
            Self::Clients => &["name", "accounts", "certificates", "revoked"],
            Self::Clusters => &["name", "issuer", "allow"],
            Self::Tokens => &["id", "agent", "accounts", "expires", "spent"],
        }
    }

    /// The column that names a row.
    const fn key(self) -> &'static str {
        match self {
            Self::Tokens => "id",
            Self::Accounts | Self::Agents | Self::Clients | Self::Clusters => "name",
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
    let mut outcome = Err(Exit::Failed);
    process::block_on(1, async {
        outcome = match &get.wait {
            Some(state) => wait(get, state, global).await,
            None => admin::settle(ask(&global.hub, &get.what.request()).await)
                .and_then(|answer| select(get, answer)),
        };
        Exit::Done
    });
    match outcome {
        Ok(rows) => show(get, &rows),
        Err(exit) => exit,
    }
}

/// The rows that were asked for.
fn select(get: &Get, answer: Answer) -> Result<Vec<Row>, Exit> {
    let Answer::List { rows, .. } = answer else {
        return Err(admin::unexpected());
    };
    let Some(name) = &get.name else {
        return Ok(rows);
    };
    let key = get.what.key();
    let is_named = |row: &Row| row.get(key).and_then(Value::as_str) == Some(name);
    Ok(rows.into_iter().filter(is_named).collect())
}

fn show(get: &Get, rows: &[Row]) -> Exit {
    let (one, many) = get.what.words();
    if rows.is_empty()
        && let Some(name) = &get.name
    {
        print::error_text(&format!("no {one} {name}"));
        return Exit::Failed;
    }
    if get.output == Output::Json {
        return print::done(&format!("{}\n", json!({ "version": 1, "items": rows })));
    }
    if rows.is_empty() {
        print::note(&format!("no {many}"));
        return Exit::Done;
    }
    print::done(&table(get.what.columns(), rows))
}

/// Asks until the state is there; a hub that is not up yet is waited for as well.
async fn wait(get: &Get, state: &str, global: &Global) -> Result<Vec<Row>, Exit> {
    let deadline = Instant::now() + get.timeout;
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let request = get.what.request();
    // A hub that does not answer may not hold us longer than asked for.
    let mut last: Option<Result<Vec<Row>, AskError>> = None;
    loop {
        let asking = async {
            ticks.tick().await;
            ask(&global.hub, &request).await
        };
        let Ok(asked) = tokio::time::timeout_at(deadline, asking).await else {
            return Err(match last {
                Some(Err(error)) => admin::unreachable(&error),
                Some(Ok(rows)) => too_late(get, state, &rows),
                None => too_late(get, state, &[]),
            });
        };
        last = Some(match asked {
            Ok(answer) => {
                let rows = select(get, admin::settle(Ok(answer))?)?;
                if has_state(get, state, &rows) {
                    return Ok(rows);
                }
                Ok(rows)
            }
            Err(error) => Err(error),
        });
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
        let columns = get.what.columns();
        print::note(table(columns, rows).trim_end());
    }
    Exit::Unavailable
}
