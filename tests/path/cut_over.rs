//! A kubeconfig that changes in its engine while fifty watches run: nothing is listed again, nothing
//! is lost, nothing is left of the one before, and a new one that does not work changes nothing.

use std::time::Duration;

use crate::support::cut_over::{CutOver, Sort, added, config_map};
use crate::support::eventually::eventually_async;
use crate::support::fake::Client;
use crate::support::kube::Api;

/// Kubeconfigs that follow one another in the short form, as soon as the one before is in use.
const ROTATIONS: usize = 6;

/// The same in the long form, and how often.
const LONG_ROTATIONS: usize = 30;
const LONG_EVERY: Duration = Duration::from_secs(10);

/// Watches through the hub that are never opened again: half of a kind that the hub holds, half of
/// one that it asks the agent for, whose watches have a connection to the API server each.
const WATCHES: usize = 50;

/// `count` kubeconfigs, one each `every`, under fifty watches through the hub and one beside it.
async fn rotations(sort: Sort, count: usize, every: Duration) {
    let (cut_over, mut before) = CutOver::start(sort, "").await;
    let client = Client::read(&cut_over.stand.kubeconfig("shop", "watcher").await);
    let mut watches = Vec::new();
    for path in [cut_over.objects(), cut_over.services()] {
        let path = format!("{path}?watch=1");
        watches.push(cut_over.api.watch(&path).await);
        for _ in 0..WATCHES / 2 {
            let path = format!("{}{path}", client.path);
            watches.push(Api::of(client.https()).watch(&path).await);
        }
    }
    let lists = cut_over.testbed.lists();
    let mut written = Vec::new();
    for _ in 0..count {
        let next = cut_over.next(sort).await;
        let told = written.len();
        cut_over.rotate(&next, &before, every, &mut written).await;
        before = next;
        for watch in &mut watches {
            let seen = added(watch, written.len() - told).await;
            assert_eq!(seen, written[told..], "each once, in order");
        }
    }
    println!(
        "{sort:?}: {count} rotations, {} objects, {WATCHES} watches",
        written.len()
    );
    assert_eq!(cut_over.testbed.lists(), lists);
    let log = cut_over.stand.agent.log();
    let uses = |outcome: &str| {
        log.entries()
            .filter(|entry| entry.text("action") == Some("credential-use"))
            .filter(|entry| entry.text("outcome") == Some(outcome))
            .count()
    };
    assert_eq!((uses("first"), uses("cut-over")), (1, count));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_changes_under_fifty_watches_costs_no_list_and_no_event() {
    rotations(Sort::Token, ROTATIONS, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_changes_under_fifty_watches_costs_no_list_and_no_event() {
    rotations(Sort::Certificate, ROTATIONS, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes: `.ci/soak rotations` runs it"]
async fn tokens_and_client_certificates_change_every_ten_seconds_for_five_minutes() {
    rotations(Sort::Token, LONG_ROTATIONS, LONG_EVERY).await;
    rotations(Sort::Certificate, LONG_ROTATIONS, LONG_EVERY).await;
}

#[tokio::test]
async fn a_new_kubeconfig_that_does_not_work_is_told_and_the_one_before_stays() {
    let (cut_over, _first) = CutOver::start(Sort::Token, "").await;
    let client = Client::read(&cut_over.stand.kubeconfig("shop", "writer").await);
    let lists = cut_over.testbed.lists();
    let good = cut_over.next(Sort::Token).await.kubeconfig;
    let broken = good.replace("\"token\":\"", "\"token\":\"not-");
    let version = cut_over.put(&broken).await;
    let row = eventually_async("the new token is refused", async || {
        let row = cut_over.stand.account("shop").await;
        assert_eq!(row["state"], "ACTIVE", "{row}");
        (row["reason"] == "CredentialRejected").then_some(row)
    })
    .await;
    let message = row["message"].as_str().unwrap_or_default();
    assert!(message.contains("the one before stays in use"), "{row}");
    let told = row["credential"]["version"].as_str().unwrap_or_default();
    assert!(told.starts_with(&version), "{row}");
    let facade = Api::of(client.https());
    let path = format!("{}{}", client.path, cut_over.objects());
    for number in 0..20 {
        facade
            .create(&path, &config_map(&format!("w-{number}")))
            .await;
    }
    assert_eq!(cut_over.testbed.lists(), lists);
    cut_over.put(&good).await;
    eventually_async("the account is well again", async || {
        let row = cut_over.stand.account("shop").await;
        (row["state"] == "ACTIVE" && row["reason"] == "").then_some(())
    })
    .await;
}
