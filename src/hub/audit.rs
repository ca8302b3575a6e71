//! Audit records: who did what, and whether it was allowed. One log event each, under the target
//! `sortie::audit`, whatever the log level.

use std::fmt::{Display, Write};

/// One record, being made.
#[derive(Debug)]
pub(super) struct Audit {
    action: &'static str,
    actor: String,
    details: String,
}

impl Audit {
    /// `actor` did, or tried, `action`. An actor is `agent/x`, `client/y`, `admin`, or an address.
    pub(super) fn new(action: &'static str, actor: &str) -> Self {
        Self {
            action,
            actor: actor.to_owned(),
            details: String::new(),
        }
    }

    /// Adds a detail; never a secret, never a body.
    pub(super) fn with(mut self, name: &str, value: impl Display) -> Self {
        let gap = if self.details.is_empty() { "" } else { " " };
        // Writing into a string cannot fail.
        let _written = write!(self.details, "{gap}{name}={value}");
        self
    }

    /// It was allowed.
    pub(super) fn admit(self) {
        let Self {
            action,
            actor,
            details,
        } = self;
        tracing::info!(target: "sortie::audit", action, actor, details, outcome = "allowed", "audit");
    }

    /// It was refused, for a reason from a closed set.
    pub(super) fn refuse(self, reason: &str) {
        let Self {
            action,
            actor,
            details,
        } = self;
        tracing::warn!(target: "sortie::audit", action, actor, details, outcome = "refused", reason, "audit");
    }
}
