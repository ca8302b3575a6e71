//! A connection to one engine: what every engine has in common.

use std::time::Duration;

#[cfg(feature = "aws")]
use super::aws;
use super::fetch::{Asking, Failure, FetchError, FetchErrorKind, Keys};
use super::file::Files;
#[cfg(feature = "google")]
use super::google;
use super::kubernetes::Kubernetes;
use super::noop::Noop;
use super::settings::{EngineSettings, Settings};
use super::vault::Vault;
use super::{Engine, Fetched, Reference};

/// Time that one errand may take, log-in included.
const DEADLINE: Duration = Duration::from_secs(10);

/// A connection to one engine.
#[derive(Debug)]
pub(super) struct Connection {
    settings: Settings,
    engine: Box<dyn Engine>,
    pub(super) deadline: Duration,
}

impl Connection {
    /// Prepares a connection; nothing is dialled yet.
    pub(super) fn new(settings: Settings) -> Self {
        let engine: Box<dyn Engine> = match &settings.engine {
            #[cfg(feature = "aws")]
            EngineSettings::S3(s3) => Box::new(aws::S3::new(s3.clone())),
            #[cfg(feature = "aws")]
            EngineSettings::SecretsManager(aws) => Box::new(aws::SecretsManager::new(aws.clone())),
            #[cfg(feature = "google")]
            EngineSettings::Gcs(google) => Box::new(google::Storage::new(google.clone())),
            #[cfg(feature = "google")]
            EngineSettings::GoogleSecretsManager(google) => {
                Box::new(google::Secrets::new(google.clone()))
            }
            EngineSettings::File(file) => Box::new(Files::new(file.clone())),
            EngineSettings::Kubernetes(cluster) => Box::new(Kubernetes::new(cluster.clone())),
            EngineSettings::Noop => Box::new(Noop),
            EngineSettings::Vault(vault) => Box::new(Vault::new(vault.clone())),
        };
        Self {
            settings,
            engine,
            deadline: DEADLINE,
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
        let fetched = self.bounded(self.engine.fetch(reference)).await;
        fetched.map_err(|failure| self.told(failure, reference))
    }

    pub(super) async fn keys(&self, reference: &Reference) -> Result<Keys, FetchError> {
        let asked = async {
            // The version first: a change between the two is then seen as one.
            let version = self.bounded(self.engine.version(reference)).await?;
            let names = self.bounded(self.engine.keys(reference)).await?;
            Ok(Keys { names, version })
        };
        asked.await.map_err(|failure| self.told(failure, reference))
    }

    /// Waits until the store tells that it has another version; for ever where it does not tell.
    pub(super) async fn changed(&self, reference: &Reference, version: Option<&str>) {
        let watched = version.and_then(|version| self.engine.changed(reference, version));
        match watched {
            Some(changed) => changed.await,
            None => std::future::pending().await,
        }
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

    async fn bounded<T>(&self, asking: Asking<'_, T>) -> Result<T, Failure> {
        let asked = tokio::time::timeout(self.deadline, asking).await;
        asked.unwrap_or_else(|_elapsed| {
            let kind = FetchErrorKind::Unavailable { sealed: false };
            Err(Failure::new(kind, "it did not answer in time"))
        })
    }
}
