//! The last events of a kind, for watches that resume and readers that are behind.

use std::collections::VecDeque;
use std::sync::Arc;

use super::object::Object;
use super::{HISTORY_BYTES, HISTORY_EVENTS};
use crate::resource::{ResourceVersion, Scope};

/// A change of the state.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Where there was `before` there is `after`; both have the same uid.
    Put {
        before: Option<Arc<Object>>,
        after: Arc<Object>,
    },
    /// The object, at the version of its deletion, is gone.
    Delete(Arc<Object>),
}

impl Change {
    const fn object(&self) -> &Arc<Object> {
        match self {
            Self::Put { after, .. } => after,
            Self::Delete(object) => object,
        }
    }

    /// What it keeps, in bytes: also what was `before`, which nobody else has any more.
    fn weight(&self) -> usize {
        let before = match self {
            Self::Put { before, .. } => before.as_ref(),
            Self::Delete(_) => None,
        };
        self.object().weight() + before.map_or(0, |before| before.weight())
    }

    /// The version that a watch tells with it.
    fn told(&self) -> ResourceVersion {
        self.object().identity().resource_version
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    /// The stream it came by.
    pub(super) scope: Scope,
    /// The version from which on a client knows of it.
    pub(super) version: ResourceVersion,
    pub(super) change: Change,
}

/// Entries in the order of their application, each at a position that is never used again.
#[derive(Debug, Default)]
pub(super) struct History {
    entries: VecDeque<Entry>,
    first: u64,
    bytes: usize,
}

impl History {
    /// Appends, and hands back what had to make room.
    pub(super) fn push(&mut self, entry: Entry) -> Vec<Entry> {
        self.bytes += entry.change.weight();
        self.entries.push_back(entry);
        let mut evicted = Vec::new();
        while self.entries.len() > HISTORY_EVENTS || self.bytes > HISTORY_BYTES {
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            self.first += 1;
            self.bytes -= entry.change.weight();
            evicted.push(entry);
        }
        evicted
    }

    /// The position of the next entry.
    pub(super) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Entries from `position` on; `None` if some of them are forgotten.
    pub(super) fn since(&self, position: u64) -> Option<impl Iterator<Item = &Entry>> {
        let skip = usize::try_from(position.checked_sub(self.first)?).ok()?;
        Some(self.entries.iter().skip(skip))
    }

    /// Forgets everything; every reader, also one that has read all, is told that it is behind.
    pub(super) fn reset(&mut self) -> impl Iterator<Item = Entry> + use<> {
        self.first = self.next() + 1;
        self.bytes = 0;
        std::mem::take(&mut self.entries).into_iter()
    }

    /// The position from which a client reads on that knows the state at `version`.
    ///
    /// Versions grow within a stream, but not between streams. A client whose last event was one
    /// told at exactly `version` has seen what was applied to its stream before it; any other
    /// version was given out as the lowest of all streams, so what is unknown is newer. All entries
    /// of a snapshot's end that were not told as of their own version have the snapshot's, and are
    /// known together.
    pub(super) fn after(&self, version: ResourceVersion, of: impl Fn(&Scope) -> bool) -> u64 {
        let told = self.told_last(version, &of);
        let is_seen = |at: usize, entry: &Entry| {
            told.is_some_and(|(last, told)| at <= last && entry.scope == told.scope)
        };
        let newer = |(at, entry): (usize, &Entry)| {
            of(&entry.scope) && entry.version > version && !is_seen(at, entry)
        };
        let newer = self.entries.iter().enumerate().position(newer);
        let after_told = told.map(|(at, _)| at + 1);
        let skip = match (newer, after_told) {
            (Some(newer), Some(after)) => newer.min(after),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => self.entries.len(),
        };
        self.first + skip as u64
    }

    /// The last entry that a client has surely seen which was told `version` last.
    fn told_last(
        &self,
        version: ResourceVersion,
        of: &impl Fn(&Scope) -> bool,
    ) -> Option<(usize, &Entry)> {
        let told =
            |(_, entry): &(usize, &Entry)| of(&entry.scope) && entry.change.told() == version;
        let mut entries = self.entries.iter().enumerate().filter(told);
        // Told as of an older version than their own: of several, only the first is sure.
        let (first, last) = (
            entries.clone().next(),
            entries.rfind(|(_, entry)| entry.version == version),
        );
        last.or(first)
    }
}
