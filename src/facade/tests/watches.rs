//! Watches from the view.

use super::*;

/// Reads lines of a watch.
struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    async fn open(world: &World, query: &str) -> Self {
        let target = format!("/accounts/{ID}/api/v1/namespaces/shop/pods?watch=true{query}");
        let response = world.open("GET", &target, &[], String::new()).await;
        assert_eq!(response.status(), 200);
        Self {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }

    /// Type and name (or version, of a bookmark) of the next event; `None` at the end.
    async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                let metadata = &event["object"]["metadata"];
                let shown = match event["type"].as_str().unwrap() {
                    "BOOKMARK" => &metadata["resourceVersion"],
                    "ERROR" => &event["object"]["reason"],
                    _ => &metadata["name"],
                };
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                return Some((text(&event["type"]), text(shown)));
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame());
            let frame = frame.await.expect("an event in time")?;
            self.rest
                .extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }

    async fn expect(&mut self, kind: &str, shown: &str) {
        assert_eq!(self.next().await, Some((kind.to_owned(), shown.to_owned())));
    }
}

#[tokio::test]
async fn a_watch_goes_on_where_a_list_ended() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    world.put_pod("b", 11);
    let mut lines = Lines::open(&world, "&resourceVersion=10").await;
    lines.expect("ADDED", "b").await;
    world.put_pod("a", 12);
    lines.expect("MODIFIED", "a").await;
    world.view.delete(&pods_key(), &identity("shop", "a", 13));
    lines.expect("DELETED", "a").await;
}

#[tokio::test]
async fn a_watch_ends_after_its_time_with_a_bookmark() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    let query = "&resourceVersion=0&allowWatchBookmarks=true&timeoutSeconds=1";
    let mut lines = Lines::open(&world, query).await;
    lines.expect("ADDED", "a").await;
    world.view.bookmark(&pods_key(), ResourceVersion(40));
    lines.expect("BOOKMARK", "40").await;
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn a_watch_ends_with_its_clients_right_to_it() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    let mut lines = Lines::open(&world, "&resourceVersion=0").await;
    lines.expect("ADDED", "a").await;
    tokio::time::pause();
    tokio::time::advance(3 * lasting::LOOK_INTERVAL).await;
    world.put_pod("a", 12);
    lines.expect("MODIFIED", "a").await;
    // The client is bound to `prod` only.
    world.change(|account| account.name = "other".into());
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn a_watch_ends_when_what_it_tells_from_is_too_old() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    world.away();
    let mut lines = Lines::open(&world, "&resourceVersion=0").await;
    lines.expect("ADDED", "a").await;
    tokio::time::pause();
    world.clock.advance(Duration::from_mins(6));
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn a_followed_log_is_cut_with_its_clients_right_to_it() {
    let world = World::start().await;
    world.script(|_| Reply::Endless("line\n"));
    let target = format!("/accounts/{ID}/api/v1/namespaces/shop/pods/a/log?follow=true");
    let response = world.open("GET", &target, &[], String::new()).await;
    let mut body = response.into_body();
    assert_eq!(
        body.frame().await.unwrap().unwrap().data_ref().unwrap(),
        "line\n"
    );
    tokio::time::pause();
    world.change(|account| account.name = "other".into());
    assert!(body.frame().await.unwrap().is_err(), "cut, not ended");
}

#[tokio::test]
async fn initial_events_end_with_their_bookmark() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    let query =
        "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut lines = Lines::open(&world, query).await;
    lines.expect("ADDED", "a").await;
    lines.expect("BOOKMARK", "10").await;
}

#[tokio::test]
async fn a_forgotten_version_is_expired() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    let mut lines = Lines::open(&world, "&resourceVersion=3").await;
    lines.expect("ERROR", "Expired").await;
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn what_enters_or_leaves_a_selector_is_added_or_deleted() {
    let world = World::start().await;
    world.know_pods(&["a"]);
    let mut lines = Lines::open(
        &world,
        "&resourceVersion=10&fieldSelector=metadata.name%3Db",
    )
    .await;
    world.put_pod("c", 11);
    world.put_pod("b", 12);
    lines.expect("ADDED", "b").await;
}
