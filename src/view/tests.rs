//! What a view promises.

use std::sync::Arc;

use bytes::Bytes;

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
