//! The configured connections to engines, by name.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::connection::Connection;
use super::fetch::{Failure, FetchError, FetchErrorKind, Fetched, Keys};
use super::minting;
use super::settings::{MAX_STALE, REFRESH, Settings};
use super::surroundings::Surroundings;
use super::{Profile, Purpose, Reference, Rules};
use crate::clock::SharedClock;
use crate::telemetry::metrics::{Histogram, Tally};

/// What was asked of engines.
#[derive(Debug, Default)]
pub struct Figures {
    /// By engine and outcome: `ok`, `current` (not fetched again), or the name of a
    /// [`super::Reason`].
    pub fetches: Tally<2>,
    /// How long fetches took, their wait for a turn included.
    pub took: Histogram,
}

/// The configured connections to engines, by name.
#[derive(Debug)]
pub struct Engines {
    connections: Vec<Arc<Connection>>,
    figures: Arc<Figures>,
    surroundings: Surroundings,
}

impl Engines {
    /// Prepares a connection per settings; nothing is dialled yet.
    pub fn new(settings: Vec<Settings>, surroundings: Surroundings) -> Self {
        let none = Self {
            connections: Vec::new(),
            figures: Arc::default(),
            surroundings,
        };
        none.replaced_by(settings)
    }

    /// Other connections in place of these, counted on. Those whose settings are the same stay, with
    /// their logins.
    #[must_use]
    pub fn replaced_by(&self, settings: Vec<Settings>) -> Self {
        let kept = |settings: &Settings| {
            let mut known = self.connections.iter();
            known
                .find(|known| known.settings() == settings)
                .map(Arc::clone)
        };
        let connections = settings.into_iter().map(|settings| {
            let fresh = |settings| Arc::new(Connection::new(settings, &self.surroundings));
            kept(&settings).unwrap_or_else(|| fresh(settings))
        });
        Self {
            connections: connections.collect(),
            figures: Arc::clone(&self.figures),
            surroundings: self.surroundings.clone(),
        }
    }

    /// Whether `reference` is served by the same connection here and there.
    pub fn serves_alike(&self, other: &Self, reference: &Reference) -> bool {
        match (self.connection(reference), other.connection(reference)) {
            (Some(here), Some(there)) => Arc::ptr_eq(here, there),
            (here, there) => here.is_none() && there.is_none(),
        }
    }

    /// Fetches what `reference` names, counted and audited.
    ///
    /// # Errors
    /// The engine's own, and one for a connection that is not configured.
    pub async fn fetch(&self, reference: &Reference) -> Result<Fetched, FetchError> {
        let Some(connection) = self.connection(reference) else {
            return Err(not_configured(reference));
        };
        let begun = Instant::now();
        let fetched = connection.fetch(reference).await;
        self.figures.took.record(begun.elapsed());
        let outcome = self.count(reference, fetched.as_ref().map(|_| "ok"));
        let version = fetched.as_ref().ok().and_then(|it| it.version.as_deref());
        tracing::info!(
            target: "sortie::audit",
            action = "secret-fetch",
            secret = %reference,
            engine = reference.engine().as_str(),
            version,
            outcome,
            "audit"
        );
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

    /// Whether the store still has `version`, counted; none where only a fetch can tell.
    pub(super) async fn is_current(
        &self,
        reference: &Reference,
        version: &str,
    ) -> Result<Option<bool>, FetchError> {
        let Some(connection) = self.connection(reference) else {
            return Err(not_configured(reference));
        };
        let asked = connection.is_current(reference, version).await;
        match &asked {
            Ok(Some(true)) => _ = self.count(reference, Ok("current")),
            Ok(Some(false) | None) => {} // the fetch that follows counts
            Err(error) => _ = self.count(reference, Err(error)),
        }
        asked
    }

    /// Gives the outcome as it is counted.
    fn count(
        &self,
        reference: &Reference,
        outcome: Result<&'static str, &FetchError>,
    ) -> &'static str {
        let outcome = outcome.unwrap_or_else(|error| error.reason().as_str());
        self.figures
            .fetches
            .add([reference.engine().as_str(), outcome]);
        outcome
    }

    /// Waits until the store tells that it has another version than this one, or than it has now;
    /// for ever where it does not tell.
    ///
    /// It holds on to the one connection, not to the others: they may be taken away meanwhile.
    pub fn changed<'a>(
        &self,
        reference: &'a Reference,
        version: Option<&'a str>,
    ) -> impl Future<Output = ()> + Send + use<'a> {
        let connection = self.connection(reference).cloned();
        async move {
            match connection {
                Some(connection) => connection.changed(reference, version).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until the engine, which was seen to be away, has come back.
    pub(super) fn returned(
        &self,
        reference: &Reference,
    ) -> impl Future<Output = ()> + Send + use<> {
        let connection = self.connection(reference).cloned();
        async move {
            match connection {
                Some(connection) => connection.returned().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Whether each engine answers, by the name of its connection; no credential is shown.
    pub async fn probe(&self) -> Vec<(String, Result<(), Failure>)> {
        let probes = self.connections.iter().map(|connection| async {
            let name = connection.settings().name.clone();
            (name, connection.probe().await)
        });
        join_all(probes).await
    }

    /// Gives back what was leased, of all connections at once but those that `successor` has too.
    pub async fn close(&self, successor: Option<&Self>) {
        let goes_on = |connection: &&Arc<Connection>| {
            let after = successor.map_or(&[][..], |successor| &successor.connections);
            after.iter().any(|other| Arc::ptr_eq(other, connection))
        };
        let ended = self.connections.iter().filter(|one| !goes_on(one));
        join_all(ended.map(|connection| connection.close())).await;
    }

    /// What was asked so far.
    pub fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    /// How often what `reference` names is asked for again.
    pub fn refresh(&self, reference: &Reference) -> Duration {
        self.terms(reference).0
    }

    /// How often what `reference` names is asked for again, and for how long it is used without.
    pub(super) fn terms(&self, reference: &Reference) -> (Duration, Duration) {
        self.connection(reference)
            .map_or((REFRESH, MAX_STALE), |connection| {
                let settings = connection.settings();
                (settings.refresh, settings.max_stale)
            })
    }

    /// What a kubeconfig is read with.
    pub(super) fn profile(
        &self,
        base: Option<PathBuf>,
        rules: &Rules,
        clock: &SharedClock,
        purpose: Purpose,
    ) -> Profile {
        let wanted = rules.token.as_ref();
        let connection = wanted.and_then(|minting| {
            let named =
                |connection: &&Arc<Connection>| connection.settings().name == minting.profile();
            self.connections.iter().find(named)
        });
        let tokens = connection.zip(wanted);
        Profile {
            base,
            rules: rules.clone(),
            clock: Arc::clone(clock),
            purpose,
            tokens: tokens.and_then(|(connection, minting)| {
                minting::source(minting, &connection.settings().engine, clock)
            }),
        }
    }

    fn connection(&self, reference: &Reference) -> Option<&Arc<Connection>> {
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
