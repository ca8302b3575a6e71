//! What a hub tells about itself: readiness and metrics.

use std::fmt::Write;
use std::sync::{Arc, Weak};

use super::Core;
use crate::telemetry::health::Latches;
use crate::telemetry::metrics::Source;
use crate::wire::v1;

/// Name and help of a counter, and where its value is.
type Counter = (&'static str, &'static str, fn(super::Counts) -> u64);

/// A hub is ready once it runs: everything is bound and read before that.
pub(super) fn latches() -> Latches {
    Latches::open(&[])
}

/// The figures of the moment.
pub(super) fn metrics(core: &Arc<Core>) -> Source {
    let core: Weak<Core> = Arc::downgrade(core);
    Source::new(move || core.upgrade().map(|core| render(&core)).unwrap_or_default())
}

fn render(core: &Core) -> String {
    let mut out = String::new();
    let sessions = core.sessions.all();
    let _fits = writeln!(
        out,
        "# HELP sortie_hub_agents Agent instances with a session.\n# TYPE sortie_hub_agents gauge\nsortie_hub_agents {}",
        sessions.len()
    );
    out.push_str("# HELP sortie_hub_account_connected Whether an agent feeds the account.\n# TYPE sortie_hub_account_connected gauge\n");
    let accounts = core.accounts.all();
    for account in &accounts {
        let connected = u8::from(account.surface.borrow().away_since.is_none());
        let _fits = writeln!(
            out,
            "sortie_hub_account_connected{{account=\"{}\"}} {connected}",
            account.name
        );
    }
    let counters: [Counter; 4] = [
        (
            "sortie_hub_events_applied_total",
            "Events applied to views.",
            |c| c.applied,
        ),
        (
            "sortie_hub_events_skipped_total",
            "Events received again and skipped.",
            |c| c.skipped,
        ),
        (
            "sortie_hub_events_coalesced_total",
            "Objects coalesced by agents before numbering.",
            |c| c.coalesced,
        ),
        (
            "sortie_hub_batches_fenced_total",
            "Batches of fenced feeds.",
            |c| c.fenced,
        ),
    ];
    for (name, help, of) in counters {
        let _fits = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
        for account in &accounts {
            let value = of(account.counts());
            let _fits = writeln!(out, "{name}{{account=\"{}\"}} {value}", account.name);
        }
    }
    out.push_str(
        "# HELP sortie_hub_view_bytes Bytes of objects held.\n# TYPE sortie_hub_view_bytes gauge\n",
    );
    for account in &accounts {
        let bytes = account.view.totals().bytes;
        let _fits = writeln!(
            out,
            "sortie_hub_view_bytes{{account=\"{}\"}} {bytes}",
            account.name
        );
    }
    out
}

/// The state of an account as people see it.
pub(super) fn account_state(
    offer: Option<&v1::AccountOffer>,
    connected: bool,
    stale: bool,
) -> &'static str {
    match (connected, offer.map(v1::AccountOffer::state)) {
        (true, Some(v1::AccountState::Active)) => "ACTIVE",
        (_, Some(v1::AccountState::Failed)) => "FAILED",
        (true, Some(v1::AccountState::Suspended)) => "SUSPENDED",
        (true, Some(v1::AccountState::Inactive)) => "INACTIVE",
        (true, _) => "ACTIVATING",
        (false, _) if stale => "ORPHANED",
        (false, _) => "STALE",
    }
}
