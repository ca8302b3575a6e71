//! Puts together what the auditor has seen.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::parts::Shown;
use super::{RunError, Settings, look_into};
use crate::demo::audit::{
    AccountFigures, Canaries, Collection, EventFigures, Lag, Observer, Reader, ReferenceFilter,
    Report, Snapshot, StateHashes,
};
use crate::entropy::SharedEntropy;
use crate::fault::Chain;
use crate::retry::pause_unless;
use crate::tasks::Tasks;

/// Readings of both sides until they agree: a real cluster changes by itself.
const READINGS: u32 = 10;

/// Pause between two readings.
const BETWEEN: std::time::Duration = std::time::Duration::from_millis(500);

/// The filter that the auditor holds the facade's state against: the mask and the annotations
/// that ship, written down a second time on purpose.
pub(super) fn filter() -> ReferenceFilter {
    ReferenceFilter {
        mask: "sortie.dev/secret-masked:v1".to_owned(),
        annotations: ANNOTATIONS.iter().map(|name| (*name).to_owned()).collect(),
        masked_kinds: vec!["Secret".to_owned()],
    }
}

/// Annotations of Secrets that are shown.
const ANNOTATIONS: [&str; 23] = [
    "artifact.spinnaker.io/location",
    "artifact.spinnaker.io/name",
    "artifact.spinnaker.io/type",
    "artifact.spinnaker.io/version",
    "cert-manager.io/certificate-name",
    "cert-manager.io/issuer-kind",
    "cert-manager.io/issuer-name",
    "helm.sh/resource-policy",
    "k8s.io/initial-events-end",
    "kubernetes.io/service-account.name",
    "kubernetes.io/service-account.uid",
    "meta.helm.sh/release-name",
    "meta.helm.sh/release-namespace",
    "moniker.spinnaker.io/application",
    "moniker.spinnaker.io/cluster",
    "moniker.spinnaker.io/detail",
    "moniker.spinnaker.io/sequence",
    "moniker.spinnaker.io/stack",
    "strategy.spinnaker.io/max-version-history",
    "strategy.spinnaker.io/recreate",
    "strategy.spinnaker.io/replace",
    "strategy.spinnaker.io/use-source-capacity",
    "strategy.spinnaker.io/versioned",
];

/// What was observed while the run went on, by account.
pub(super) struct Evidence(Vec<(&'static str, Observer)>);

impl Evidence {
    pub(super) async fn start(
        cluster: &Reader,
        shown: &[Shown],
        entropy: &SharedEntropy,
        tasks: &Tasks,
    ) -> Result<Self, RunError> {
        let mut observers = Vec::new();
        for shown in shown {
            let (facade, collections) = (&shown.facade, &shown.collections);
            let observer = Observer::start(cluster, facade, collections, entropy, tasks).await;
            let observer = observer.map_err(|source| RunError::Read {
                side: "cluster and facade",
                source,
            })?;
            observers.push((shown.name, observer));
        }
        Ok(Self(observers))
    }

    /// Waits until nothing is under way any more, or the deadline is over.
    pub(super) async fn quiet(&self, tasks: &Tasks, deadline: Instant) {
        let stop = CancellationToken::new();
        for (_, observer) in &self.0 {
            let silence = observer.quiet(&stop);
            let end = deadline.min(Instant::now() + std::time::Duration::from_secs(20));
            if tokio::time::timeout_at(end, silence).await.is_err() {
                tracing::debug!(
                    running = tasks.running(),
                    "the cluster does not fall silent"
                );
            }
        }
    }

    fn figures(&self, coalesced: u64, relists: u64) -> EventFigures {
        let mut sum = EventFigures {
            relists,
            ..EventFigures::default()
        };
        for (_, observer) in &self.0 {
            let figures = observer.figures(coalesced, 0);
            sum.sent += figures.sent;
            sum.applied += figures.applied;
            sum.lost += figures.lost;
            sum.duplicated += figures.duplicated;
        }
        sum
    }

    fn lag(&self) -> Lag {
        let first = self.0.first();
        first
            .map(|(_, observer)| observer.lag())
            .unwrap_or_default()
    }

    /// The lag of each account so far.
    pub(super) fn lags(&self) -> Vec<(&'static str, Lag)> {
        let lags = self.0.iter();
        lags.map(|(name, observer)| (*name, observer.lag()))
            .collect()
    }
}

/// Everything that the report is made of.
pub(super) struct Facts<'a> {
    pub(super) settings: &'a Settings,
    pub(super) cluster: &'a Reader,
    pub(super) shown: &'a [Shown],
    pub(super) canaries: &'a Canaries,
    pub(super) planted: bool,
    pub(super) store: PathBuf,
    pub(super) states: BTreeMap<String, String>,
    pub(super) rotations: u64,
    pub(super) coalesced: u64,
    pub(super) relists: u64,
}

impl Facts<'_> {
    pub(super) async fn report(self, evidence: &Evidence) -> Result<Report, RunError> {
        let (hashes, snapshots) = self.agree().await?;
        if self.planted {
            self.search_store();
        }
        let filter = filter();
        let accounts = self
            .shown
            .iter()
            .zip(&snapshots)
            .map(|(shown, snapshot)| AccountFigures {
                name: shown.name.to_owned(),
                state: self.states.get(shown.name).cloned().unwrap_or_default(),
                objects: snapshot.counts(),
            });
        let mut report = Report {
            accounts: accounts.collect(),
            rotations: self.rotations,
            events: evidence.figures(self.coalesced, self.relists),
            masked_values: snapshots
                .iter()
                .map(|snapshot| snapshot.masked_values(&filter))
                .sum(),
            canaries: self.canaries.figures(),
            state_hash: hashes,
            lag_ms: evidence.lag(),
            rss_mib: rss_mib(),
            ..Report::default()
        };
        if !self.planted {
            report.canaries = crate::demo::audit::CanaryFigures::default();
        }
        report.judge();
        for source in self.canaries.leaking() {
            let leak = format!("planted values left the agent: seen in {source}");
            report.failed.push(leak);
        }
        if evidence.0.iter().any(|(_, observer)| observer.overflowed()) {
            report
                .failed
                .push("the observer saw more than it can hold".to_owned());
            report.ok = false;
        }
        Ok(report)
    }

    /// Reads both sides until they agree, or often enough.
    async fn agree(&self) -> Result<(StateHashes, Vec<Snapshot>), RunError> {
        let filter = filter();
        let stop = CancellationToken::new();
        let mut reading = 0;
        loop {
            reading += 1;
            let (mut real, mut seen) = (Vec::new(), Vec::new());
            for shown in self.shown {
                real.push(read(self.cluster, &shown.collections, "the cluster").await?);
                seen.push(read(&shown.facade, &shown.collections, "the facade").await?);
            }
            let hashes = StateHashes {
                cluster: joined(&real, Some(&filter)),
                view: joined(&seen, None),
            };
            if hashes.cluster == hashes.view || reading >= READINGS {
                return Ok((hashes, seen));
            }
            let _waited = pause_unless(&stop, BETWEEN).await;
        }
    }

    /// Looks through the hub's store, as it lies on the disk.
    fn search_store(&self) {
        let look = look_into(self.canaries, "store");
        match std::fs::read(&self.store) {
            Ok(bytes) => look(&bytes),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), folder = %self.settings.folder.display(), "the store cannot be searched");
            }
        }
    }
}

async fn read(
    reader: &Reader,
    collections: &[Collection],
    side: &'static str,
) -> Result<Snapshot, RunError> {
    let snapshot = Snapshot::read(reader, collections).await;
    snapshot.map_err(|source| RunError::Read { side, source })
}

fn joined(snapshots: &[Snapshot], filter: Option<&ReferenceFilter>) -> String {
    let hashes: Vec<String> = snapshots
        .iter()
        .map(|snapshot| snapshot.hash(filter))
        .collect();
    hashes.join("-")
}

/// Memory of this process, as the system counts it; zero where it does not tell.
fn rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u32>().ok());
    f64::from(kib.unwrap_or(0)) / 1024.0
}
