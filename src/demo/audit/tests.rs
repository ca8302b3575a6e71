//! The auditor against an honest facade (the cluster itself) and against broken ones.

use std::sync::Arc;
use std::time::Duration;

use super::{
    AGENT, Canaries, Collection, Context, Observer, Plant, Reader, ReferenceFilter, Report,
    Snapshot, StateHashes,
};
use crate::clock;
use crate::demo::Seeded;
use crate::demo::cluster::{Cluster, Settings};
use crate::entropy::SharedEntropy;
use crate::resource::{Gvr, Scope};
use crate::tasks::Tasks;
use secrecy::ExposeSecret as _;

const PATIENCE: Duration = Duration::from_secs(30);

struct Side {
    cluster: Cluster,
    endpoint: super::Endpoint,
    reader: Reader,
}

fn entropy(seed: u64) -> SharedEntropy {
    Arc::new(Seeded::new(seed))
}

async fn side(seed: u64, events_per_second: u32, tasks: &Tasks) -> Side {
    let settings = Settings {
        events_per_second,
        secrets: 6,
        ..Settings::new(entropy(seed), clock::system())
    };
    let (cluster, running) = Cluster::start(settings, tasks).await.expect("starts");
    #[expect(clippy::disallowed_methods, reason = "the kubeconfig is parsed")]
    let text = String::from_utf8(running.kubeconfig_yaml.expose_secret().to_vec());
    let context = Context::read(&text.expect("text"), None).expect("reads");
    let reader = Reader::new(&context.endpoint, tasks).expect("valid endpoint");
    Side {
        cluster,
        endpoint: context.endpoint,
        reader,
    }
}

fn collections() -> Vec<Collection> {
    let collection = |group: &str, resource: &str, kind: &str| Collection {
        gvr: Gvr::new(group, "v1", resource),
        kind: kind.into(),
        scope: Scope::Cluster,
    };
    vec![
        collection("", "pods", "Pod"),
        collection("", "secrets", "Secret"),
        collection("apps", "deployments", "Deployment"),
    ]
}

fn filter() -> ReferenceFilter {
    ReferenceFilter {
        mask: "masked:v1".into(),
        annotations: Vec::new(),
        masked_kinds: vec!["Secret".into()],
    }
}

/// Watches both sides until `events` have been seen, holds the workload, waits for silence.
async fn observe(cluster: &Side, facade: &Side, events: u64, tasks: &Tasks) -> Report {
    let (one, two) = (&cluster.reader, &facade.reader);
    let random = entropy(9);
    let observer = Observer::start(one, two, &collections(), &random, tasks).await;
    let observer = observer.expect("both sides answer");
    let enough = async {
        let mut pauses = tokio::time::interval(Duration::from_millis(20));
        while observer.figures(0, 0).sent < events {
            pauses.tick().await;
        }
        cluster.cluster.hold();
        facade.cluster.hold();
        assert!(observer.quiet(&tasks.stop()).await);
    };
    tokio::time::timeout(PATIENCE, enough)
        .await
        .expect("events and then silence");
    assert!(!observer.overflowed());
    let hash = async |reader: &Reader| {
        let snapshot = Snapshot::read(reader, &collections()).await.expect("lists");
        snapshot.hash(None)
    };
    Report {
        events: observer.figures(0, cluster.cluster.relists(AGENT)),
        lag_ms: observer.lag(),
        state_hash: StateHashes {
            cluster: hash(one).await,
            view: hash(two).await,
        },
        ..Report::default()
    }
}

#[tokio::test]
async fn an_honest_facade_loses_and_doubles_nothing_under_load() {
    let tasks = Tasks::new();
    let honest = side(1, 200, &tasks).await;
    let report = observe(&honest, &honest, 150, &tasks).await;
    assert!(report.events.applied > 0);
    assert_eq!(report.events.sent, report.events.applied);
    assert_eq!((report.events.lost, report.events.duplicated), (0, 0));
    assert_eq!(report.events.relists, 0);
    assert_eq!(report.state_hash.cluster, report.state_hash.view);
}

#[tokio::test]
async fn a_facade_that_shows_another_state_is_caught() {
    let tasks = Tasks::new();
    let (cluster, stale) = (side(1, 100, &tasks).await, side(2, 0, &tasks).await);
    let mut report = observe(&cluster, &stale, 20, &tasks).await;
    assert!(report.events.lost > 0);
    assert_ne!(report.state_hash.cluster, report.state_hash.view);
    report.judge();
    assert!(!report.ok);
}

#[tokio::test]
async fn a_facade_that_does_not_mask_is_caught() {
    let tasks = Tasks::new();
    let open = side(1, 0, &tasks).await;
    let canaries =
        Canaries::new(&open.cluster.planted(), open.cluster.marker()).expect("long enough");
    let tapped = open
        .reader
        .clone()
        .tapped(canaries.clone(), "facade answers");
    let snapshot = Snapshot::read(&tapped, &collections())
        .await
        .expect("lists");
    let figures = canaries.figures();
    assert_eq!(figures.found, 12, "two values of each of six Secrets");
    assert!(figures.control_found && figures.scanned_bytes > 0);
    assert_eq!(snapshot.masked_values(&filter()), 0);
    assert_ne!(snapshot.hash(None), snapshot.hash(Some(&filter())));
    let report = &mut Report {
        canaries: figures,
        ..Report::default()
    };
    report.judge();
    assert!(
        report
            .failed
            .iter()
            .any(|line| line == "planted values found: 12")
    );
}

#[tokio::test]
async fn what_the_reference_filter_shows_holds_no_planted_value() {
    let tasks = Tasks::new();
    let open = side(1, 0, &tasks).await;
    let canaries =
        Canaries::new(&open.cluster.planted(), open.cluster.marker()).expect("long enough");
    let snapshot = Snapshot::read(&open.reader, &collections())
        .await
        .expect("lists");
    let mut scan = canaries.scan("filtered");
    for (collection, object) in &snapshot.objects {
        scan.feed(
            filter()
                .apply(&collection.kind, object)
                .to_string()
                .as_bytes(),
        );
    }
    let figures = canaries.figures();
    assert_eq!((figures.found, figures.control_found), (0, true));
}

#[tokio::test]
async fn a_planted_namespace_is_removed_when_finished_dropped_or_stopped() {
    let tasks = Tasks::new();
    let real = side(1, 0, &tasks).await;
    let random = entropy(3);
    let namespaces = async || {
        let all = Gvr::new("", "v1", "namespaces");
        let listed = real
            .reader
            .list(&all, &Scope::Cluster)
            .await
            .expect("lists");
        listed.items.len()
    };
    let before = namespaces().await;
    let plant = Plant::start(&real.endpoint, 5, &random, &tasks)
        .await
        .expect("plants");
    // Each has the value that it was made with, and the one that it gets later.
    assert_eq!(plant.canaries().len(), 10);
    assert_eq!(namespaces().await, before + 1);
    assert!(plant.remove().await);
    assert_eq!(namespaces().await, before);
    let own = Tasks::new();
    let interrupted = Plant::start(&real.endpoint, 5, &random, &own)
        .await
        .expect("plants");
    assert!(
        own.drain(PATIENCE).await,
        "the removal is part of the drain"
    );
    assert_eq!(namespaces().await, before);
    drop(interrupted);
}
