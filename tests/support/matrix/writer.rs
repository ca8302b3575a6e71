//! Changes a real cluster all the time, whether its API server is there or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use sortie::tasks::Tasks;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::support::kube::Api;

/// Twenty changes a second.
const EVERY: Duration = Duration::from_millis(50);

/// Services that exist at once.
const KEPT: u64 = 20;

/// Writes until dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    tasks: Tasks,
    written: Arc<AtomicU64>,
    paused: watch::Sender<bool>,
    idle: watch::Receiver<bool>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Writer {
    /// Writes to `namespace`.
    pub(crate) fn start(api: Api, namespace: &str) -> Self {
        let (tasks, written) = (Tasks::new(), Arc::<AtomicU64>::default());
        let (paused, pause) = watch::channel(false);
        let (now_idle, idle) = watch::channel(false);
        let (namespace, count) = (namespace.to_owned(), Arc::clone(&written));
        tasks.spawn("writer", async move |stop| {
            let writing = write(api, &namespace, &count, pause, now_idle);
            stop.run_until_cancelled(writing).await;
        });
        Self {
            tasks,
            written,
            paused,
            idle,
        }
    }

    /// Writes that were answered with success.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Stops writing, once the write that is under way is over, or goes on.
    pub(crate) async fn pause(&mut self, paused: bool) {
        self.paused.send_replace(paused);
        let reached = self.idle.wait_for(|idle| *idle == paused).await;
        reached.expect("the writer lives");
    }
}

async fn write(
    api: Api,
    namespace: &str,
    written: &AtomicU64,
    mut pause: watch::Receiver<bool>,
    idle: watch::Sender<bool>,
) {
    let services = format!("/api/v1/namespaces/{namespace}/services");
    let deployment = format!("/apis/apps/v1/namespaces/{namespace}/deployments/web");
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        let paused = *pause.borrow();
        idle.send_replace(paused);
        if pause.wait_for(|paused| !paused).await.is_err() {
            return;
        }
        idle.send_replace(false);
        ticks.tick().await;
        let round = number / 4;
        let (method, path, body) = match number % 4 {
            0 => (Method::POST, services.clone(), Some(service(round))),
            1 => (
                Method::PATCH,
                format!("{services}/service-{round}"),
                Some(json!({"metadata": {"annotations": {"round": round.to_string()}}})),
            ),
            2 => (
                Method::PATCH,
                deployment.clone(),
                Some(json!({"spec": {"replicas": round % 7}})),
            ),
            _ => {
                let old = round.saturating_sub(KEPT);
                (Method::DELETE, format!("{services}/service-{old}"), None)
            }
        };
        // Not answered, or refused because what it builds on was not answered: another follows.
        if let Ok(answer) = api.try_ask(method, &path, body.as_ref()).await {
            written.fetch_add(u64::from(answer.status.is_success()), Ordering::Relaxed);
        }
    }
}

fn service(number: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("service-{number}"), "labels": {"number": number.to_string()}},
        "spec": {"clusterIP": "None", "selector": {"app": "web"}}})
}
