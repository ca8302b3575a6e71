//! One named connection of the configuration.

use std::time::Duration;

#[cfg(feature = "aws")]
use super::aws;
#[cfg(feature = "google")]
use super::google;
use super::{EngineId, Reference, file, kubernetes, vault};

/// How often a secret is fetched again, where the settings say nothing else.
pub const REFRESH: Duration = Duration::from_mins(5);

/// For how long a credential is used without its engine, where the settings say nothing else.
pub const MAX_STALE: Duration = Duration::from_hours(24);

/// One named connection of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name in references.
    pub name: String,
    /// Whether it serves references of its engine that name no connection.
    pub default: bool,
    /// How often a secret is fetched again; usually [`REFRESH`].
    pub refresh: Duration,
    /// For how long a credential is used while its engine cannot be asked; usually [`MAX_STALE`].
    pub max_stale: Duration,
    /// Which engine, and how it is reached.
    pub engine: EngineSettings,
}

impl Settings {
    /// Whether this connection serves `reference`.
    pub fn serves(&self, reference: &Reference) -> bool {
        self.engine.id() == reference.engine()
            && match &reference.profile {
                Some(name) => self.name == *name,
                None => self.default,
            }
    }
}

/// Which engine, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineSettings {
    /// AWS S3.
    #[cfg(feature = "aws")]
    S3(aws::Settings),
    /// AWS Secrets Manager.
    #[cfg(feature = "aws")]
    SecretsManager(aws::Settings),
    /// Google Cloud Storage.
    #[cfg(feature = "google")]
    Gcs(google::Settings),
    /// Google Secret Manager.
    #[cfg(feature = "google")]
    GoogleSecretsManager(google::Settings),
    /// Files below a folder.
    File(file::Settings),
    /// Secrets of a cluster.
    Kubernetes(kubernetes::Settings),
    /// References that hold their value themselves.
    Noop,
    /// Vault and `OpenBao`.
    Vault(vault::Settings),
}

impl EngineSettings {
    /// The engine's name.
    pub const fn id(&self) -> EngineId {
        match self {
            #[cfg(feature = "aws")]
            Self::S3(_) => EngineId::S3,
            #[cfg(feature = "aws")]
            Self::SecretsManager(_) => EngineId::SecretsManager,
            #[cfg(feature = "google")]
            Self::Gcs(_) => EngineId::Gcs,
            #[cfg(feature = "google")]
            Self::GoogleSecretsManager(_) => EngineId::GoogleSecretsManager,
            Self::File(_) => EngineId::File,
            Self::Kubernetes(_) => EngineId::Kubernetes,
            Self::Noop => EngineId::Noop,
            Self::Vault(_) => EngineId::Vault,
        }
    }
}
