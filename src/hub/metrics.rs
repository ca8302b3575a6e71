//! What a hub tells in figures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use super::account::Account;
use super::admin::{ACCOUNT_STATES, WATCHES};
use super::{Core, Counts};
use crate::clock::unix_seconds;
use crate::telemetry::metrics::{Exposition, Histogram, Source, Tally};

/// What the parts of a hub count.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Handshakes, by listener and outcome.
    pub(super) handshakes: Tally<2>,
    /// Requests of clients, by verb, where the answer came from, and class of its status.
    pub(super) requests: Tally<3>,
    /// Operations through agents, by outcome.
    pub(super) operations: Tally<1>,
    /// Time until the head of an operation's answer.
    pub(super) operation_time: Histogram,
    /// When everything that had changed was last stored, in seconds since the Unix epoch.
    pub(super) checkpointed: AtomicU64,
}

/// The class of a status, as a label.
pub(super) const fn class(status: http::StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

/// Name and help of a counter per account, and where its value is.
type Counter = (&'static str, &'static str, fn(Counts) -> u64);

const COUNTERS: [Counter; 8] = [
    (
        "sortie_hub_events_applied_total",
        "Events applied to views.",
        |counts| counts.applied,
    ),
    (
        "sortie_hub_events_skipped_total",
        "Events received again and skipped.",
        |counts| counts.skipped,
    ),
    (
        "sortie_hub_events_coalesced_total",
        "Objects coalesced by agents before numbering.",
        |counts| counts.coalesced,
    ),
    (
        "sortie_hub_batches_applied_total",
        "Batches applied to views.",
        |counts| counts.batches,
    ),
    (
        "sortie_hub_batches_fenced_total",
        "Batches of fenced feeds.",
        |counts| counts.fenced,
    ),
    (
        "sortie_hub_batches_received_bytes_total",
        "Compressed bytes of the batches applied.",
        |counts| counts.bytes,
    ),
    (
        "sortie_hub_snapshots_applied_total",
        "Whole snapshots of streams that were taken over.",
        |counts| counts.snapshots,
    ),
    (
        "sortie_hub_streams_resumed_total",
        "Streams that went on where they stood, without a snapshot.",
        |counts| counts.resumed,
    ),
];

/// The figures of the moment.
pub(super) fn source(core: &Arc<Core>) -> Source {
    let core: Weak<Core> = Arc::downgrade(core);
    Source::new(move || core.upgrade().map(|core| render(&core)).unwrap_or_default())
}

fn render(core: &Core) -> String {
    let mut out = Exposition::default();
    let now = core.clock.now();
    out.gauge("sortie_hub_build_info", "Version of the program; always 1.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    agents(core, &mut out);
    accounts(core, now, &mut out);
    views(&core.accounts.all(), &mut out);
    clients(core, &mut out);
    store(core, now, &mut out);
    certificates(core, &mut out);
    out.finish()
}

fn agents(core: &Core, out: &mut Exposition) {
    let states = core.instance_states();
    let mut agents = out.gauge(
        "sortie_hub_agents",
        "Agent instances with a session, by state.",
    );
    for state in ["ACTIVE", "STANDBY", "DRAINING"] {
        let count = states.iter().filter(|found| **found == state).count();
        agents.sample(&[("state", state)], count);
    }
    out.counter(
        "sortie_hub_handshakes_total",
        "TLS handshakes, by listener and outcome: admitted, or why not.",
    )
    .tally(["door", "outcome"], &core.figures.handshakes);
}

fn accounts(core: &Core, now: SystemTime, out: &mut Exposition) {
    let mut states = out.gauge(
        "sortie_hub_account_state",
        "1 for the state that the account has.",
    );
    for (name, state) in core.account_states() {
        states.one_hot(&name, &ACCOUNT_STATES, state);
    }
    let accounts = core.accounts.all();
    let away = |account: &Account| account.surface.borrow().away_since;
    let mut connected = out.gauge(
        "sortie_hub_account_connected",
        "Whether an agent feeds the account.",
    );
    for account in &accounts {
        let value = u8::from(away(account).is_none());
        connected.sample(&[("account", &account.name)], value);
    }
    let mut stale = out.gauge(
        "sortie_hub_account_staleness_seconds",
        "Age of what is served while no agent feeds the account; 0 while one does.",
    );
    for account in &accounts {
        let age = away(account).and_then(|since| now.duration_since(since).ok());
        let seconds = age.unwrap_or_default().as_secs();
        stale.sample(&[("account", &account.name)], seconds);
    }
}

fn views(accounts: &[Arc<Account>], out: &mut Exposition) {
    for (name, help, of) in COUNTERS {
        let mut counter = out.counter(name, help);
        for account in accounts {
            counter.sample(&[("account", &account.name)], of(account.counts()));
        }
    }
    let totals: Vec<_> = accounts
        .iter()
        .map(|account| (account.name.as_str(), account.view.totals()))
        .collect();
    let mut objects = out.gauge("sortie_hub_view_objects", "Objects held.");
    for (name, totals) in &totals {
        objects.sample(&[("account", name)], totals.objects);
    }
    let mut bytes = out.gauge("sortie_hub_view_bytes", "Bytes of objects held.");
    for (name, totals) in &totals {
        bytes.sample(&[("account", name)], totals.bytes);
    }
    let mut refused = out.gauge(
        "sortie_hub_view_refused_kinds",
        "Kinds that are unavailable because they do not fit.",
    );
    for (name, totals) in &totals {
        refused.sample(&[("account", name)], totals.over_budget);
    }
    let mut ignored = out.counter(
        "sortie_hub_view_events_ignored_total",
        "Events that were known already, or older than what is known.",
    );
    for (name, totals) in &totals {
        ignored.sample(&[("account", name)], totals.ignored);
    }
}

fn clients(core: &Core, out: &mut Exposition) {
    out.counter(
        "sortie_facade_requests_total",
        "Requests of clients, by verb, source of the answer and class of its status.",
    )
    .tally(["verb", "served", "class"], &core.figures.requests);
    out.counter(
        "sortie_hub_operations_total",
        "Operations through agents, by outcome.",
    )
    .tally(["outcome"], &core.figures.operations);
    out.histogram(
        "sortie_hub_operation_seconds",
        "Time until the head of an operation's answer, or its failure.",
        &core.figures.operation_time,
    );
    let running = WATCHES.saturating_sub(core.watches.available_permits());
    out.gauge(
        "sortie_hub_admin_watches",
        "Watches over the administration socket.",
    )
    .sample(&[], running);
    let (agents, clients) = core.registry.read(|tables| {
        let agents = tables
            .agents
            .iter()
            .filter(|(_, row)| row.revoked.is_some());
        let clients = tables
            .clients
            .iter()
            .filter(|(_, row)| row.revoked.is_some());
        (agents.count(), clients.count())
    });
    out.gauge("sortie_hub_revoked_agents", "Agents that are revoked.")
        .sample(&[], agents);
    out.gauge("sortie_hub_revoked_clients", "Clients that are revoked.")
        .sample(&[], clients);
}

fn store(core: &Core, now: SystemTime, out: &mut Exposition) {
    out.counter(
        "sortie_hub_store_writes_total",
        "Transactions of the store, by what they write and outcome.",
    )
    .tally(["what", "outcome"], core.store.writes());
    out.gauge("sortie_hub_store_bytes", "Size of the store's file.")
        .sample(&[], core.store.size());
    let checkpointed = core.figures.checkpointed.load(Ordering::Relaxed);
    out.gauge(
        "sortie_hub_checkpoint_age_seconds",
        "Time since everything that had changed was stored.",
    )
    .sample(&[], unix_seconds(now).saturating_sub(checkpointed));
}

fn certificates(core: &Core, out: &mut Exposition) {
    let mut ends = out.gauge(
        "sortie_hub_certificate_not_after_seconds",
        "End of a certificate, in seconds since the Unix epoch.",
    );
    let all = [
        ("root", core.issuer.roots().not_after()),
        ("intermediate", core.issuer.not_after()),
        ("hub", core.own.load().not_after()),
    ];
    for (certificate, not_after) in all {
        ends.sample(&[("certificate", certificate)], unix_seconds(not_after));
    }
}
