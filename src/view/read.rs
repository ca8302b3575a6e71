//! The side of a view that clients read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::View;
use super::object::Object;
use super::selector::Selector;
use super::state::Kind;
use crate::resource::{Gvr, ResourceVersion};

/// Objects as the view has them.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Sorted by namespace and name.
    pub objects: Vec<Arc<Object>>,
    /// The version up to which they are known: the lowest one of the streams they come from.
    pub version: ResourceVersion,
    /// How long ago they were last known to be up to date; zero while their streams run.
    pub age: Duration,
}

/// Why the view cannot tell what there is of a kind.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unavailable {
    /// No stream holds objects of this kind and namespace.
    #[error("the resource is not watched")]
    NotWatched,
    /// There was no whole snapshot yet.
    #[error("the resource has not been listed as a whole yet")]
    NotComplete,
    /// The kind does not fit into the account's bytes.
    #[error("the resource exceeds the account's budget of bytes")]
    OverBudget,
}

impl View {
    /// The objects of `namespace` (of every one for `None`) that `selector` selects.
    ///
    /// # Errors
    /// A listing is whole or is not given.
    pub fn list(
        &self,
        gvr: &Gvr,
        namespace: Option<&str>,
        selector: &Selector,
    ) -> Result<Listing, Unavailable> {
        let now = self.clock.now();
        let state = self.lock();
        let kind = state.kinds.get(gvr).ok_or(Unavailable::NotWatched)?;
        let version = kind.readable(namespace)?;
        Ok(Listing {
            objects: kind.select(namespace, selector),
            version,
            age: kind.age(namespace, now),
        })
    }

    /// How long ago what is known of `namespace` was last known to be up to date, as in
    /// [`Listing::age`].
    ///
    /// # Errors
    /// What there is cannot be told.
    pub fn age(&self, gvr: &Gvr, namespace: Option<&str>) -> Result<Duration, Unavailable> {
        let now = self.clock.now();
        let state = self.lock();
        let kind = state.kinds.get(gvr).ok_or(Unavailable::NotWatched)?;
        kind.readable(namespace)?;
        Ok(kind.age(namespace, now))
    }

    /// One object; cluster-scoped ones have the namespace `""`. `None` if the view does not have
    /// it, whatever the reason.
    pub fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let state = self.lock();
        let kind = state.kinds.get(gvr)?;
        let place = (!namespace.is_empty()).then_some(namespace);
        let key = (namespace.to_owned(), name.to_owned());
        let found = kind
            .matching(place)
            .find_map(|(_, stream)| stream.objects.get(&key));
        found.map(Arc::clone)
    }
}

impl Kind {
    /// The version of a listing of `namespace`, if there can be one.
    pub(super) fn readable(&self, namespace: Option<&str>) -> Result<ResourceVersion, Unavailable> {
        if self.over_budget {
            return Err(Unavailable::OverBudget);
        }
        let mut lowest = None;
        for (_, stream) in self.matching(namespace) {
            if !stream.complete {
                return Err(Unavailable::NotComplete);
            }
            lowest = Some(lowest.map_or(stream.version, |low: ResourceVersion| {
                low.min(stream.version)
            }));
        }
        lowest.ok_or(Unavailable::NotWatched)
    }

    fn age(&self, namespace: Option<&str>, now: SystemTime) -> Duration {
        let interrupted = self
            .matching(namespace)
            .filter_map(|(_, it)| it.interrupted);
        let ages = interrupted.map(|since| now.duration_since(since).unwrap_or_default());
        ages.max().unwrap_or_default()
    }

    pub(super) fn select(&self, namespace: Option<&str>, selector: &Selector) -> Vec<Arc<Object>> {
        let wanted = |object: &Arc<Object>| {
            namespace.is_none_or(|namespace| object.identity().namespace == namespace)
                && selector.matches(object)
        };
        let mut objects: Vec<Arc<Object>> = self
            .matching(namespace)
            .flat_map(|(_, stream)| stream.objects.values())
            .filter(|object| wanted(object))
            .cloned()
            .collect();
        if self.streams.len() > 1 {
            let key = |object: &Arc<Object>| super::state::name_of(object.identity());
            objects.sort_by_cached_key(key);
        }
        objects
    }
}
