//! Random events against a naive model.

use futures_util::FutureExt as _;

use super::*;

/// What the random streams do: one of few names, under one of few uids.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Touch(u8),
    Delete(u8),
    Replay(u8),
    Bookmark,
    /// Objects, one per bit, go or are replaced unseen, then there is a snapshot.
    Missed(u8, bool),
    Snapshot,
    LostEnd,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4u8, 0..3u8).prop_map(|(name, tier)| Step::Put(name, tier)),
        1 => (0..4u8).prop_map(Step::Touch),
        2 => (0..4u8).prop_map(Step::Delete),
        2 => (0..20u8).prop_map(Step::Replay),
        1 => Just(Step::Bookmark),
        1 => (1..16u8, any::<bool>()).prop_map(|(names, again)| Step::Missed(names, again)),
        1 => Just(Step::Snapshot),
        1 => Just(Step::LostEnd),
    ];
    proptest::collection::vec(step, 0..60)
}

/// A cluster that knows its state, tells it to a view in order, and sometimes tells the past.
struct Model {
    now: u64,
    objects: BTreeMap<String, (Identity, String)>,
    told: Vec<(Identity, String)>,
}

impl Model {
    fn next(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn run(&mut self, view: &View, stream: &StreamKey, step: &Step) {
        match step {
            Step::Put(name, tier) => {
                let name = format!("n{name}");
                let at = self.next();
                let known = self.objects.get(&name).map(|(known, _)| known.uid.clone());
                let uid = known.unwrap_or_else(|| format!("uid-{at}"));
                let put = (identity(&name, &uid, at), format!("t{tier}"));
                upsert(view, stream, put.0.clone(), &put.1);
                self.told.push(put.clone());
                self.objects.insert(name, put);
            }
            Step::Touch(name) => {
                let at = self.next();
                if let Some((known, _)) = self.objects.get_mut(&format!("n{name}")) {
                    known.resource_version = version(at);
                    view.touch(stream, known);
                }
            }
            Step::Delete(name) => {
                let at = self.next();
                if let Some((mut known, _)) = self.objects.remove(&format!("n{name}")) {
                    known.resource_version = version(at);
                    view.delete(stream, &known);
                }
            }
            Step::Replay(index) => {
                if let Some((known, tier)) = self.told.get(usize::from(*index)) {
                    upsert(view, stream, known.clone(), tier);
                }
            }
            Step::Bookmark => view.bookmark(stream, version(self.now)),
            Step::Missed(names, again) => {
                for name in (0..4).filter(|name| names >> name & 1 == 1) {
                    self.miss(&format!("n{name}"), *again);
                }
                self.run(view, stream, &Step::Snapshot);
            }
            Step::Snapshot => {
                self.next();
                self.list(view, stream, usize::MAX);
                view.snapshot_end(stream, version(self.now));
            }
            Step::LostEnd => {
                self.list(view, stream, 1);
                self.list(view, stream, usize::MAX);
                view.snapshot_end(stream, version(self.now));
            }
        }
    }

    /// The object goes, and perhaps another takes its place.
    fn miss(&mut self, name: &str, again: bool) {
        let _deleted = self.next();
        if self.objects.remove(name).is_some() && again {
            let at = self.next();
            let new = identity(name, &format!("uid-{at}"), at);
            self.objects.insert(name.to_owned(), (new, "t1".into()));
        }
    }

    fn list(&self, view: &View, stream: &StreamKey, most: usize) {
        view.snapshot_begin(stream);
        for (known, tier) in self.objects.values().take(most) {
            upsert(view, stream, known.clone(), tier);
        }
    }

    fn state(&self, tier: Option<&str>) -> BTreeMap<String, u64> {
        let wanted = self.objects.iter();
        let wanted = wanted.filter(|(_, (_, it))| tier.is_none_or(|tier| it == tier));
        wanted
            .map(|(name, (known, _))| (name.clone(), known.resource_version.0))
            .collect()
    }
}

fn selected(view: &View, selector: &Selector) -> (BTreeMap<String, u64>, ResourceVersion) {
    let listing = view.list(&pods(), None, selector).unwrap();
    let pair = |object: &Arc<Object>| {
        let identity = object.identity();
        (identity.name.clone(), identity.resource_version.0)
    };
    (listing.objects.iter().map(pair).collect(), listing.version)
}

/// Applies what a watcher is told, until it has nothing more to tell; false if it is gone.
fn follow(watcher: &mut Watcher, known: &mut BTreeMap<String, u64>) -> bool {
    loop {
        match watcher.next().now_or_never() {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(event)) => {
                apply(event, known);
            }
        }
    }
}

/// Applies an event; its version.
fn apply(event: Event, known: &mut BTreeMap<String, u64>) -> ResourceVersion {
    match event {
        Event::Added(object) | Event::Modified(object) => {
            let identity = object.identity();
            known.insert(identity.name.clone(), identity.resource_version.0);
            identity.resource_version
        }
        Event::Deleted(object) => {
            known.remove(&object.identity().name);
            object.identity().resource_version
        }
        Event::Bookmark(version) => version,
    }
}

proptest! {
    #[test]
    fn the_view_equals_a_naive_model(steps in steps()) {
        let (view, _) = view();
        let stream = key(Scope::Cluster);
        snapshot(&view, &stream, &[], 1);
        let mut model = Model { now: 1, objects: BTreeMap::new(), told: Vec::new() };
        let mut store = BTreeMap::new();
        for (at, step) in steps.iter().enumerate() {
            model.run(&view, &stream, step);
            let (known, _) = selected(&view, &Selector::default());
            prop_assert_eq!(&known, &model.state(None), "after {:?}", step);
            if at % 7 == 0 {
                for change in view.take_changes() {
                    if change.fate == Fate::Replaced {
                        store.clear();
                    }
                    for (_, name) in change.deletes {
                        store.remove(&name);
                    }
                    for object in change.puts {
                        let identity = object.identity();
                        store.insert(identity.name.clone(), identity.resource_version.0);
                    }
                }
                prop_assert_eq!(&store, &known);
            }
        }
    }

    #[test]
    fn a_list_and_its_watch_are_the_state(before in steps(), after in steps(), breaks in 0..8usize) {
        let (view, _) = view();
        let stream = key(Scope::Cluster);
        snapshot(&view, &stream, &[], 1);
        let mut model = Model { now: 1, objects: BTreeMap::new(), told: Vec::new() };
        for step in &before {
            model.run(&view, &stream, step);
        }
        let selector = Selector::parse(&pods(), "tier=t1", "").unwrap();
        let (mut known, mut from) = selected(&view, &selector);
        let watch = |from| view.watch(&pods(), None, selector.clone(), From::Version(from));
        let mut watcher = watch(from).unwrap();
        for (at, step) in after.iter().enumerate() {
            model.run(&view, &stream, step);
            if at % 8 == breaks {
                if !follow(&mut watcher, &mut known) {
                    (known, from) = selected(&view, &selector);
                    watcher = watch(from).unwrap();
                } else if let Some(seen) = watcher.bookmark().unwrap() {
                    from = seen;
                    watcher = watch(from).unwrap();
                }
                prop_assert_eq!(&known, &model.state(Some("t1")), "after {:?}", step);
            }
        }
    }

    #[test]
    fn a_watch_that_is_cut_after_each_event_tells_the_state(steps in steps()) {
        let (view, _) = view();
        let stream = key(Scope::Cluster);
        snapshot(&view, &stream, &[], 1);
        let mut model = Model { now: 1, objects: BTreeMap::new(), told: Vec::new() };
        let everything = Selector::default;
        let (mut known, mut from) = selected(&view, &everything());
        for step in &steps {
            model.run(&view, &stream, step);
            // Each event at most twice; none would end where it begins.
            for _ in 0..1000 {
                let Ok(mut watcher) = view.watch(&pods(), None, everything(), From::Version(from))
                else {
                    (known, from) = selected(&view, &everything());
                    break;
                };
                let Some(event) = watcher.next().now_or_never() else {
                    break;
                };
                from = apply(event.unwrap(), &mut known);
            }
            prop_assert_eq!(&known, &model.state(None), "after {:?}", step);
        }
    }
}
