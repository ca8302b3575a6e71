//! What a view promises.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::clock::{ManualClock, from_unix_seconds};
use crate::resource::{Identity, ResourceVersion};

fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

fn key(scope: Scope) -> StreamKey {
    StreamKey { gvr: pods(), scope }
}

fn version(version: u64) -> ResourceVersion {
    ResourceVersion(version)
}

fn identity(name: &str, uid: &str, at: u64) -> Identity {
    Identity {
        namespace: "shop".into(),
        name: name.into(),
        uid: uid.into(),
        resource_version: version(at),
    }
}

/// A pod with a label `tier`, as a list gives it (without its kind).
fn json(identity: &Identity, tier: &str) -> (Bytes, u32, u32) {
    let before = format!(
        r#"{{"metadata":{{"name":"{}","namespace":"{}","labels":{{"tier":"{tier}"}},"resourceVersion":""#,
        identity.name, identity.namespace
    );
    let digits = identity.resource_version.to_string();
    let text = format!("{before}{digits}\"}},\"spec\":{{\"nodeName\":\"n1\"}}}}");
    let narrow = |value: usize| u32::try_from(value).unwrap();
    (
        Bytes::from(text),
        narrow(before.len()),
        narrow(digits.len()),
    )
}

fn upsert(view: &View, key: &StreamKey, identity: Identity, tier: &str) -> Applied {
    let (json, at, length) = json(&identity, tier);
    view.upsert(key, identity, json, at, length, false)
}

fn snapshot(view: &View, key: &StreamKey, objects: &[(&str, &str, u64)], at: u64) {
    view.snapshot_begin(key);
    for (name, uid, at) in objects {
        upsert(view, key, identity(name, uid, *at), "web");
    }
    view.snapshot_end(key, version(at));
}

fn view() -> (Arc<View>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(from_unix_seconds(1_000_000)));
    let view = Arc::new(View::new(Arc::clone(&clock) as SharedClock));
    view.attach(&key(Scope::Cluster), "Pod");
    (view, clock)
}

fn names(view: &View) -> Vec<(String, u64)> {
    let listing = view.list(&pods(), None, &Selector::default()).unwrap();
    let name = |object: &Arc<Object>| {
        let identity = object.identity();
        (identity.name.clone(), identity.resource_version.0)
    };
    listing.objects.iter().map(name).collect()
}

#[test]
fn a_kind_is_unavailable_until_its_first_whole_snapshot() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    let list = |view: &View| view.list(&pods(), None, &Selector::default());
    assert_eq!(list(&view).unwrap_err(), Unavailable::NotComplete);
    view.snapshot_begin(&stream);
    upsert(&view, &stream, identity("a", "1", 5), "web");
    assert_eq!(list(&view).unwrap_err(), Unavailable::NotComplete);
    assert_eq!(view.snapshot_end(&stream, version(9)), SnapshotEnd::Applied);
    assert_eq!(list(&view).unwrap().version, version(9));
    assert_eq!(names(&view), [("a".to_owned(), 5)]);
    assert!(view.complete(&stream));
}

#[test]
fn a_touch_changes_the_version_and_shares_the_bytes() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[("a", "1", 99)], 99);
    assert_eq!(
        view.touch(&stream, &identity("a", "1", 1000)),
        Applied::Changed
    );
    assert_eq!(
        view.touch(&stream, &identity("a", "1", 1000)),
        Applied::Ignored
    );
    let object = view.get(&pods(), "shop", "a").unwrap();
    let parsed: serde_json::Value = serde_json::from_slice(&object.json()).unwrap();
    assert_eq!(parsed["metadata"]["resourceVersion"], "1000");
    assert_eq!(
        (&parsed["kind"], &parsed["apiVersion"]),
        (&"Pod".into(), &"v1".into())
    );
    assert_eq!(parsed["spec"]["nodeName"], "n1");
    let (at, length) = object.version_place();
    let again = Object::new(
        &pods(),
        "Pod",
        object.identity().clone(),
        object.json(),
        at,
        length,
        false,
    );
    assert!(!again.is_opaque());
    assert_eq!(view.totals().ignored, 1);
}

#[test]
fn during_a_snapshot_the_old_state_is_served() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[("a", "1", 5), ("b", "2", 6)], 9);
    view.snapshot_begin(&stream);
    upsert(&view, &stream, identity("a", "1", 12), "web");
    upsert(&view, &stream, identity("c", "3", 11), "web");
    let old = [("a".to_owned(), 5), ("b".to_owned(), 6)];
    assert_eq!(names(&view), old);
    assert_eq!(view.version(&stream), Some(version(9)));
    view.snapshot_end(&stream, version(20));
    assert_eq!(names(&view), [("a".to_owned(), 12), ("c".to_owned(), 11)]);
    assert_eq!(view.version(&stream), Some(version(20)));
}

#[test]
fn a_lost_end_never_deletes() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[("a", "1", 5), ("b", "2", 6)], 9);
    view.snapshot_begin(&stream);
    upsert(&view, &stream, identity("a", "1", 5), "web");
    view.attach(&stream, "Pod");
    view.snapshot_begin(&stream);
    upsert(&view, &stream, identity("b", "2", 6), "web");
    upsert(&view, &stream, identity("a", "1", 5), "web");
    view.snapshot_end(&stream, version(30));
    assert_eq!(names(&view).len(), 2);
    assert_eq!(
        view.snapshot_end(&stream, version(31)),
        SnapshotEnd::NotBegun
    );
    assert_eq!(names(&view).len(), 2);
}

#[test]
fn a_snapshot_older_than_the_state_changes_nothing() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[("a", "1", 5)], 9);
    upsert(&view, &stream, identity("b", "2", 12), "web");
    view.snapshot_begin(&stream);
    upsert(&view, &stream, identity("a", "1", 5), "web");
    assert_eq!(view.snapshot_end(&stream, version(10)), SnapshotEnd::Older);
    assert_eq!(names(&view).len(), 2);
}

#[test]
fn events_of_the_past_are_ignored() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[("a", "1", 5)], 9);
    for (event, why) in [
        (upsert(&view, &stream, identity("a", "1", 5), "x"), "known"),
        (upsert(&view, &stream, identity("a", "1", 4), "x"), "older"),
        (
            upsert(&view, &stream, identity("a", "0", 3), "x"),
            "a predecessor",
        ),
        (
            upsert(&view, &stream, identity("b", "2", 7), "x"),
            "gone since",
        ),
        (view.delete(&stream, &identity("a", "0", 8)), "another uid"),
        (view.delete(&stream, &identity("a", "1", 4)), "older"),
        (view.touch(&stream, &identity("a", "2", 12)), "another uid"),
    ] {
        assert_eq!(event, Applied::Ignored, "{why}");
    }
    assert_eq!(names(&view), [("a".to_owned(), 5)]);
    assert_eq!(view.totals().ignored, 7);
}

#[test]
fn what_cannot_be_read_is_reduced_to_its_identity() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[], 9);
    let put = |name: &str, at: u64, json: &'static [u8], opaque: bool| {
        let json = Bytes::from_static(json);
        view.upsert(&stream, identity(name, name, at), json, 1, 2, opaque);
        let object = view.get(&pods(), "shop", name).unwrap();
        let parsed: serde_json::Value = serde_json::from_slice(&object.json()).unwrap();
        assert!(object.is_opaque());
        assert_eq!(parsed["metadata"]["name"], name);
        assert_eq!(parsed["metadata"]["resourceVersion"], at.to_string());
    };
    put("opaque", 11, b"", true);
    put("no-version", 12, b"{}", false);
    put("not-json", 13, b"\"13\"", false);
    view.touch(&stream, &identity("opaque", "opaque", 20));
    assert_eq!(view.version(&stream), Some(version(20)));
}

#[test]
fn a_kind_that_does_not_fit_is_unavailable_and_comes_back_with_a_snapshot() {
    let clock = Arc::new(ManualClock::new(from_unix_seconds(0)));
    let view = Arc::new(View::with_budget(clock, 3000));
    let stream = key(Scope::Cluster);
    view.attach(&stream, "Pod");
    snapshot(&view, &stream, &[("a", "1", 5)], 9);
    for at in 0..20 {
        let name = format!("p{at}");
        upsert(&view, &stream, identity(&name, &name, 10 + at), "web");
    }
    let list = || view.list(&pods(), None, &Selector::default());
    assert_eq!(list().unwrap_err(), Unavailable::OverBudget);
    assert_eq!((view.totals().bytes, view.totals().over_budget), (0, 1));
    snapshot(&view, &stream, &[("a", "1", 50)], 60);
    assert_eq!(list().unwrap().objects.len(), 1);
}

#[test]
fn the_version_of_several_streams_is_the_lowest() {
    let (view, clock) = view();
    view.detach(&key(Scope::Cluster));
    let of = |namespace: &str| key(Scope::Namespace(namespace.into()));
    for (namespace, at) in [("bank", 50), ("shop", 40)] {
        view.attach(&of(namespace), "Pod");
        view.snapshot_begin(&of(namespace));
        let mut object = identity("a", namespace, 5);
        object.namespace = namespace.into();
        upsert(&view, &of(namespace), object, "web");
        view.snapshot_end(&of(namespace), version(at));
    }
    let list = |namespace| view.list(&pods(), namespace, &Selector::default());
    assert_eq!(list(None).unwrap().version, version(40));
    assert_eq!(list(Some("bank")).unwrap().version, version(50));
    assert_eq!(list(Some("other")).unwrap_err(), Unavailable::NotWatched);
    view.interrupted(&of("shop"));
    clock.advance(Duration::from_secs(7));
    assert_eq!(list(None).unwrap().age, Duration::from_secs(7));
    assert_eq!(list(Some("bank")).unwrap().age, Duration::ZERO);
    view.resumed(&of("shop"));
    assert_eq!(list(None).unwrap().age, Duration::ZERO);
}

#[test]
fn selectors_are_read_as_the_api_server_reads_them() {
    let object = |labels: &str| {
        let json = format!(r#"{{"metadata":{{"labels":{labels},"resourceVersion":"5"}}}}"#);
        let at = u32::try_from(json.find('5').unwrap()).unwrap();
        let identity = identity("a", "1", 5);
        Object::new(&pods(), "Pod", identity, json.into(), at, 1, false)
    };
    let web = object(r#"{"tier":"web","t":"rs","example.com/x":""}"#);
    let bare = object("{}");
    for (text, selects_web, selects_bare) in [
        ("", true, true),
        ("t = rs", true, false),
        ("t==rs", true, false),
        (" t = rs , tier=web ", true, false),
        ("t!=rs", false, true),
        ("tier in (web, db)", true, false),
        ("tier in (web,db),t notin (x)", true, false),
        ("tier notin (web,db)", false, true),
        ("tier", true, false),
        ("!tier", false, true),
        ("! tier", false, true),
        ("example.com/x=", true, false),
        ("nope = x", false, false),
    ] {
        let selector = Selector::parse(&pods(), text, "").unwrap();
        assert_eq!(selector.matches(&web), selects_web, "{text} on web");
        assert_eq!(selector.matches(&bare), selects_bare, "{text} on bare");
    }
    for text in [
        "=", "a b", "a in x", "a in (x", "a in x)", "a (x)", "a,,b", "a=b=c", "a=b c",
    ] {
        assert!(Selector::parse(&pods(), text, "").is_err(), "{text}");
    }
    let fields = |text: &str| Selector::parse(&pods(), "", text);
    assert!(fields("metadata.name = a").unwrap().matches(&bare));
    assert!(!fields("metadata.name!=a").unwrap().matches(&bare));
    assert!(
        fields("metadata.namespace==shop,status.phase=")
            .unwrap()
            .matches(&bare)
    );
    let unsupported = fields("involvedObject.name=x").unwrap_err();
    assert_eq!(
        unsupported.to_string(),
        "field label not supported: involvedObject.name"
    );
}

/// Fences are about time as well; the clock of tokio stands still unless it is waited for.
async fn is_settled(view: &View) -> bool {
    let settled = view.settled(&pods(), Some("shop"), Duration::ZERO).await;
    settled == Settled::Yes
}

#[tokio::test(start_paused = true)]
async fn a_fence_is_passed_by_its_version() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[("a", "1", 5)], 9);
    assert!(is_settled(&view).await);
    view.fence(&pods(), Some("shop"), version(20));
    assert!(!is_settled(&view).await);
    let other = view.settled(&pods(), Some("other"), Duration::ZERO).await;
    assert_eq!(other, Settled::Yes);
    let every = view.settled(&pods(), None, Duration::ZERO).await;
    assert_eq!(every, Settled::NotYet);
    let gvr = pods();
    let settles = view.settled(&gvr, None, Duration::from_secs(1));
    let (settled, ()) = tokio::join!(settles, async { view.bookmark(&stream, version(20)) });
    assert_eq!(settled, Settled::Yes);
    view.mark(&stream, version(30));
    assert!(!is_settled(&view).await);
    view.bookmark(&stream, version(31));
    assert!(is_settled(&view).await);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_settled_when_its_object_is_gone_or_terminating() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[("a", "1", 5)], 9);
    view.fence(&pods(), Some("shop"), version(12));
    view.fence_delete(&pods(), Some("shop"), "b", "2");
    upsert(&view, &stream, identity("b", "2", 12), "web");
    assert!(!is_settled(&view).await, "created, and not yet deleted");
    view.delete(&stream, &identity("b", "2", 13));
    assert!(is_settled(&view).await);

    view.fence_delete(&pods(), Some("shop"), "a", "1");
    assert!(!is_settled(&view).await);
    let json =
        r#"{"metadata":{"deletionTimestamp":"2020-01-01T00:00:00Z","resourceVersion":"14"}}"#;
    let at = u32::try_from(json.find("14").unwrap()).unwrap();
    view.upsert(&stream, identity("a", "1", 14), json.into(), at, 2, false);
    assert!(is_settled(&view).await);
    view.fence_delete(&pods(), Some("shop"), "a", "0");
    assert!(is_settled(&view).await, "that one is gone");
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_nothing_passes_ends_some_time() {
    let (view, _) = view();
    snapshot(&view, &key(Scope::Cluster), &[("a", "1", 5)], 9);
    view.fence_delete(&pods(), Some("shop"), "a", "1");
    view.fence_collection(&pods(), Some("shop"));
    assert!(!is_settled(&view).await);
    tokio::time::advance(FENCE_LIFETIME).await;
    assert!(is_settled(&view).await);
}

#[tokio::test]
async fn a_watcher_sees_objects_enter_and_leave_its_selector() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[("a", "1", 5)], 9);
    let selector = Selector::parse(&pods(), "tier=web", "").unwrap();
    let from = From::Version(version(9));
    let mut watcher = view.watch(&pods(), Some("shop"), selector, from).unwrap();
    upsert(&view, &stream, identity("a", "1", 10), "db");
    upsert(&view, &stream, identity("a", "1", 11), "web");
    upsert(&view, &stream, identity("a", "9", 12), "web");
    view.touch(&stream, &identity("a", "9", 13));
    let mut seen = Vec::new();
    for _ in 0..5 {
        let event = watcher.next().await.unwrap();
        let (kind, object) = match &event {
            Event::Added(object) => ("added", object),
            Event::Modified(object) => ("modified", object),
            Event::Deleted(object) => ("deleted", object),
            Event::Bookmark(_) => panic!("no bookmark"),
        };
        seen.push((
            kind,
            object.identity().uid.clone(),
            object.identity().resource_version.0,
        ));
    }
    let expected = [
        ("deleted", "1", 10),
        ("added", "1", 11),
        ("deleted", "1", 12),
        ("added", "9", 12),
        ("modified", "9", 13),
    ];
    assert_eq!(
        seen,
        expected.map(|(kind, uid, at)| (kind, uid.to_owned(), at))
    );
    assert_eq!(watcher.bookmark().unwrap(), Some(version(13)));
}

#[tokio::test]
async fn a_watcher_that_is_left_behind_is_told() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[("a", "1", 5)], 9);
    let watch = |from| view.watch(&pods(), None, Selector::default(), from);
    let mut slow = watch(From::Now).unwrap();
    assert_eq!(
        watch(From::Version(version(8))).unwrap_err(),
        WatchError::Gone
    );
    for at in 0..=HISTORY_EVENTS as u64 {
        upsert(&view, &stream, identity("a", "1", 10 + at), "web");
    }
    assert_eq!(slow.next().await.unwrap_err(), WatchError::Gone);
    assert_eq!(
        watch(From::Version(version(9))).unwrap_err(),
        WatchError::Gone
    );
    assert!(watch(From::Version(version(10))).is_ok());
    let mut idle = watch(From::Now).unwrap();
    view.detach(&stream);
    view.attach(&stream, "Pod");
    assert_eq!(idle.next().await.unwrap_err(), WatchError::Gone);
}

#[test]
fn a_store_that_follows_the_changes_has_the_state() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[("a", "1", 5), ("b", "2", 6)], 9);
    let first = view.take_changes();
    assert_eq!((first[0].fate, first[0].puts.len()), (Fate::Replaced, 2));
    view.delete(&stream, &identity("b", "2", 12));
    upsert(&view, &stream, identity("c", "3", 13), "web");
    assert!(view.changed_bytes() > 0);
    let second = view.take_changes();
    assert_eq!(
        (second[0].fate, second[0].version),
        (Fate::Kept, version(13))
    );
    assert_eq!(second[0].deletes, [("shop".to_owned(), "b".to_owned())]);
    assert_eq!(second[0].puts[0].identity().name, "c");
    assert!(view.take_changes().is_empty());
    view.untake_changes(second);
    assert_eq!(view.take_changes()[0].puts.len(), 1);
    view.bookmark(&stream, version(40));
    assert_eq!(view.take_changes()[0].version, version(40));

    let clock = ManualClock::new(from_unix_seconds(1_000_060));
    let again = View::new(Arc::new(clock));
    let listing = view.list(&pods(), None, &Selector::default()).unwrap();
    let stored = listing.objects.iter().map(|object| Object::clone(object));
    let at = from_unix_seconds(1_000_000);
    again.restore(&stream, "Pod", stored.collect(), version(40), true, at);
    assert_eq!(names(&again), names(&view));
    assert_eq!(again.age(&pods(), None), Ok(Duration::from_mins(1)));
    assert!(again.take_changes().is_empty());
    again.detach(&stream);
    assert_eq!(again.take_changes()[0].fate, Fate::Gone);
}

/// What the random streams do: one of few names, under one of few uids.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Touch(u8),
    Delete(u8),
    Replay(u8),
    Bookmark,
    /// The object is replaced unseen, then there is a snapshot.
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
        1 => (0..4u8, any::<bool>()).prop_map(|(name, again)| Step::Missed(name, again)),
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
            Step::Missed(name, again) => {
                let name = format!("n{name}");
                let at = self.next();
                self.objects.remove(&name);
                if *again {
                    let new = identity(&name, &format!("uid-{at}"), at);
                    self.objects.insert(name, (new, "t1".into()));
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
    use futures_util::FutureExt as _;
    loop {
        let Some(event) = watcher.next().now_or_never() else {
            return true;
        };
        match event {
            Err(_) => return false,
            Ok(Event::Added(object) | Event::Modified(object)) => {
                let identity = object.identity();
                known.insert(identity.name.clone(), identity.resource_version.0);
            }
            Ok(Event::Deleted(object)) => {
                known.remove(&object.identity().name);
            }
            Ok(Event::Bookmark(_)) => {}
        }
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
    fn reading_a_selector_never_panics(text in ".{0,40}") {
        let _either_way = Selector::parse(&pods(), &text, &text);
    }
}
