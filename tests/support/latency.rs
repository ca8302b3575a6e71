//! From the answer to a write until its event at the facade.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sortie::entropy;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::facade::Facade;
use super::kube::{Api, Watch};

/// Changes one Service so many times, with this pause; gives the latencies in milliseconds, sorted.
pub(crate) async fn of(api: &Api, facade: &Facade, writes: usize, every: Duration) -> Vec<f64> {
    let services = "/api/v1/namespaces/default/services";
    let path = format!("{services}/measured");
    if !api
        .ask(http::Method::GET, &path, None)
        .await
        .status
        .is_success()
    {
        let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "measured"},
            "spec": {"clusterIP": "None", "selector": {"app": "measured"}}});
        api.create(services, &object).await;
    }
    // What an earlier measurement wrote is told first, and is not the end of this one.
    let run = hex::encode(entropy::bytes::<8>(&*entropy::system()));
    let numbered = |number: usize| format!("{run}-{number}");
    let mut watch = facade
        .watch(&format!("{services}?watch=1&timeoutSeconds=600"))
        .await;
    let (mut written, mut seen) = (BTreeMap::new(), BTreeMap::new());
    let writing = async {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0..writes {
            ticks.tick().await;
            let patch = json!({"metadata": {"annotations": {"number": numbered(number)}}});
            let answer = api.patch(&path, &patch).await;
            let version = text(&answer["metadata"]["resourceVersion"]);
            written.insert(version, Instant::now());
        }
    };
    let watching = async {
        loop {
            let (number, version) = next(&mut watch).await;
            seen.insert(version, Instant::now());
            if number == numbered(writes - 1) {
                return;
            }
        }
    };
    tokio::join!(writing, watching);
    // An event may come before the answer to the write that made it.
    let mut latencies: Vec<f64> = seen
        .iter()
        .filter_map(|(version, at)| Some((*at).saturating_duration_since(*written.get(version)?)))
        .map(|latency| latency.as_secs_f64() * 1_000.0)
        .collect();
    latencies.sort_by(f64::total_cmp);
    latencies
}

async fn next(watch: &mut Watch) -> (String, String) {
    let event = watch.next().await.expect("the watch goes on");
    let meta = &event["object"]["metadata"];
    let number = text(&meta["annotations"]["number"]);
    (number, text(&meta["resourceVersion"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
