//! What a view promises.

mod budget;
mod fences;
mod model;
mod selectors;
mod watchers;

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

#[tokio::test]
async fn a_watch_from_the_first_snapshots_version_repeats_nothing_of_it() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(
        &view,
        &stream,
        &[("a", "1", 5), ("b", "2", 6), ("c", "3", 7)],
        9,
    );
    let from = From::Version(
        view.list(&pods(), None, &Selector::default())
            .unwrap()
            .version,
    );
    let everything = Selector::default();
    let mut watcher = view.watch(&pods(), None, everything, from).unwrap();
    view.touch(&stream, &identity("b", "2", 10));
    let Ok(Event::Modified(object)) = watcher.next().await else {
        panic!("the first event is the one after the list");
    };
    assert_eq!(object.identity().resource_version, version(10));
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
fn a_snapshot_that_grows_beyond_the_budget_is_given_up_and_the_next_may_fit() {
    let clock = Arc::new(ManualClock::new(from_unix_seconds(0)));
    let view = Arc::new(View::with_budget(clock, 3000));
    let stream = key(Scope::Cluster);
    view.attach(&stream, "Pod");
    view.snapshot_begin(&stream);
    for at in 0..20 {
        let name = format!("p{at}");
        upsert(&view, &stream, identity(&name, &name, 10 + at), "web");
    }
    let end = view.snapshot_end(&stream, version(40));
    assert_eq!(end, SnapshotEnd::OverBudget);
    snapshot(&view, &stream, &[("a", "1", 50)], 60);
    assert_eq!(names(&view).len(), 1);
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
fn an_object_whose_fields_have_another_type_is_not_selected_by_them() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[], 9);
    let json = Bytes::from_static(br#"{"metadata":{"resourceVersion":"11"},"spec":null}"#);
    view.upsert(&stream, identity("odd", "odd", 11), json, 32, 2, false);
    let object = view.get(&pods(), "shop", "odd").unwrap();
    assert!(!object.is_opaque());
    assert_eq!(object.field("spec.nodeName"), Some(""));
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
    again.attach(&stream, "Pod");
    assert_eq!(again.age(&pods(), None), Ok(Duration::from_mins(1)));
    again.bookmark(&stream, version(40));
    assert_eq!(again.age(&pods(), None), Ok(Duration::ZERO));
    again.detach(&stream);
    assert_eq!(again.take_changes()[0].fate, Fate::Gone);
}
