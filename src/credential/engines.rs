//! The configured connections to engines, by name.

use std::sync::Arc;
use std::time::Duration;

use super::Reference;
use super::connection::Connection;
use super::fetch::{FetchError, FetchErrorKind, Fetched, Keys};
use super::settings::{self, Settings};
use crate::telemetry::metrics::Tally;

/// The configured connections to engines, by name.
#[derive(Debug, Default)]
pub struct Engines {
    connections: Vec<Connection>,
    fetches: Arc<Tally<1>>,
}

impl Engines {
    /// Prepares a connection per settings; nothing is dialled yet.
    pub fn new(settings: Vec<Settings>) -> Self {
        Self {
            connections: settings.into_iter().map(Connection::new).collect(),
            fetches: Arc::default(),
        }
    }

    /// Other connections in place of these, counted on.
    #[must_use]
    pub fn replaced_by(&self, settings: Vec<Settings>) -> Self {
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
        let fetched = match self.connection(reference) {
            Some(connection) => connection.fetch(reference).await,
            None => Err(not_configured(reference)),
        };
        let outcome = fetched
            .as_ref()
            .map_or_else(|error| error.reason().as_str(), |_| "ok");
        self.fetches.add([outcome]);
        fetched
    }

    /// The names of the fields of what `reference` names, for one that means each of them.
    ///
    /// # Errors
    /// As [`Engines::fetch`].
    pub async fn keys(&self, reference: &Reference) -> Result<Keys, FetchError> {
        match self.connection(reference) {
            Some(connection) => connection.keys(reference).await,
            None => Err(not_configured(reference)),
        }
    }

    /// Waits until the store tells that it has another version; for ever where it does not tell.
    pub async fn changed(&self, reference: &Reference, version: Option<&str>) {
        match self.connection(reference) {
            Some(connection) => connection.changed(reference, version).await,
            None => std::future::pending().await,
        }
    }

    /// What was fetched so far, by outcome: `ok`, or the name of a [`super::Reason`].
    pub fn fetches(&self) -> Arc<Tally<1>> {
        Arc::clone(&self.fetches)
    }

    /// How often what `reference` names is fetched again.
    pub fn refresh(&self, reference: &Reference) -> Duration {
        self.connection(reference)
            .map_or(settings::REFRESH, |connection| {
                connection.settings().refresh
            })
    }

    /// Whether the connection that `reference` names is configured.
    pub fn knows(&self, reference: &Reference) -> bool {
        self.connection(reference).is_some()
    }

    fn connection(&self, reference: &Reference) -> Option<&Connection> {
        let mut connections = self.connections.iter();
        connections.find(|connection| connection.serves(reference))
    }
}

fn not_configured(reference: &Reference) -> FetchError {
    let profile = reference.profile.as_deref().unwrap_or("default");
    FetchError {
        kind: FetchErrorKind::Unavailable { sealed: false },
        profile: profile.to_owned(),
        path: reference.locator.to_string(),
        status: None,
        hint: "no engine of this name is configured under `engines`",
    }
}
