//! Follows the parts of a run and puts their figures on the board.

use std::convert::Infallible;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::parts::AGENT;
use super::verdict::Evidence;
use super::waiting::{Rows, rows};
use crate::agent;
use crate::clock::SharedClock;
use crate::demo::audit::Canaries;
use crate::demo::board::{
    Account, Agent, Board, Certificate, Change, Doors, Live, SECONDS, push_bounded,
};
use crate::fault::Chain;
use crate::hub;
use crate::hub::admin::Sort;

/// How often the figures are read.
const EVERY: Duration = Duration::from_millis(200);

/// Readings per second: each second of events, and the percentiles, are of so many.
const READINGS: u32 = 5;

/// Changes of the certificate that are kept.
const CHANGES: usize = 16;

/// The parts that are followed.
pub(super) struct Followed<'a> {
    pub(super) hub: &'a hub::Running,
    pub(super) agent: &'a agent::Running,
    pub(super) socket: &'a Path,
    /// What is looked for, if anything was planted.
    pub(super) canaries: Option<&'a Canaries>,
    /// What is observed, once it is.
    pub(super) evidence: &'a OnceLock<Evidence>,
    pub(super) clock: &'a SharedClock,
    pub(super) began: Instant,
}

impl Followed<'_> {
    /// Keeps `live` up to date until it is dropped. Cancellation-safe.
    pub(super) async fn onto(&self, live: &Live) -> Infallible {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (mut reading, mut received_before) = (0, 0);
        loop {
            tick.tick().await;
            let told = self.told().await;
            let counts = self.agent.counts();
            let received = counts
                .iter()
                .map(|(_, counts)| counts.received)
                .sum::<u64>();
            let second = (reading % READINGS == 0).then(|| {
                let new = received.saturating_sub(received_before);
                received_before = received;
                (new, self.evidence.get().map(Evidence::lags))
            });
            reading += 1;
            live.change(|board| {
                board.running = self.began.elapsed();
                self.figures(board);
                board.events.received = received;
                board.events.masked = counts.iter().map(|(_, counts)| counts.masked).sum();
                if let Some((agents, accounts)) = told {
                    take_rows(board, &agents, &accounts);
                }
                if let Some((new, lags)) = second {
                    push_bounded(&mut board.events.per_second, new, SECONDS);
                    for (name, lag) in lags.into_iter().flatten() {
                        let known = board.accounts.iter_mut().find(|a| a.name == name);
                        if let Some(account) = known {
                            account.lag = Some(lag);
                        }
                    }
                }
            });
        }
    }

    /// What the hub tells an administrator; the board stays as it is where it does not answer.
    async fn told(&self) -> Option<(Rows, Rows)> {
        let asked = async {
            let agents = rows(self.socket, Sort::Agents).await?;
            Ok::<_, super::RunError>((agents, rows(self.socket, Sort::Accounts).await?))
        };
        asked
            .await
            .inspect_err(|error| tracing::debug!(error = %Chain(error), "the hub does not answer"))
            .ok()
    }

    fn figures(&self, board: &mut Board) {
        board.hub = Some(Doors {
            agents: self.hub.addresses.data,
            clients: self.hub.addresses.facade,
        });
        board.objects = self.hub.objects();
        board.operations = self.hub.operations();
        board.planted = self.canaries.map(Canaries::figures);
        board.events.bytes = self.hub.batch_bytes();
        let identity = self.agent.identity();
        board.agent.connected = identity.connected;
        if let Some(life) = identity.life {
            let certificate = board.certificate.get_or_insert_default();
            take_identity(certificate, identity.serial, identity.rotations);
            let since = |from: std::time::SystemTime, to: std::time::SystemTime| {
                to.duration_since(from).unwrap_or_default()
            };
            certificate.life = since(life.issued_at, life.not_after);
            certificate.renewed_after = since(life.issued_at, life.renew_at);
            certificate.age = since(life.issued_at, self.clock.now());
        }
    }
}

fn take_identity(certificate: &mut Certificate, serial: String, rotations: u64) {
    if !certificate.serial.is_empty() && certificate.serial != serial {
        let change = Change {
            old: certificate.serial.clone(),
            new: serial.clone(),
        };
        push_bounded(&mut certificate.changes, change, CHANGES);
    }
    certificate.serial = serial;
    certificate.rotations = rotations;
}

fn take_rows(board: &mut Board, agents: &Rows, accounts: &Rows) {
    let text = |row: &std::collections::BTreeMap<String, Value>, key: &str| {
        let value = row.get(key).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let state = agents.first().map(|row| text(row, "state"));
    board.agent = Agent {
        name: AGENT.to_owned(),
        state: state.unwrap_or_default(),
        connected: board.agent.connected,
    };
    let known = std::mem::take(&mut board.accounts);
    let lag_of = |name: &str| known.iter().find(|a| a.name == name).and_then(|a| a.lag);
    board.accounts = accounts
        .iter()
        .map(|row| {
            let name = text(row, "name");
            Account {
                lag: lag_of(&name),
                state: text(row, "state"),
                reason: text(row, "reason"),
                objects: row.get("objects").and_then(Value::as_u64).unwrap_or(0),
                name,
            }
        })
        .collect();
}
