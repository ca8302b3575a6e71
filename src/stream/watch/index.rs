//! What was told of each object of a stream, so that unchanged content is not told again.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::resource::ResourceVersion;

/// An object's uid as 128 keyed bits.
///
/// A uid as text costs three times as much as everything else that is kept of an object. Whoever
/// names objects cannot make two keys equal without knowing the hash keys, which are random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u128);

/// Last version told, and hash of the content told.
pub(super) type Told = (ResourceVersion, u64);

/// What was told, by uid.
#[derive(Debug, Default)]
pub(super) struct Index {
    high: RandomState,
    low: RandomState,
    told: HashMap<Key, Told>,
    /// From before the snapshot that is under way, as far as it has not named the object yet.
    before: HashMap<Key, Told>,
}

impl Index {
    /// The key of a uid in this index.
    pub(super) fn key(&self, uid: &str) -> Key {
        let (high, low) = (self.high.hash_one(uid), self.low.hash_one(uid));
        Key(u128::from(high) << 64 | u128::from(low))
    }

    pub(super) fn get(&self, key: Key) -> Option<Told> {
        self.told
            .get(&key)
            .or_else(|| self.before.get(&key))
            .copied()
    }

    pub(super) fn insert(&mut self, key: Key, told: Told) {
        self.told.insert(key, told);
    }

    pub(super) fn remove(&mut self, uid: &str) {
        let key = self.key(uid);
        self.told.remove(&key);
    }

    /// A snapshot names every object anew.
    pub(super) fn begin_snapshot(&mut self) {
        if self.before.is_empty() {
            std::mem::swap(&mut self.before, &mut self.told);
        } else {
            self.before.extend(self.told.drain());
        }
    }

    /// What the snapshot has not named is gone.
    pub(super) fn end_snapshot(&mut self) {
        self.before = HashMap::new();
        self.told.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_snapshot_does_not_name_is_forgotten_at_its_end() {
        let mut index = Index::default();
        let told = |version| (ResourceVersion(version), 7);
        let [a, b] = ["a", "b"].map(|uid| index.key(uid));
        index.insert(a, told(1));
        index.insert(b, told(2));
        index.begin_snapshot();
        index.insert(a, told(3));
        // One that broke off and began again still knows both.
        index.begin_snapshot();
        assert_eq!((index.get(a), index.get(b)), (Some(told(3)), Some(told(2))));
        index.insert(b, told(4));
        index.end_snapshot();
        assert_eq!((index.get(a), index.get(b)), (None, Some(told(4))));
        index.remove("b");
        assert_eq!(index.get(b), None);
    }
}
