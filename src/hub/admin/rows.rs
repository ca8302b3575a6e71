//! What is listed: agents, accounts, clients, clusters, tokens.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::Core;
use super::super::account::Surface;
use super::super::registry::Account;
use super::super::session::Session;
use super::{Answer, Row, Sort};
use crate::clock::{self, rfc3339};
use crate::wire::v1;

/// Version of the rows' shape.
const ROWS_VERSION: u32 = 1;

/// The states of an account.
pub(in crate::hub) const ACCOUNT_STATES: [&str; 8] = [
    "ACTIVATING",
    "ACTIVE",
    "FAILED",
    "INACTIVE",
    "ORPHANED",
    "PENDING",
    "STALE",
    "SUSPENDED",
];

/// What the registry says of an account.
#[derive(Clone, Copy, Debug)]
enum Registered {
    Approved,
    Pending,
    Suspended,
}

/// What an account's state is told from.
#[derive(Clone, Copy, Debug)]
struct Standing {
    registered: Registered,
    /// Whether its agent is here and offers it.
    connected: bool,
    /// Whether its agent feeds it.
    fed: bool,
    /// Whether what is known of it is older than `max-stale`.
    expired: bool,
    /// What its agent last said.
    told: Option<v1::AccountState>,
}

impl Standing {
    const fn state(self) -> &'static str {
        match self {
            Self {
                registered: Registered::Suspended,
                ..
            } => "SUSPENDED",
            Self {
                registered: Registered::Pending,
                ..
            } => "PENDING",
            Self {
                connected: false,
                expired: true,
                ..
            } => "ORPHANED",
            Self {
                connected: false, ..
            }
            | Self {
                told: Some(v1::AccountState::Stale),
                ..
            } => "STALE",
            Self {
                told: Some(v1::AccountState::Failed),
                ..
            } => "FAILED",
            Self {
                told: Some(v1::AccountState::Suspended),
                ..
            } => "SUSPENDED",
            Self {
                told: Some(v1::AccountState::Inactive),
                ..
            } => "INACTIVE",
            Self {
                told: Some(v1::AccountState::Active),
                fed: true,
                ..
            } => "ACTIVE",
            Self { .. } => "ACTIVATING",
        }
    }
}

impl Core {
    pub(super) fn list(&self, what: Sort) -> Answer {
        let (version, rows) = self.rows(what);
        Answer::List { version, rows }
    }

    /// The rows of one sort, and the version of their shape.
    pub(super) fn rows(&self, what: Sort) -> (u32, Vec<Row>) {
        let rows = match what {
            Sort::Accounts => self.account_rows(),
            Sort::Agents => self.agent_rows(),
            Sort::Clients => self.registry.read(|tables| {
                tables
                    .clients
                    .iter()
                    .map(|(name, row)| {
                        row_of([
                            ("name", json!(name)),
                            ("accounts", json!(row.accounts)),
                            ("certificates", json!(row.certificates.len())),
                            ("revoked", json!(row.revoked.map(time))),
                        ])
                    })
                    .collect()
            }),
            Sort::Clusters => self.registry.read(|tables| {
                tables
                    .clusters
                    .iter()
                    .map(|(name, row)| {
                        row_of([
                            ("name", json!(name)),
                            ("issuer", json!(row.issuer)),
                            ("allow", json!(row.allow)),
                        ])
                    })
                    .collect()
            }),
            Sort::Tokens => self.registry.read(|tables| {
                tables
                    .tokens
                    .iter()
                    .map(|(id, row)| {
                        row_of([
                            ("id", json!(id)),
                            ("agent", json!(row.agent)),
                            ("accounts", json!(row.accounts)),
                            ("expires", json!(time(row.expires))),
                            ("spent", json!(row.spent_on.is_some())),
                        ])
                    })
                    .collect()
            }),
        };
        (ROWS_VERSION, rows)
    }

    fn account_rows(&self) -> Vec<Row> {
        let accounts = self.registry.read(|tables| {
            tables
                .accounts
                .iter()
                .map(|(name, row)| (name.clone(), row.clone()))
                .collect::<Vec<_>>()
        });
        accounts
            .into_iter()
            .map(|(name, row)| self.account_row(&name, &row))
            .collect()
    }

    fn account_row(&self, name: &str, row: &Account) -> Row {
        let held = self.accounts.get(name);
        let surface = held.as_ref().map(|held| held.surface.borrow().clone());
        let surface = surface.unwrap_or_default();
        let now = self.clock.now();
        let age = surface
            .away_since
            .and_then(|since| now.duration_since(since).ok());
        let offer = surface.offer.as_ref();
        let standing = self.standing(name, row, &surface);
        let reason = match (&row.suspended, standing.connected) {
            (Some(reason), _) => reason.as_str(),
            (None, false) if row.approved => "AgentAway",
            (None, _) => offer.map_or("", |offer| offer.reason.as_str()),
        };
        let message = match standing.registered {
            Registered::Suspended if reason.is_empty() => {
                format!("suspended by hand; `sortie account approve {name}` ends it")
            }
            Registered::Suspended => {
                format!("suspended; `sortie account approve {name}` if that is meant")
            }
            Registered::Pending => format!("`sortie account approve {name}` admits it"),
            Registered::Approved if !standing.connected => {
                format!(
                    "agent `{}` is not connected, or no longer offers it",
                    row.agent
                )
            }
            Registered::Approved => offer.map_or_else(String::new, |offer| offer.message.clone()),
        };
        let objects: usize = held.as_ref().map_or(0, |held| {
            held.view.counts().iter().map(|(_, _, count)| count).sum()
        });
        let told = offer.and_then(|offer| offer.credential.as_ref());
        let next_retry = offer.filter(|offer| offer.next_retry > 0);
        let since = match (standing.connected, surface.away_since) {
            (false, Some(since)) => Some(rfc3339(since)),
            _ => offer.map(|offer| time(offer.since)),
        };
        row_of([
            ("name", json!(name)),
            ("state", json!(standing.state())),
            ("reason", json!(reason)),
            ("agent", json!(row.agent)),
            ("objects", json!(objects)),
            ("age-seconds", json!(age.map(|age| age.as_secs()))),
            ("message", json!(message)),
            ("since", json!(since)),
            ("next-retry", json!(next_retry.map(|o| time(o.next_retry)))),
            ("credential", json!(told.map(credential))),
            ("cluster-uid", json!(row.cluster_uid)),
            ("id", json!(row.id)),
        ])
    }

    fn standing(&self, name: &str, row: &Account, surface: &Surface) -> Standing {
        let away = surface.away_since;
        let age = away.and_then(|since| self.clock.now().duration_since(since).ok());
        Standing {
            registered: match (&row.suspended, row.approved) {
                (Some(_), _) => Registered::Suspended,
                (None, false) => Registered::Pending,
                (None, true) => Registered::Approved,
            },
            connected: self
                .sessions
                .active(&row.agent)
                .is_some_and(|session| session.offers().contains_key(name)),
            fed: away.is_none(),
            expired: age.is_some_and(|age| age > self.max_stale),
            told: surface.offer.as_ref().map(|offer| offer.state()),
        }
    }

    /// Every registered account with its state, one of [`ACCOUNT_STATES`].
    pub(in crate::hub) fn account_states(&self) -> Vec<(String, &'static str)> {
        let accounts = self.registry.read(|tables| {
            let rows = tables.accounts.iter();
            rows.map(|(name, row)| (name.clone(), row.clone()))
                .collect::<Vec<_>>()
        });
        let state = |(name, row): (String, Account)| {
            let held = self.accounts.get(&name);
            let surface = held.map(|held| held.surface.borrow().clone());
            let standing = self.standing(&name, &row, &surface.unwrap_or_default());
            (name, standing.state())
        };
        accounts.into_iter().map(state).collect()
    }

    /// Every instance that is connected or drains, with its state.
    pub(in crate::hub) fn instance_states(&self) -> Vec<&'static str> {
        let state = |session: &Arc<Session>| {
            if !session.is_connected() {
                "DRAINING"
            } else if self.sessions.is_active(session) {
                "ACTIVE"
            } else {
                "STANDBY"
            }
        };
        self.sessions.all().iter().map(state).collect()
    }

    fn agent_rows(&self) -> Vec<Row> {
        let agents = self.registry.read(|tables| {
            tables
                .agents
                .iter()
                .map(|(name, row)| (name.clone(), row.clone()))
                .collect::<Vec<_>>()
        });
        let sessions = self.sessions.all();
        agents
            .into_iter()
            .flat_map(|(name, row)| {
                let newest = row.certificates.last();
                let base = row_of([
                    ("name", json!(name)),
                    ("join", json!(row.join)),
                    ("certificate-serial", json!(newest.map(|c| &c.serial))),
                    (
                        "certificate-not-after",
                        json!(newest.map(|c| time(c.not_after))),
                    ),
                    ("revoked", json!(row.revoked.map(time))),
                ]);
                let state = if row.revoked.is_some() {
                    "BANNED"
                } else {
                    "AWAY"
                };
                let registered = self.registry.read(|tables| {
                    let all = tables.accounts.iter();
                    let own = all.filter(|(_, account)| account.agent == name);
                    own.map(|(account, _)| account.clone()).collect::<Vec<_>>()
                });
                let mut rows: Vec<Row> = sessions
                    .iter()
                    .filter(|s| s.agent == name)
                    .map(|session| {
                        let state = match row.revoked {
                            Some(_) => "BANNED",
                            None if !session.is_connected() => "DRAINING",
                            None if self.sessions.is_active(session) => "ACTIVE",
                            None => "STANDBY",
                        };
                        let mut row = base.clone();
                        row.insert("state".into(), json!(state));
                        row.insert("instance".into(), json!(hex::encode(session.instance)));
                        row.insert("host".into(), json!(session.host));
                        row.insert("version".into(), json!(session.program));
                        let offers = session.offers();
                        let offered: Vec<&String> = offers.keys().collect();
                        row.insert("accounts".into(), json!(offered));
                        row.insert("since".into(), json!(rfc3339(session.since)));
                        row
                    })
                    .collect();
                if rows.is_empty() {
                    let mut row = base;
                    row.insert("state".into(), json!(state));
                    row.insert("accounts".into(), json!(registered));
                    rows.push(row);
                }
                rows
            })
            .collect()
    }
}

fn row_of<const N: usize>(columns: [(&str, Value); N]) -> Row {
    columns
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// What an agent tells of a credential; what there is none of is null.
fn credential(told: &v1::Credential) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let time = |seconds: u64| (seconds > 0).then(|| time(seconds));
    json!({
        "source": told.source,
        "engine": text(&told.engine),
        "version": text(&told.version),
        "confirmed": time(told.confirmed),
        "refresh": time(told.refresh),
        "lease-ends": time(told.lease_ends),
        "usable-until": time(told.usable_until),
        "certificate-ends": time(told.certificate_ends),
        "changed": time(told.changed),
    })
}

fn time(seconds: u64) -> String {
    rfc3339(clock::from_unix_seconds(seconds))
}
