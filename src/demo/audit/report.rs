//! The report: figures from the readers, and a verdict from nothing but the figures.

use std::collections::BTreeMap;

use serde::Serialize;

/// Rotations that have to be seen.
const ROTATIONS: u64 = 2;

/// What one run has shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Whether everything holds; filled by [`Report::judge`].
    pub ok: bool,
    /// What does not hold; filled by [`Report::judge`].
    pub failed: Vec<String>,
    /// The accounts as the hub serves them.
    pub accounts: Vec<AccountFigures>,
    /// Certificate changes of agents that were seen by serial number.
    pub rotations: u64,
    /// Events on their way from the cluster to the facade.
    pub events: EventFigures,
    /// Values that the facade shows masked.
    pub masked_values: u64,
    /// Planted values that were looked for.
    pub canaries: CanaryFigures,
    /// One hash of each side.
    pub state_hash: StateHashes,
    /// Cluster event seen → facade event seen, milliseconds.
    pub lag_ms: Lag,
    /// Memory of the process, in MiB.
    pub rss_mib: f64,
}

/// One account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AccountFigures {
    /// Its name.
    pub name: String,
    /// Its state, e.g. `ACTIVE`.
    pub state: String,
    /// Objects by kind, as the facade lists them.
    pub objects: BTreeMap<String, u64>,
}

/// What became of the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventFigures {
    /// Seen at the cluster.
    pub sent: u64,
    /// Seen at the facade.
    pub applied: u64,
    /// Objects whose last state differs, and lives that the facade never showed.
    pub lost: u64,
    /// Seen twice at the facade, or after a newer one of the same object.
    pub duplicated: u64,
    /// Lists at the cluster that no 410 preceded.
    pub relists: u64,
}

/// What became of the planted values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CanaryFigures {
    /// Values that were looked for.
    pub planted: u64,
    /// Values that were found where they must not be.
    pub found: u64,
    /// Bytes that were looked through.
    pub scanned_bytes: u64,
    /// Whether the plain marker was found in every source: the scan sees what is there.
    pub control_found: bool,
}

/// SHA-256 of the state of each side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StateHashes {
    /// Of the cluster, through the reference filter.
    pub cluster: String,
    /// Of the facade, as it is.
    pub view: String,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Lag {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

impl Report {
    /// Fills `ok` and `failed` from the figures; what they say before does not matter.
    pub fn judge(&mut self) {
        let mut failed = Vec::new();
        let mut must = |holds: bool, otherwise: String| {
            if !holds {
                failed.push(otherwise);
            }
        };
        must(!self.accounts.is_empty(), "no account was served".into());
        for AccountFigures {
            name,
            state,
            objects,
        } in &self.accounts
        {
            must(state == "ACTIVE", format!("account `{name}` is {state}"));
            let holds_objects = objects.values().any(|count| *count > 0);
            must(holds_objects, format!("account `{name}` shows no objects"));
        }
        let rotations = self.rotations;
        must(
            rotations >= ROTATIONS,
            format!("{rotations} rotations were seen, {ROTATIONS} are needed"),
        );
        let events = &self.events;
        if self.canaries.planted > 0 {
            must(events.sent > 0, "no event was seen at the cluster".into());
        }
        for (count, what) in [
            (events.lost, "lost"),
            (events.duplicated, "duplicated"),
            (events.relists, "listed again without need"),
        ] {
            must(count == 0, format!("events {what}: {count}"));
        }
        let canaries = &self.canaries;
        must(
            canaries.found == 0,
            format!("planted values found: {}", canaries.found),
        );
        if canaries.planted > 0 {
            must(canaries.scanned_bytes > 0, "nothing was scanned".into());
            must(
                canaries.control_found,
                "the plain marker was not found in every scanned source".into(),
            );
            must(self.masked_values > 0, "no masked value was seen".into());
        }
        let hashes = &self.state_hash;
        must(
            !hashes.cluster.is_empty(),
            "the state was not hashed".into(),
        );
        must(
            hashes.cluster == hashes.view,
            "the view differs from the cluster".into(),
        );
        self.ok = failed.is_empty();
        self.failed = failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report {
            accounts: vec![AccountFigures {
                name: "demo".into(),
                state: "ACTIVE".into(),
                objects: BTreeMap::from([("Pod".into(), 12)]),
            }],
            rotations: 2,
            events: EventFigures {
                sent: 100,
                applied: 99,
                ..EventFigures::default()
            },
            masked_values: 80,
            canaries: CanaryFigures {
                planted: 80,
                found: 0,
                scanned_bytes: 1_000_000,
                control_found: true,
            },
            state_hash: StateHashes {
                cluster: "aa".into(),
                view: "aa".into(),
            },
            lag_ms: Lag { p50: 0.5, p99: 4.0 },
            rss_mib: 30.5,
            ..Report::default()
        }
    }

    #[test]
    fn a_good_run_is_ok_whatever_it_said_before() {
        let mut report = Report {
            ok: false,
            failed: vec!["old".into()],
            ..good()
        };
        report.judge();
        assert_eq!((report.ok, report.failed.len()), (true, 0));
    }

    #[test]
    fn each_broken_figure_fails_the_run_by_name() {
        type Break = fn(&mut Report);
        let breaks: [(Break, &str); 14] = [
            (|r| r.accounts.clear(), "no account"),
            (|r| r.accounts[0].state = "STALE".into(), "is STALE"),
            (|r| r.accounts[0].objects.clear(), "shows no objects"),
            (|r| r.rotations = 1, "1 rotations"),
            (|r| r.events.sent = 0, "no event"),
            (|r| r.events.lost = 1, "lost: 1"),
            (|r| r.events.duplicated = 1, "duplicated: 1"),
            (|r| r.events.relists = 1, "listed again"),
            (|r| r.canaries.found = 1, "found: 1"),
            (|r| r.canaries.scanned_bytes = 0, "nothing was scanned"),
            (|r| r.canaries.control_found = false, "marker"),
            (|r| r.masked_values = 0, "masked"),
            (|r| r.state_hash.view = "bb".into(), "view differs"),
            (|r| r.state_hash = StateHashes::default(), "not hashed"),
        ];
        for (damage, named) in breaks {
            let mut report = Report { ok: true, ..good() };
            damage(&mut report);
            report.judge();
            assert!(!report.ok, "{named}");
            assert_eq!(report.failed.len(), 1, "{named}: {:?}", report.failed);
            assert!(report.failed[0].contains(named), "{:?}", report.failed);
        }
    }

    #[test]
    fn the_report_has_the_documented_shape() {
        let mut report = good();
        report.judge();
        let shape = serde_json::json!({
            "ok": true, "failed": [],
            "accounts": [{"name": "demo", "state": "ACTIVE", "objects": {"Pod": 12}}],
            "rotations": 2,
            "events": {"sent": 100, "applied": 99, "lost": 0, "duplicated": 0, "relists": 0},
            "masked_values": 80,
            "canaries": {
                "planted": 80, "found": 0, "scanned_bytes": 1_000_000, "control_found": true},
            "state_hash": {"cluster": "aa", "view": "aa"},
            "lag_ms": {"p50": 0.5, "p99": 4.0}, "rss_mib": 30.5,
        });
        assert_eq!(serde_json::to_value(report).expect("serializes"), shape);
    }
}
