//! What an agent tells in figures.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::accounts::{Accounts, state_name};
use super::uplink::IdentityStatus;
use crate::clock::unix_seconds;
use crate::credential;
use crate::stream::{FeedFigures, StreamCounts};
use crate::telemetry::metrics::{Exposition, Source, Tally};

/// The states that an agent tells of an account.
const STATES: [&str; 6] = [
    "ACTIVATING",
    "ACTIVE",
    "FAILED",
    "INACTIVE",
    "STALE",
    "SUSPENDED",
];

/// What the parts of an agent count.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Links and attempts at one that ended, by how.
    pub(super) ends: Tally<1>,
    /// Credentials that accounts were given, by what became of them.
    pub(super) credentials: Tally<1>,
    /// Operations, by verb and outcome.
    pub(super) operations: Arc<Tally<2>>,
}

/// Name and help of a counter per account, and where its value is.
type Counter = (&'static str, &'static str, fn(&StreamCounts) -> u64);

const COUNTERS: [Counter; 12] = [
    (
        "sortie_stream_events_received_total",
        "Events taken from API servers.",
        |counts| counts.received,
    ),
    (
        "sortie_stream_upserts_total",
        "Objects told with their content.",
        |counts| counts.upserts,
    ),
    (
        "sortie_stream_touches_total",
        "Objects of which only the version was told.",
        |counts| counts.touches,
    ),
    (
        "sortie_stream_deletes_total",
        "Objects told as gone.",
        |counts| counts.deletes,
    ),
    (
        "sortie_stream_repeated_total",
        "Events that told nothing new.",
        |counts| counts.repeated,
    ),
    (
        "sortie_stream_refused_total",
        "Objects that could not be filtered.",
        |counts| counts.refused,
    ),
    (
        "sortie_stream_snapshots_total",
        "Lists and streaming lists.",
        |counts| counts.snapshots,
    ),
    (
        "sortie_stream_resumed_total",
        "Watches that ended and were resumed.",
        |counts| counts.resumed,
    ),
    (
        "sortie_stream_silent_total",
        "Watches that told nothing for too long, and were opened again.",
        |counts| counts.silent,
    ),
    (
        "sortie_stream_expired_total",
        "Versions that API servers no longer knew.",
        |counts| counts.expired,
    ),
    (
        "sortie_stream_events_coalesced_total",
        "Unsent events that a newer state of their object replaced.",
        |counts| counts.coalesced,
    ),
    (
        "sortie_scrub_values_masked_total",
        "Values masked in feeds.",
        |counts| counts.masked,
    ),
];

/// Name and help of a figure of a feed, and where its value is.
type Figure = (&'static str, &'static str, fn(&FeedFigures) -> u64);

const SENT: [Figure; 2] = [
    (
        "sortie_stream_batches_sent_total",
        "Batches sent, those sent again included.",
        |figures| figures.batches,
    ),
    (
        "sortie_stream_sent_bytes_total",
        "Compressed bytes of the batches sent.",
        |figures| figures.sent_bytes,
    ),
];

const HELD: [Figure; 2] = [
    (
        "sortie_stream_queue_bytes",
        "Bytes of events that are read and not yet numbered.",
        |figures| figures.queued_bytes,
    ),
    (
        "sortie_stream_outbox_bytes",
        "Bytes of batches that the hub has not acknowledged.",
        |figures| figures.outbox_bytes,
    ),
];

/// The figures of the moment.
pub(super) fn source(
    accounts: &Arc<Accounts>,
    fetches: Arc<credential::Figures>,
    identity: watch::Receiver<IdentityStatus>,
) -> Source {
    let accounts: Weak<Accounts> = Arc::downgrade(accounts);
    Source::new(move || {
        let Some(accounts) = accounts.upgrade() else {
            return String::new();
        };
        let identity = identity.borrow().clone();
        render(&accounts, &fetches, &identity)
    })
}

fn render(accounts: &Accounts, fetches: &credential::Figures, identity: &IdentityStatus) -> String {
    let mut out = Exposition::default();
    out.gauge(
        "sortie_agent_build_info",
        "Version of the program; always 1.",
    )
    .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    hub(accounts, identity, &mut out);
    states(accounts, &mut out);
    credentials(accounts, &mut out);
    out.counter(
        "sortie_agent_credentials_total",
        "Credentials that accounts were given, by what became of them.",
    )
    .tally(["outcome"], &accounts.figures.credentials);
    out.counter(
        "sortie_agent_engine_fetches_total",
        "Secrets asked of engines, by outcome: ok, current (not fetched again), or the reason that \
         the account shows.",
    )
    .tally(["engine", "outcome"], &fetches.fetches);
    out.histogram(
        "sortie_agent_engine_seconds",
        "Time from the wish for a secret to the engine's answer.",
        &fetches.took,
    );
    out.counter(
        "sortie_ops_operations_total",
        "Operations on accounts, by verb and outcome.",
    )
    .tally(["verb", "outcome"], &accounts.figures.operations);
    feeds(accounts, &mut out);
    out.finish()
}

fn hub(accounts: &Accounts, identity: &IdentityStatus, out: &mut Exposition) {
    let report = &identity.report;
    out.gauge(
        "sortie_agent_hub_connected",
        "Whether a link to the hub is open.",
    )
    .sample(&[], u8::from(report.connected));
    out.counter(
        "sortie_agent_links_opened_total",
        "Links to the hub that were opened.",
    )
    .sample(&[], identity.links);
    out.counter(
        "sortie_agent_links_ended_total",
        "Links, and attempts at one, that ended, by how.",
    )
    .tally(["outcome"], &accounts.figures.ends);
    if let Some(not_after) = identity.not_after {
        out.gauge(
            "sortie_agent_certificate_not_after_seconds",
            "End of the certificate in use, in seconds since the Unix epoch.",
        )
        .sample(&[], unix_seconds(not_after));
    }
    out.counter(
        "sortie_agent_certificate_rotations_total",
        "Certificates that replaced an earlier one.",
    )
    .sample(&[], report.rotations);
}

fn states(accounts: &Accounts, out: &mut Exposition) {
    let offers = Arc::clone(&accounts.offers.borrow());
    let mut states = out.gauge(
        "sortie_agent_account_state",
        "1 for the state that the account has.",
    );
    for (name, offer) in offers.iter() {
        states.one_hot(name, &STATES, state_name(offer));
    }
    let mut reasons = out.gauge(
        "sortie_agent_account_reason_info",
        "Why the account is not as it should be; always 1, absent if all is well.",
    );
    for (name, offer) in offers.iter().filter(|(_, offer)| !offer.reason.is_empty()) {
        reasons.sample(&[("account", name), ("reason", &offer.reason)], 1);
    }
}

/// Moments of the credentials; those that there are.
fn credentials(accounts: &Accounts, out: &mut Exposition) {
    let offers = Arc::clone(&accounts.offers.borrow());
    let mut moments = out.gauge(
        "sortie_agent_credential_time_seconds",
        "Moments of the account's credential, in seconds since the Unix epoch.",
    );
    for (name, offer) in offers.iter() {
        let Some(told) = &offer.credential else {
            continue;
        };
        let all = [
            ("certificate-ends", told.certificate_ends),
            ("changed", told.changed),
            ("confirmed", told.confirmed),
            ("lease-ends", told.lease_ends),
            ("usable-until", told.usable_until),
        ];
        for (moment, seconds) in all.into_iter().filter(|(_, seconds)| *seconds > 0) {
            moments.sample(&[("account", name), ("moment", moment)], seconds);
        }
    }
}

fn feeds(accounts: &Accounts, out: &mut Exposition) {
    let counts = accounts.counts();
    for (name, help, of) in COUNTERS {
        let mut counter = out.counter(name, help);
        for (account, counts) in &counts {
            counter.sample(&[("account", account)], of(counts));
        }
    }
    let feeds = Arc::clone(&accounts.feeds.borrow());
    let figures: Vec<_> = feeds
        .iter()
        .map(|(account, feed)| (account, feed.figures()))
        .collect();
    let mut streams = out.gauge("sortie_stream_streams", "Streams, by how they are read.");
    for (account, figures) in &figures {
        for (state, count) in figures.streams {
            streams.sample(&[("account", account), ("state", state)], count);
        }
    }
    for (name, help, of) in SENT {
        let mut counter = out.counter(name, help);
        for (account, figures) in &figures {
            counter.sample(&[("account", account)], of(figures));
        }
    }
    for (name, help, of) in HELD {
        let mut gauge = out.gauge(name, help);
        for (account, figures) in &figures {
            gauge.sample(&[("account", account)], of(figures));
        }
    }
}
