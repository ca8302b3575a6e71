//! What two watches of the same objects have seen, and what that says about the way between.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::report::{EventFigures, Lag};
use crate::resource::ResourceVersion;

/// Objects, living and gone, that are remembered.
const OBJECTS: usize = 200_000;

/// Cluster events that wait for their facade event; older ones no longer count for the lag.
const WAITING: usize = 65_536;

/// Lags that are kept; later ones are not looked at.
const LAGS: usize = 262_144;

/// Where an event was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// At the API server.
    Cluster,
    /// At the hub's facade.
    Facade,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// ADDED or MODIFIED, to this version.
    Alive(ResourceVersion),
    /// DELETED, at this version; a facade may know only the last one before.
    Gone(ResourceVersion),
}

/// The last that was seen of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Alive(ResourceVersion),
    Gone,
}

#[derive(Debug, Default)]
struct Life {
    collection: usize,
    cluster: Option<State>,
    facade: Option<State>,
    /// Newest version seen at the facade.
    newest: ResourceVersion,
}

/// Compares what both sides have seen, in bounded memory.
#[derive(Debug, Default)]
pub struct Ledger {
    lives: BTreeMap<String, Life>,
    /// Collection → version at which the cluster was first listed: earlier events are not
    /// counted on either side.
    counted_from: BTreeMap<usize, ResourceVersion>,
    waiting: HashMap<(String, Option<ResourceVersion>), Instant>,
    waiting_order: VecDeque<(String, Option<ResourceVersion>)>,
    lags: Vec<Duration>,
    sent: u64,
    applied: u64,
    duplicated: u64,
    overflowed: bool,
    last_event: Option<Instant>,
}

impl Ledger {
    /// Takes the whole of a collection as `side` lists it now, at version `from`; what it no
    /// longer lists is gone.
    pub fn baseline(
        &mut self,
        side: Side,
        collection: usize,
        from: ResourceVersion,
        now: &[(String, ResourceVersion)],
    ) {
        if side == Side::Cluster {
            self.counted_from.entry(collection).or_insert(from);
        }
        let mut listed: HashMap<&str, ResourceVersion> = HashMap::new();
        for (uid, version) in now {
            listed.insert(uid, *version);
        }
        for (uid, life) in &mut self.lives {
            let seen = life.on(side).is_some();
            if life.collection == collection && seen && !listed.contains_key(uid.as_str()) {
                *life.on(side) = Some(State::Gone);
            }
        }
        for (uid, version) in now {
            if let Some(life) = self.life(uid, collection) {
                *life.on(side) = Some(State::Alive(*version));
                if side == Side::Facade {
                    life.newest = life.newest.max(*version);
                }
            }
        }
    }

    /// Notes one event of a watch.
    pub fn event(&mut self, side: Side, collection: usize, uid: &str, change: Change, at: Instant) {
        self.last_event = Some(at);
        let counted_from = self.counted_from.get(&collection).copied();
        let Some(life) = self.life(uid, collection) else {
            return;
        };
        let (state, version, said) = match change {
            Change::Alive(version) => (State::Alive(version), Some(version), version),
            Change::Gone(said) => (State::Gone, None, said),
        };
        let counts = counted_from.is_some_and(|from| said > from)
            || (state == State::Gone && life.cluster.is_some());
        let repeated = side == Side::Facade
            && match state {
                State::Alive(version) => version <= life.newest,
                State::Gone => life.facade == Some(State::Gone),
            };
        if let (Side::Facade, State::Alive(version)) = (side, state) {
            life.newest = life.newest.max(version);
        }
        *life.on(side) = Some(state);
        let key = (uid.to_owned(), version);
        match side {
            Side::Cluster => {
                self.sent += 1;
                self.wait(key, at);
            }
            Side::Facade if repeated => self.duplicated += 1,
            Side::Facade => {
                self.applied += u64::from(counts);
                if let Some(seen) = self.waiting.remove(&key)
                    && self.lags.len() < LAGS
                {
                    self.lags.push(at.saturating_duration_since(seen));
                }
            }
        }
    }

    fn wait(&mut self, key: (String, Option<ResourceVersion>), at: Instant) {
        self.waiting.insert(key.clone(), at);
        self.waiting_order.push_back(key);
        if self.waiting_order.len() > WAITING
            && let Some(oldest) = self.waiting_order.pop_front()
        {
            self.waiting.remove(&oldest);
        }
    }

    fn life(&mut self, uid: &str, collection: usize) -> Option<&mut Life> {
        if !self.lives.contains_key(uid) && self.lives.len() >= OBJECTS {
            self.overflowed = true;
            return None;
        }
        let life = self.lives.entry(uid.to_owned()).or_insert_with(|| Life {
            collection,
            ..Life::default()
        });
        Some(life)
    }

    /// Whether more objects were seen than are remembered: the figures are then too low.
    pub const fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// When the last event was seen on either side.
    pub const fn last_event(&self) -> Option<Instant> {
        self.last_event
    }

    /// The figures, meant for a moment at which nothing changes any more.
    ///
    /// `coalesced` lives may have been left out on the way (created and deleted while unsent);
    /// `relists` is what the API server's audit says.
    pub fn figures(&self, coalesced: u64, relists: u64) -> EventFigures {
        let (mut differing, mut unseen) = (0, 0_u64);
        for life in self.lives.values() {
            match (life.cluster, life.facade) {
                (Some(State::Gone), None) => unseen += 1,
                // Deleted before the cluster was first listed, after the facade was.
                (None, Some(State::Gone)) => {}
                (cluster, facade) => differing += u64::from(cluster != facade),
            }
        }
        EventFigures {
            sent: self.sent,
            applied: self.applied,
            lost: differing + unseen.saturating_sub(coalesced),
            duplicated: self.duplicated,
            relists,
        }
    }

    /// Percentiles of the time from an event at the cluster to the same event at the facade.
    pub fn lag(&self) -> Lag {
        let mut lags = self.lags.clone();
        lags.sort_unstable();
        let at = |percent: usize| {
            let index = (lags.len() * percent / 100).min(lags.len().saturating_sub(1));
            lags.get(index)
                .map_or(0.0, |lag| lag.as_secs_f64() * 1000.0)
        };
        Lag {
            p50: at(50),
            p99: at(99),
        }
    }
}

impl Life {
    const fn on(&mut self, side: Side) -> &mut Option<State> {
        match side {
            Side::Cluster => &mut self.cluster,
            Side::Facade => &mut self.facade,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn alive(version: u64) -> Change {
        Change::Alive(ResourceVersion(version))
    }

    const fn gone() -> Change {
        Change::Gone(ResourceVersion(13))
    }

    /// The same five events on both sides, but for what `damage` does to the facade's.
    fn run(damage: impl FnOnce(&mut Vec<(&'static str, Change)>)) -> EventFigures {
        let events = vec![
            ("a", alive(10)),
            ("b", alive(11)),
            ("a", alive(12)),
            ("b", gone()),
            ("c", alive(14)),
        ];
        let mut ledger = Ledger::default();
        let start = Instant::now();
        ledger.baseline(
            Side::Cluster,
            0,
            ResourceVersion(5),
            &[("a".into(), ResourceVersion(5))],
        );
        ledger.baseline(
            Side::Facade,
            0,
            ResourceVersion(5),
            &[("a".into(), ResourceVersion(5))],
        );
        for (uid, change) in &events {
            ledger.event(Side::Cluster, 0, uid, *change, start);
        }
        let mut shown = events;
        damage(&mut shown);
        for (uid, change) in shown {
            ledger.event(
                Side::Facade,
                0,
                uid,
                change,
                start + Duration::from_millis(3),
            );
        }
        assert!((ledger.lag().p50 - 3.0).abs() < 1e-6);
        ledger.figures(0, 0)
    }

    /// [`run`] without one of the facade's events.
    fn without(number: usize) -> EventFigures {
        run(|shown| {
            shown.remove(number);
        })
    }

    #[test]
    fn a_faithful_facade_loses_and_doubles_nothing() {
        let figures = run(|_| {});
        assert_eq!((figures.sent, figures.applied), (5, 5));
        assert_eq!((figures.lost, figures.duplicated), (0, 0));
    }

    #[test]
    fn a_dropped_last_event_is_lost() {
        assert_eq!(without(4).lost, 1);
        assert_eq!(without(2).lost, 1);
        assert_eq!(without(3).lost, 1);
    }

    #[test]
    fn an_event_between_two_others_may_be_coalesced() {
        assert_eq!(without(0).lost, 0);
    }

    #[test]
    fn a_whole_life_that_was_not_shown_is_lost_unless_counted_as_coalesced() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        ledger.event(Side::Cluster, 0, "a", alive(1), now);
        ledger.event(Side::Cluster, 0, "a", gone(), now);
        assert_eq!(ledger.figures(0, 0).lost, 1);
        assert_eq!(ledger.figures(1, 0).lost, 0);
    }

    #[test]
    fn an_event_shown_twice_or_late_is_duplicated() {
        assert_eq!(run(|shown| shown.insert(3, ("a", alive(12)))).duplicated, 1);
        assert_eq!(run(|shown| shown.insert(3, ("a", alive(10)))).duplicated, 1);
        assert_eq!(run(|shown| shown.insert(4, ("b", gone()))).duplicated, 1);
    }

    #[test]
    fn what_a_new_list_no_longer_has_is_gone() {
        let mut ledger = Ledger::default();
        let a = [("a".to_owned(), ResourceVersion(5))];
        ledger.baseline(Side::Cluster, 0, ResourceVersion(5), &a);
        ledger.baseline(Side::Facade, 0, ResourceVersion(5), &a);
        ledger.baseline(Side::Cluster, 0, ResourceVersion(5), &[]);
        assert_eq!(ledger.figures(0, 0).lost, 1);
        ledger.baseline(Side::Facade, 0, ResourceVersion(5), &[]);
        assert_eq!(ledger.figures(0, 0).lost, 0);
    }
}
