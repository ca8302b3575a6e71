//! When a view has seen every write.

use super::*;

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

#[tokio::test(start_paused = true)]
async fn a_list_settles_no_fence_that_was_set_while_it_was_on_its_way() {
    let (view, _) = view();
    let stream = key(Scope::Cluster);
    snapshot(&view, &stream, &[("a", "1", 5)], 9);
    view.fence_collection(&pods(), Some("shop"));
    let fences = view.collection_fences(&pods());
    view.fence_collection(&pods(), Some("shop"));
    view.collection_seen(&pods(), Some("shop"), version(9), fences);
    assert!(!is_settled(&view).await);
    let fences = view.collection_fences(&pods());
    view.collection_seen(&pods(), Some("shop"), version(9), fences);
    assert!(is_settled(&view).await);
}
