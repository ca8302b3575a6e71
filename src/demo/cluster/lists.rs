//! Who listed what: enough of an audit log to tell lists that were needed from those that were not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::kinds::Kind;

/// Readers × collections that are remembered.
const ENTRIES: usize = 4096;

/// Reader, kind, namespace.
type Entry = (String, &'static str, &'static str, String);

#[derive(Debug, Default)]
struct Seen {
    listed: bool,
    /// The reader was answered 410 since its last list.
    excused: bool,
    relists: u64,
}

/// Lists by reader (the first word of its user agent) and collection.
#[derive(Debug, Default)]
pub(super) struct Lists(Mutex<BTreeMap<Entry, Seen>>);

impl Lists {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Entry, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(
        &self,
        agent: &str,
        kind: &'static Kind,
        namespace: &str,
        note: impl FnOnce(&mut Seen),
    ) {
        let agent = agent.split(['/', ' ']).next().unwrap_or_default();
        let entry = (
            agent.to_owned(),
            kind.plural,
            kind.group,
            namespace.to_owned(),
        );
        let mut entries = self.entries();
        if entries.len() < ENTRIES || entries.contains_key(&entry) {
            note(entries.entry(entry).or_default());
        }
    }

    /// A list from its first page, or a watch that starts with the initial state.
    pub(super) fn listed(&self, agent: &str, kind: &'static Kind, namespace: &str) {
        self.note(agent, kind, namespace, |seen| {
            if seen.listed && !seen.excused {
                seen.relists += 1;
            }
            seen.listed = true;
            seen.excused = false;
        });
    }

    /// An answer of 410.
    pub(super) fn gone(&self, agent: &str, kind: &'static Kind, namespace: &str) {
        self.note(agent, kind, namespace, |seen| seen.excused = true);
    }

    /// Lists that no 410 preceded, the first of each collection aside, by all readers but
    /// `ours`.
    pub(super) fn relists(&self, ours: &str) -> u64 {
        let entries = self.entries();
        let others = entries.iter().filter(|((agent, ..), _)| agent != ours);
        others.map(|(_, seen)| seen.relists).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::cluster::kinds::named;

    #[test]
    fn only_a_second_list_without_a_410_counts() {
        let lists = Lists::default();
        let pods = named("Pod").expect("known");
        lists.listed("agent/1", pods, "");
        lists.listed("agent/1", pods, "shop");
        assert_eq!(lists.relists("audit"), 0);
        lists.gone("agent/1", pods, "");
        lists.listed("agent/1", pods, "");
        assert_eq!(lists.relists("audit"), 0);
        lists.listed("agent/2 (linux)", pods, "");
        assert_eq!(lists.relists("audit"), 1);
        assert_eq!(lists.relists("agent"), 0);
    }
}
