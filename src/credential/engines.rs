//! The configured connections to engines, by name.

use std::sync::Arc;
use std::time::Duration;

use super::fetch::{FetchError, FetchErrorKind, Fetched};
use super::vault::{self, Vault};
use super::{Engine, Locator, Reference};
use crate::telemetry::metrics::Tally;

/// The configured connections to engines, by name.
#[derive(Debug, Default)]
pub struct Engines {
    vaults: Vec<Vault>,
    fetches: Arc<Tally<1>>,
}

impl Engines {
    /// Prepares a connection per settings; nothing is dialled yet.
    pub fn new(settings: Vec<vault::Settings>) -> Self {
        Self {
            vaults: settings.into_iter().map(Vault::new).collect(),
            fetches: Arc::default(),
        }
    }

    /// Other connections in place of these, counted on.
    #[must_use]
    pub fn replaced_by(&self, settings: Vec<vault::Settings>) -> Self {
        Self {
            fetches: Arc::clone(&self.fetches),
            ..Self::new(settings)
        }
    }

    /// Fetches what `reference` names.
    ///
    /// # Errors
    /// The engine's own, and one for a connection that is not configured.
    pub async fn fetch(&self, reference: &Reference) -> Result<Fetched, FetchError> {
        let Reference::Vault { profile, locator } = reference;
        let fetched = match self.vault(profile.as_deref()) {
            Some(vault) => vault.fetch(locator).await,
            None => Err(not_configured(profile.as_deref(), locator)),
        };
        let outcome = fetched
            .as_ref()
            .map_or_else(|error| error.reason().as_str(), |_| "ok");
        self.fetches.add([outcome]);
        fetched
    }

    /// What was fetched so far, by outcome: `ok`, or the name of a [`super::Reason`].
    pub fn fetches(&self) -> Arc<Tally<1>> {
        Arc::clone(&self.fetches)
    }

    /// How often what `reference` names is fetched again.
    pub fn refresh(&self, reference: &Reference) -> Duration {
        let Reference::Vault { profile, .. } = reference;
        self.vault(profile.as_deref())
            .map_or(vault::REFRESH, |vault| vault.settings().refresh)
    }

    /// Whether the connection that `reference` names is configured.
    pub fn knows(&self, reference: &Reference) -> bool {
        let Reference::Vault { profile, .. } = reference;
        self.vault(profile.as_deref()).is_some()
    }

    fn vault(&self, profile: Option<&str>) -> Option<&Vault> {
        self.vaults.iter().find(|vault| match profile {
            Some(name) => vault.settings().name == name,
            None => vault.settings().default,
        })
    }
}

fn not_configured(profile: Option<&str>, locator: &Locator) -> FetchError {
    FetchError {
        kind: FetchErrorKind::Unavailable { sealed: false },
        profile: profile.unwrap_or("default").to_owned(),
        path: format!("{}/{}", locator.mount, locator.path),
        status: None,
        hint: "no engine of this name is configured under `engines`",
    }
}
