//! What an account has of its credential: the one in use, a newer one on trial, and what is told.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::AccountSettings;
use super::accounts::Status;
use crate::clock::{rfc3339, unix_seconds};
use crate::credential::{Published, Source};
use crate::entropy::SharedEntropy;
use crate::retry::Backoff;
use crate::telemetry::metrics::Tally;
use crate::wire::v1;

/// Pause before a new credential that does not work is tried again.
const TRIAL: Duration = Duration::from_secs(2);

/// Longest such pause.
const TRIAL_CAP: Duration = Duration::from_mins(1);

/// Reason of an account whose newest credential does not work, while the one before does.
pub(super) const CREDENTIAL_REJECTED: &str = "CredentialRejected";

/// Whether the newest credential is the one in use.
pub(super) struct Trial {
    /// Generation of the credential in use.
    pub(super) in_use: u64,
    /// Since when it is.
    pub(super) since: SystemTime,
    /// Why a newer one is not, yet.
    pub(super) refusal: Option<Refusal>,
    backoff: Backoff,
}

pub(super) struct Refusal {
    pub(super) message: String,
    retry: Instant,
}

impl Trial {
    pub(super) fn of(in_use: u64, since: SystemTime, entropy: &SharedEntropy) -> Self {
        Self {
            in_use,
            since,
            refusal: None,
            backoff: Backoff::new(TRIAL, TRIAL_CAP, Arc::clone(entropy)),
        }
    }

    pub(super) fn accept(&mut self, generation: u64, now: SystemTime) {
        (self.in_use, self.since) = (generation, now);
        self.refusal = None;
        self.backoff.reset();
    }

    pub(super) fn refuse(&mut self, error: &str) {
        self.refusal = Some(Refusal {
            message: format!(
                "the new credential does not work, the one before stays in use: {error}"
            ),
            retry: Instant::now() + self.backoff.next_pause(),
        });
    }

    /// Waits until a credential that did not work is tried again.
    pub(super) async fn is_due(&self) {
        match &self.refusal {
            Some(refusal) => tokio::time::sleep_until(refusal.retry).await,
            None => std::future::pending().await,
        }
    }
}

/// What became of a credential that an account was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The first one: the account begins with it.
    First,
    /// It replaced the one before.
    CutOver,
    /// It does not work; the one before stays.
    Refused,
    /// It is for another cluster; the account begins anew with it.
    OtherCluster,
    /// It may not be used any more, and nothing is done with it since.
    GivenUp,
}

impl Taken {
    /// Fixed label for metrics and audit.
    const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::CutOver => "cut-over",
            Self::Refused => "refused",
            Self::OtherCluster => "other-cluster",
            Self::GivenUp => "given-up",
        }
    }
}

/// Leaves the audit record of a credential that `account` was given, and counts it.
pub(super) fn audit(
    account: &AccountSettings,
    published: &Published,
    taken: Taken,
    tally: &Tally<1>,
) {
    tally.add([taken.as_str()]);
    let reference = account.source.reference();
    let expires = published.credential.as_ref().and_then(|it| it.expires());
    tracing::info!(
        target: "sortie::audit",
        action = "credential-use",
        account = account.name,
        source = %account.source,
        engine = reference.map(|it| it.engine().as_str()),
        version = published.version,
        expires = expires.map(rfc3339),
        lease_ends = published.lease_ends.map(rfc3339),
        outcome = taken.as_str(),
        "audit"
    );
}

/// Of an account that has none, not any more or not yet.
pub(super) fn without_credential(published: Published) -> Status {
    let Some(reason) = published.reason else {
        return Status::new(v1::AccountState::Activating);
    };
    let mut status = Status::failed(reason.as_str(), published.message);
    if published.suspended {
        status.state = v1::AccountState::Suspended;
    }
    status.next_retry = published.next_try;
    status
}

/// What the hub is told of a credential; the one in use was taken up at `changed`.
pub(super) fn told(
    source: &Source,
    published: &Published,
    changed: Option<SystemTime>,
) -> v1::Credential {
    let time = |at: Option<SystemTime>| at.map_or(0, unix_seconds);
    let reference = source.reference();
    // What lies on this machine is read every few seconds, which is no news.
    let of_engine = |at: Option<SystemTime>| time(at.filter(|_| reference.is_some()));
    let certificate_ends = published.credential.as_ref();
    v1::Credential {
        source: source.to_string(),
        engine: reference.map_or("", |it| it.engine().as_str()).to_owned(),
        version: published.version.clone().unwrap_or_default(),
        confirmed: of_engine(published.confirmed),
        refresh: of_engine(published.next_try),
        lease_ends: time(published.lease_ends),
        usable_until: time(published.usable_until),
        certificate_ends: time(certificate_ends.and_then(|credential| credential.expires())),
        changed: time(changed),
    }
}
