//! What watchers are told.

use super::*;

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
        ("deleted", "1", 11),
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

#[tokio::test]
async fn a_watch_over_several_streams_goes_on_where_its_last_event_was() {
    let (view, _) = view();
    view.detach(&key(Scope::Cluster));
    let of = |namespace: &str| key(Scope::Namespace(namespace.into()));
    let put = |namespace: &str, at: u64| {
        let mut object = identity("a", namespace, at);
        object.namespace = namespace.into();
        upsert(&view, &of(namespace), object, "web");
    };
    for namespace in ["bank", "shop"] {
        view.attach(&of(namespace), "Pod");
        view.snapshot_begin(&of(namespace));
        view.snapshot_end(&of(namespace), version(10));
    }
    let watch = |from| {
        view.watch(&pods(), None, Selector::default(), from)
            .unwrap()
    };
    let told = |event: Event| match event {
        Event::Added(object) | Event::Modified(object) => object.identity().resource_version.0,
        other => panic!("{other:?}"),
    };
    let mut first = watch(From::Version(version(10)));
    put("bank", 100);
    assert_eq!(told(first.next().await.unwrap()), 100);
    // The other stream is behind: its events are older than the last one that was told.
    put("shop", 60);
    let mut second = watch(From::Version(version(100)));
    assert_eq!(told(second.next().await.unwrap()), 60);
    assert_eq!(second.bookmark().unwrap(), Some(version(60)));
}

#[tokio::test]
async fn a_client_that_knows_more_than_the_view_is_not_told_the_past() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[("a", "1", 5)], 9);
    let from = From::Version(version(20));
    let mut watcher = view
        .watch(&pods(), None, Selector::default(), from)
        .unwrap();
    view.delete(&stream, &identity("a", "1", 15));
    upsert(&view, &stream, identity("a", "2", 21), "web");
    let Event::Added(object) = watcher.next().await.unwrap() else {
        panic!("the deletion was known");
    };
    assert_eq!(object.identity().resource_version, version(21));
}
