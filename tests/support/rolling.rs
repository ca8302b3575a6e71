//! One instance of an agent after the other is replaced while a cluster changes, seen from a watch
//! at the facade.

use std::time::Duration;

use super::double::{Double, Settings};
use super::eventually::eventually_async;
use super::facade::Facade;
use super::hand_over::{OBJECTS, PODS, Seen, versions};
use super::stand::{self, Plan, Stand};

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Changes that the cluster made.
    pub(crate) sent: u64,
    /// Events of the watch.
    pub(crate) seen: u64,
    /// Objects that the facade shows in another version than the cluster, or not at all.
    pub(crate) lost: usize,
    /// Events with a (uid, resourceVersion) that the watch had told before.
    pub(crate) duplicated: u64,
    /// Events with an older version than one that the watch had told of the object before.
    pub(crate) reordered: u64,
    /// Lists of the cluster after the first, of any kind.
    pub(crate) lists: u64,
    /// Largest gap between two events around each replacement by SIGTERM, in order of size.
    pub(crate) drained: Vec<Duration>,
    /// The same around each replacement by SIGKILL.
    pub(crate) killed: Vec<Duration>,
}

/// Replaces the agent so often, by SIGTERM and by SIGKILL in turn, under so many events a second.
pub(crate) async fn roll(replacements: usize, per_second: u64) -> Report {
    let double = Double::start(Settings {
        objects: vec![("pods", OBJECTS)],
        changing: true,
        ..Settings::default()
    });
    let plan = Plan::one("lab", &double.write_kubeconfig(), "");
    let mut stand = Stand::start(plan.clone()).await;
    let facade = Facade::of(&stand.kubeconfig("lab", "watcher").await);
    let version = versions(&facade.get(PODS).await).1;
    let query = format!("{PODS}?watch=1&timeoutSeconds=3600&resourceVersion={version}");
    let mut seen = Seen::new(facade.watch(&query).await);
    let before = double.count_all("list");
    double.drive("pods", per_second);
    let mut report = Report::default();
    for number in 0..replacements {
        let next = seen
            .until(stand::standby(&stand.hub, "lab", &plan, ""))
            .await;
        let mut old = std::mem::replace(&mut stand.agent, next);
        seen.stall = Duration::ZERO;
        let drains = number % 2 == 0;
        let replacing = async {
            if drains {
                assert_eq!(old.stop().await, 0, "{:?}", old.log());
            } else {
                old.kill().await;
            }
            taken_over(&stand).await;
        };
        seen.until(replacing).await;
        // The gap ends with the first event that the other instance tells.
        seen.event().await;
        let stalls = if drains {
            &mut report.drained
        } else {
            &mut report.killed
        };
        stalls.push(seen.stall);
    }
    double.drive("pods", 0);
    let wanted = seen.settle(&double).await;
    report.lists = double.count_all("list") - before - wanted.lists;
    report.sent = double.emitted();
    let served = versions(&facade.get(PODS).await).0;
    let differ = |(uid, version): &(&String, &u64)| served.get(*uid) != Some(*version);
    report.lost = wanted.objects.iter().filter(differ).count() + served.len().abs_diff(OBJECTS);
    report.seen = seen.events;
    report.duplicated = seen.duplicated;
    report.reordered = seen.reordered;
    report.drained.sort_unstable();
    report.killed.sort_unstable();
    report
}

/// Waits until the instance that is left has the account, and events flow from it.
async fn taken_over(stand: &Stand) {
    eventually_async("the other instance takes over", async || {
        let alone = stand::instances(&stand.hub).await == ["ACTIVE"];
        let active = stand.account("lab").await["state"] == "ACTIVE";
        (alone && active).then_some(())
    })
    .await;
}
