//! The API double: what it serves, how fast, and how it fails.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::double::{Change, Double, Fault, Settings, Trick};
use crate::support::kubectl::Kubectl;

const PODS: &str = "/api/v1/pods";

#[tokio::test]
async fn a_released_kubectl_lists_and_reads_the_doubles_pods() {
    let double = Double::start(Settings::default());
    let kubectl = Kubectl::pinned(33, &double.write_kubeconfig());
    let names = kubectl.ok(&["get", "pods", "-A", "-o", "name"]).await;
    assert_eq!(names.lines().count(), 100);
    let arguments = ["get", "pod", "-n", "ns-3", "pods-000007", "-o", "json"];
    let pod = kubectl.ok(&arguments).await;
    let pod: Value = serde_json::from_str(&pod).unwrap();
    assert_eq!(
        pod["metadata"]["uid"],
        "00000001-0000-4000-8000-000000000007"
    );
}

#[tokio::test]
async fn objects_have_their_size_and_pages_their_limit() {
    let double = Double::start(Settings {
        bytes: 10_000,
        ..Settings::default()
    });
    let api = double.api();
    let page = api.get(&format!("{PODS}?limit=30")).await;
    assert_eq!(page["items"].as_array().unwrap().len(), 30);
    let next = page["metadata"]["continue"].as_str().unwrap();
    let rest = api.items(&format!("{PODS}?continue={next}")).await;
    assert_eq!(rest.len(), 70);
    let pod = api
        .ask(
            Method::GET,
            "/api/v1/namespaces/ns-0/pods/pods-000000",
            None,
        )
        .await;
    assert!(
        (9_900..10_400).contains(&pod.body.len()),
        "{}",
        pod.body.len()
    );
    assert_eq!(double.count("list", "pods"), 2);
}

#[tokio::test]
async fn two_thousand_events_a_second_of_ten_kilobytes_arrive_in_order() {
    const RATE: u64 = 2_000;
    const EVENTS: u64 = 2 * RATE;
    let double = Double::start(Settings::default());
    let mut watch = double
        .api()
        .watch(&format!("{PODS}?watch=1&resourceVersion=1"))
        .await;
    let start = Instant::now();
    double.drive("pods", RATE);
    let mut newest = 1;
    for _ in 0..EVENTS {
        let line = watch.next_line().await.unwrap();
        assert!(line.len() > 9_900, "{}", line.len());
        newest += 1;
        let mark = format!("\"resourceVersion\":\"{newest}\"");
        assert!(
            memchr::memmem::find(&line, mark.as_bytes()).is_some(),
            "{newest}"
        );
    }
    let rate = f64::from(u32::try_from(EVENTS).unwrap()) / start.elapsed().as_secs_f64();
    assert!(double.emitted() >= EVENTS, "{}", double.emitted());
    println!("{rate:.0} events a second");
}

#[tokio::test]
async fn initial_events_end_with_their_bookmark() {
    let double = Double::start(Settings::default());
    let query =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = double.api().watch(&format!("{PODS}?{query}")).await;
    let mut uids = BTreeSet::new();
    for _ in 0..100 {
        let event = watch.next().await.unwrap();
        assert_eq!(event["type"], "ADDED");
        uids.insert(event["object"]["metadata"]["uid"].to_string());
    }
    assert_eq!(uids.len(), 100);
    let end = watch.next().await.unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(
        end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test]
async fn a_dropped_event_is_missing_and_a_doubled_one_comes_twice() {
    let double = Double::start(Settings::default());
    let mut watch = double
        .api()
        .watch(&format!("{PODS}?watch=1&resourceVersion=1"))
        .await;
    double.trick("pods", Trick::Drop);
    double.change("pods", 0, Change::Modified);
    double.trick("pods", Trick::Duplicate);
    let doubled = double.change("pods", 1, Change::Deleted);
    for _ in 0..2 {
        let event = watch.next().await.unwrap();
        assert_eq!(event["type"], "DELETED");
        let version = &event["object"]["metadata"]["resourceVersion"];
        assert_eq!(version, &doubled.to_string());
    }
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_is_expired() {
    let double = Double::start(Settings::default());
    double.change("pods", 0, Change::Modified);
    double.compact();
    let mut watch = double
        .api()
        .watch(&format!("{PODS}?watch=1&resourceVersion=1"))
        .await;
    let event = watch.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&"ERROR".into(), &410.into())
    );
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn closed_watches_end_and_frozen_ones_stay_silent() {
    let double = Double::start(Settings::default());
    let mut watch = double
        .api()
        .watch(&format!("{PODS}?watch=1&resourceVersion=1"))
        .await;
    double.freeze(true);
    double.change("pods", 0, Change::Modified);
    let silence = tokio::time::timeout(Duration::from_millis(200), watch.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    double.freeze(false);
    assert_eq!(watch.next().await.unwrap()["type"], "MODIFIED");
    double.close_watches();
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn every_fault_is_seen_by_a_client() {
    let double = Double::start(Settings::default());
    let api = double.api();
    for code in [401, 403, 410, 429, 500, 503] {
        double.fault("/api/v1/pods", Fault::Status(code));
        let answer = api.ask(Method::GET, PODS, None).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["code"]),
            (code, &code.into())
        );
        double.heal();
    }
    double.fault("/api", Fault::Garbage);
    let garbage = api.ask(Method::GET, PODS, None).await;
    assert!(serde_json::from_slice::<Value>(&garbage.body).is_err());
    double.heal();
    double.fault("/api", Fault::Huge(100_000_000));
    let huge = api.ask(Method::GET, PODS, None).await;
    assert!(huge.body.len() > 100_000_000);
    assert_eq!(huge.body.last(), Some(&b'}'));
    double.heal();
    double.fault("/api", Fault::Hang);
    let asked = api.ask(Method::GET, PODS, None);
    assert!(
        tokio::time::timeout(Duration::from_millis(200), asked)
            .await
            .is_err()
    );
    double.heal();
    assert_eq!(api.items(PODS).await.len(), 100);
}

#[tokio::test]
async fn a_followed_log_has_no_end() {
    let double = Double::start(Settings::default());
    let path = "/api/v1/namespaces/ns-0/pods/pods-000000/log?follow=true";
    let mut log = double.api().watch(path).await;
    for _ in 0..10_000 {
        assert!(log.next_line().await.is_some());
    }
    assert_eq!(double.count("log", "pods"), 1);
}
