//! A connection to one engine: what every engine has in common.
//!
//! Deadline, calls in flight and their rate are bounded here, for all keys of the connection
//! together. An engine that goes away is looked for by one probe without a credential every
//! [`PROBE_EVERY`], however many keys wait for it, so that they need not ask themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

#[cfg(feature = "aws")]
use super::aws;
use super::fetch::{ABSENT, Asking, Failure, FetchError, FetchErrorKind, Keys};
use super::file::Files;
#[cfg(feature = "google")]
use super::google;
use super::kubernetes::Kubernetes;
use super::noop::Noop;
use super::places::Places;
use super::settings::{EngineSettings, Settings};
use super::surroundings::Surroundings;
use super::vault::Vault;
use super::{Engine, Fetched, Reference};

/// Time that one errand may take, log-in included.
const DEADLINE: Duration = Duration::from_secs(10);

/// Time between two probes of an engine that is away.
const PROBE_EVERY: Duration = Duration::from_secs(20);

/// A connection to one engine.
#[derive(Debug)]
pub(super) struct Connection {
    settings: Settings,
    engine: Box<dyn Engine>,
    pub(super) deadline: Duration,
    places: Places,
    /// Held by who probes on behalf of all that wait.
    probing: Mutex<Probing>,
    /// How often the engine came back.
    returns: AtomicU64,
}

#[derive(Debug)]
struct Probing {
    next: Instant,
    /// The last probe did not reach it.
    away: bool,
}

impl Connection {
    /// Prepares a connection; nothing is dialled yet.
    pub(super) fn new(settings: Settings, surroundings: &Surroundings) -> Self {
        let engine: Box<dyn Engine> = match &settings.engine {
            #[cfg(feature = "aws")]
            EngineSettings::S3(s3) => {
                Box::new(aws::S3::new(s3.clone(), Arc::clone(&surroundings.clock)))
            }
            #[cfg(feature = "aws")]
            EngineSettings::SecretsManager(aws) => Box::new(aws::SecretsManager::new(
                aws.clone(),
                Arc::clone(&surroundings.clock),
            )),
            #[cfg(feature = "google")]
            EngineSettings::Gcs(google) => Box::new(google::Storage::new(google.clone())),
            #[cfg(feature = "google")]
            EngineSettings::GoogleSecretsManager(google) => {
                Box::new(google::Secrets::new(google.clone()))
            }
            EngineSettings::File(file) => {
                Box::new(Files::new(file.clone(), &*surroundings.entropy))
            }
            EngineSettings::Kubernetes(cluster) => Box::new(Kubernetes::new(
                cluster.clone(),
                Arc::clone(&surroundings.entropy),
            )),
            EngineSettings::Noop => Box::new(Noop),
            EngineSettings::Vault(vault) => {
                let (certificate, clock) = (&surroundings.certificate, &surroundings.clock);
                let (certificate, clock) = (certificate.clone(), Arc::clone(clock));
                Box::new(Vault::with_clock(vault.clone(), certificate, clock))
            }
        };
        Self {
            settings,
            engine,
            deadline: DEADLINE,
            places: Places::default(),
            probing: Mutex::new(Probing {
                next: Instant::now(),
                away: false,
            }),
            returns: AtomicU64::new(0),
        }
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether it serves `reference`.
    pub(super) fn serves(&self, reference: &Reference) -> bool {
        self.settings.serves(reference)
    }

    pub(super) async fn fetch(&self, reference: &Reference) -> Result<Fetched, FetchError> {
        let fetched = self.errand(self.engine.fetch(reference)).await;
        fetched.map_err(|failure| self.told(failure, reference))
    }

    pub(super) async fn keys(&self, reference: &Reference) -> Result<Keys, FetchError> {
        let asked = async {
            // The version first: a change between the two is then seen as one.
            let version = self.errand(self.engine.version(reference)).await?;
            let names = self.errand(self.engine.keys(reference)).await?;
            Ok(Keys { names, version })
        };
        asked.await.map_err(|failure| self.told(failure, reference))
    }

    /// Whether the store still has `version`; none where it cannot tell without the plaintext.
    pub(super) async fn is_current(
        &self,
        reference: &Reference,
        version: &str,
    ) -> Result<Option<bool>, FetchError> {
        let asked = self.errand(self.engine.is_current(reference, version));
        asked.await.map_err(|failure| self.told(failure, reference))
    }

    /// Waits until the store tells that it has another version than this one, or than it has now;
    /// for ever where it does not tell.
    pub(super) async fn changed(&self, reference: &Reference, version: Option<&str>) {
        let now;
        let version = if version.is_some() {
            version
        } else {
            now = self.version_now(reference).await;
            now.as_deref()
        };
        let watched =
            version.and_then(|version| self.engine.changed(reference, version, &self.places));
        match watched {
            Some(changed) => changed.await,
            None => std::future::pending().await,
        }
    }

    /// What the store has, if it tells of changes, and answers.
    async fn version_now(&self, reference: &Reference) -> Option<String> {
        // Nothing is asked by that: the future is not waited for.
        drop(self.engine.changed(reference, ABSENT, &self.places)?);
        match self.errand(self.engine.version(reference)).await {
            Ok(version) => version,
            Err(failure) if failure.kind == FetchErrorKind::NotFound => Some(ABSENT.to_owned()),
            Err(_) => None,
        }
    }

    /// Waits until an engine that a probe did not reach is reached by one.
    ///
    /// Whoever holds the lock probes for all; when it goes, another one takes over. An engine that
    /// answers probes while it fails otherwise has not come back by that.
    pub(super) async fn returned(&self) {
        let seen = self.returns.load(Ordering::Relaxed);
        let mut probing = self.probing.lock().await;
        while self.returns.load(Ordering::Relaxed) == seen {
            tokio::time::sleep_until(probing.next).await;
            probing.next = Instant::now() + PROBE_EVERY;
            let is_there = self.probe().await.is_ok();
            if is_there && probing.away {
                self.returns.fetch_add(1, Ordering::Relaxed);
                tracing::info!(engine = self.settings.name, "the engine is back");
            }
            probing.away = !is_there;
        }
    }

    /// Whether the engine answers; no credential is shown.
    pub(super) async fn probe(&self) -> Result<(), Failure> {
        self.bounded(self.engine.probe()).await
    }

    /// Gives back what was leased.
    pub(super) async fn close(&self) {
        // What does not answer in time keeps its leases until they end.
        let _elapsed = tokio::time::timeout(self.deadline, self.engine.close()).await;
    }

    fn told(&self, failure: Failure, reference: &Reference) -> FetchError {
        FetchError {
            kind: failure.kind,
            profile: self.settings.name.clone(),
            path: reference.locator.to_string(),
            status: failure.status,
            hint: failure.hint,
        }
    }

    /// Waits for its turn, then asks.
    async fn errand<T>(&self, asking: Asking<'_, T>) -> Result<T, Failure> {
        let _place = self.places.take().await;
        self.bounded(asking).await
    }

    async fn bounded<T>(&self, asking: Asking<'_, T>) -> Result<T, Failure> {
        let asked = tokio::time::timeout(self.deadline, asking).await;
        asked.unwrap_or_else(|_elapsed| {
            let kind = FetchErrorKind::Unavailable { sealed: false };
            Err(Failure::new(kind, "it did not answer in time"))
        })
    }
}
