//! One thing is broken in each test, and the report names it.

use std::sync::Arc;
use std::time::Duration;

use sortie::demo::Source;
use sortie::demo::audit::{Collection, Context, Observer, Reader, Report};
use sortie::entropy;
use sortie::policy::Rules;
use sortie::resource::{Gvr, Scope};
use sortie::tasks::Tasks;
use tokio_util::sync::CancellationToken;

use super::{Staged, kubeconfig};
use crate::support::double::{Change, Double, Settings, Trick};

fn double() -> Arc<Double> {
    Arc::new(Double::start(Settings {
        objects: vec![("pods", 40), ("deployments", 4)],
        bytes: 2_000,
        ..Settings::default()
    }))
}

/// The agent uses the door that lies, the auditor the honest one.
fn lied_to(double: &Double) -> Staged {
    Staged::on(kubeconfig(double.faulty_door(), double.write_kubeconfig()))
}

fn says(report: &Report, sentence: &str) {
    assert!(!report.ok, "{report:?}");
    let said = report.failed.iter().any(|failed| failed == sentence);
    assert!(said, "`{sentence}` is not in {:?}", report.failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_anything_broken_the_double_passes() {
    let double = double();
    let acting = Arc::clone(&double);
    let act = move || {
        acting.change("pods", 7, Change::Modified);
    };
    let report = lied_to(&double).report(act).await;
    assert!(report.ok, "{:?}", report.failed);
    assert_eq!((report.events.sent, report.events.applied), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_mask_is_found_in_frames_facade_and_store() {
    let scrub = include_str!("../../../policies/scrub.yaml");
    let scrub = scrub
        .replace("kind: Secret", "kind: Other")
        .replace("resource: secrets", "resource: others");
    let rules = Rules::from_texts(include_str!("../../../policies/levels.yaml"), &scrub).unwrap();
    let staged = Staged {
        rules,
        ..Staged::on(Source::Embedded)
    };
    let report = staged.report(|| {}).await;
    assert!(report.canaries.found > 0);
    says(
        &report,
        &format!("planted values found: {}", report.canaries.found),
    );
    for source in ["frames", "facade", "store"] {
        says(
            &report,
            &format!("planted values left the agent: seen in {source}"),
        );
    }
    says(&report, "no masked value was seen");
    says(&report, "the view differs from the cluster");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_that_the_agent_never_saw_is_lost() {
    let double = double();
    let acting = Arc::clone(&double);
    let act = move || {
        acting.trick("pods", Trick::Hide);
        acting.change("pods", 7, Change::Modified);
    };
    let report = lied_to(&double).report(act).await;
    says(&report, "events lost: 1");
    says(&report, "the view differs from the cluster");
    assert_eq!(report.failed.len(), 2, "{:?}", report.failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_view_is_told() {
    let double = double();
    let acting = Arc::clone(&double);
    let act = move || {
        acting.freeze_faulty_door(true);
        for number in 0..5 {
            acting.change("pods", number, Change::Modified);
        }
    };
    let report = lied_to(&double).report(act).await;
    says(&report, "events lost: 5");
    says(&report, "the view differs from the cluster");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_does_not_come_is_told() {
    let double = double();
    let staged = Staged {
        agent_ttl: Duration::from_hours(1),
        timeout: Duration::from_secs(10),
        ..lied_to(&double)
    };
    let report = staged.report(|| {}).await;
    assert_eq!(report.failed, ["0 rotations were seen, 2 are needed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_the_cluster_doubles_is_applied_once() {
    let double = double();
    let acting = Arc::clone(&double);
    let act = move || {
        acting.trick("pods", Trick::Repeat);
        acting.change("pods", 7, Change::Modified);
    };
    let report = lied_to(&double).report(act).await;
    assert!(report.ok, "{:?}", report.failed);
    assert_eq!((report.events.sent, report.events.applied), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_the_facade_doubles_is_told() {
    let double = double();
    let tasks = Tasks::new();
    let reader = |path| {
        let text = std::fs::read_to_string(path).unwrap();
        Reader::new(&Context::read(&text, None).unwrap().endpoint, &tasks).unwrap()
    };
    let (cluster, facade) = (
        reader(double.write_kubeconfig()),
        reader(double.faulty_door()),
    );
    let pods = Collection {
        gvr: Gvr::new("", "v1", "pods"),
        kind: "Pod".to_owned(),
        scope: Scope::Cluster,
    };
    let entropy = entropy::system();
    let observer = Observer::start(&cluster, &facade, &[pods], &entropy, &tasks)
        .await
        .unwrap();
    double.trick("pods", Trick::Repeat);
    double.change("pods", 7, Change::Modified);
    assert!(observer.quiet(&CancellationToken::new()).await);
    let mut report = Report {
        events: observer.figures(0, 0),
        ..Report::default()
    };
    assert_eq!((report.events.sent, report.events.lost), (1, 0));
    report.judge();
    says(&report, "events duplicated: 1");
    tasks.cancel();
}
