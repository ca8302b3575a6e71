//! A reader of changes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::watch;

use super::View;
use super::history::{Change, Entry};
use super::object::Object;
use super::read::Unavailable;
use super::selector::Selector;
use super::state::{Kind, holds};
use crate::resource::{Gvr, ResourceVersion};

/// Entries of the history that a watcher takes at once.
const TAKEN_AT_ONCE: u64 = 64;

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// After the state at this version, as a list, an event or a bookmark told it.
    Version(ResourceVersion),
    /// With what happens next.
    Now,
    /// With every object there is, then a bookmark, then what happens next.
    Start,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An object came, or came to be selected.
    Added(Arc<Object>),
    /// A selected object has changed.
    Modified(Arc<Object>),
    /// An object went, or is no longer selected; its state is the last that was selected, its
    /// version that of the change.
    Deleted(Arc<Object>),
    /// Everything up to this version has been told.
    Bookmark(ResourceVersion),
}

/// Why there is no watch, or no more of it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum WatchError {
    /// What happened since is no longer known; the client has to list again (410).
    #[error("too old resource version")]
    Gone,
    /// The view cannot tell what there is of the kind.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Reads the changes of a kind from the history, by position: a slow reader costs nothing, and is
/// told [`WatchError::Gone`] when the history has gone past it.
pub struct Watcher {
    view: Arc<View>,
    gvr: Gvr,
    namespace: Option<String>,
    selector: Selector,
    position: u64,
    /// The client knows the state up to here, though the view does not yet.
    known: ResourceVersion,
    ready: VecDeque<Event>,
    ticks: watch::Receiver<u64>,
}

impl View {
    /// Watches the objects of `namespace` (of every one for `None`) that `selector` selects.
    ///
    /// # Errors
    /// The kind cannot be listed, or the version to begin after is older than the history.
    pub fn watch(
        self: &Arc<Self>,
        gvr: &Gvr,
        namespace: Option<&str>,
        selector: Selector,
        from: From,
    ) -> Result<Watcher, WatchError> {
        let state = self.lock();
        let kind = state.kinds.get(gvr).ok_or(Unavailable::NotWatched)?;
        let version = kind.readable(namespace)?;
        let mut ready = VecDeque::new();
        let mut known = ResourceVersion::ZERO;
        let position = match from {
            From::Now => kind.history.next(),
            From::Start => {
                let objects = kind.select(namespace, &selector);
                ready.extend(objects.into_iter().map(Event::Added));
                ready.push_back(Event::Bookmark(version));
                kind.history.next()
            }
            From::Version(from) => {
                if kind
                    .matching(namespace)
                    .any(|(_, stream)| stream.forgotten > from)
                {
                    return Err(WatchError::Gone);
                }
                let newest = kind.matching(namespace).map(|(_, stream)| stream.version);
                if kind.matching(namespace).count() == 1 && newest.max() < Some(from) {
                    known = from;
                }
                kind.history.after(from, |scope| holds(scope, namespace))
            }
        };
        Ok(Watcher {
            view: Arc::clone(self),
            gvr: gvr.clone(),
            namespace: namespace.map(str::to_owned),
            selector,
            position,
            known,
            ready,
            ticks: kind.tick.subscribe(),
        })
    }
}

impl Watcher {
    /// The next event; waits until there is one. Cancellation safe.
    ///
    /// # Errors
    /// [`WatchError`] is the end of the watch.
    pub async fn next(&mut self) -> Result<Event, WatchError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            self.ticks.mark_unchanged();
            if self.take()? {
                continue;
            }
            // The sender goes with its kind.
            if self.ticks.changed().await.is_err() {
                return Err(WatchError::Gone);
            }
        }
    }

    /// The version up to which everything has been told, if nothing is waiting to be.
    ///
    /// # Errors
    /// [`WatchError`] is the end of the watch.
    pub fn bookmark(&mut self) -> Result<Option<ResourceVersion>, WatchError> {
        while self.ready.is_empty() {
            let view = Arc::clone(&self.view);
            let state = view.lock();
            let kind = state.kinds.get(&self.gvr).ok_or(WatchError::Gone)?;
            if kind.history.next() == self.position {
                let version = kind.readable(self.namespace.as_deref())?;
                return Ok(Some(version.max(self.known)));
            }
            drop(state);
            self.take()?;
        }
        Ok(None)
    }

    /// Takes some entries from the history; false if there are none.
    fn take(&mut self) -> Result<bool, WatchError> {
        let view = Arc::clone(&self.view);
        let state = view.lock();
        let kind: &Kind = state.kinds.get(&self.gvr).ok_or(WatchError::Gone)?;
        let entries = kind.history.since(self.position).ok_or(WatchError::Gone)?;
        let mut taken = 0;
        for entry in entries.take(usize::try_from(TAKEN_AT_ONCE).unwrap_or(1)) {
            taken += 1;
            if entry.version > self.known
                && let Some(event) = self.event(entry)
            {
                self.ready.push_back(event);
            }
        }
        self.position += taken;
        Ok(taken > 0)
    }

    /// What the entry is to a client that sees only what is selected.
    fn event(&self, entry: &Entry) -> Option<Event> {
        let selects = |object: &Object| {
            let identity = object.identity();
            self.namespace
                .as_ref()
                .is_none_or(|namespace| identity.namespace == *namespace)
                && self.selector.matches(object)
        };
        match &entry.change {
            Change::Delete(object) => selects(object).then(|| Event::Deleted(Arc::clone(object))),
            Change::Put { before, after } => {
                let before = before.as_ref().filter(|before| selects(before));
                match (before, selects(after)) {
                    (None, true) => Some(Event::Added(Arc::clone(after))),
                    (Some(_), true) => Some(Event::Modified(Arc::clone(after))),
                    (Some(before), false) => {
                        let version = after.identity().resource_version;
                        Some(Event::Deleted(Arc::new(before.at_version(version))))
                    }
                    (None, false) => None,
                }
            }
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("gvr", &self.gvr)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
