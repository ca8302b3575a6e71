//! Workloads that keep changing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::controllers::Controllers;
use super::fields::text;
use super::kinds::{Kind, named};
use super::objects::{Objects, Part, Write};
use super::refusal::Refusal;
use super::seed::Planter;
use super::store::Key;
use crate::clock;
use crate::entropy;

/// Time between two looks of the controllers at what there is.
const RECONCILE_EVERY: Duration = Duration::from_millis(300);

/// `ConfigMap`s that come and go.
const SCRATCH: usize = 8;

/// A write by the cluster's own controllers.
pub(super) const CONTROLLER: Write<'static> = Write {
    part: Part::All,
    dry_run: false,
    manager: "kube-controller-manager",
};

/// Changes objects at a steady rate, and lets the controllers follow.
pub(super) struct Workload {
    pub(super) objects: Objects,
    pub(super) planter: Planter,
    pub(super) events_per_second: u32,
    /// While true nothing is disturbed.
    pub(super) held: Arc<AtomicBool>,
}

impl Workload {
    /// Runs until stopped.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let controllers = Controllers {
            objects: self.objects.clone(),
        };
        let pause = Duration::from_secs(1) / self.events_per_second.max(1);
        let mut ticks = tokio::time::interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = tokio::time::interval(RECONCILE_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick(), if self.disturbs() => self.disturb(),
                _ = looks.tick() => controllers.reconcile(),
            };
            if let Err(refusal) = done {
                // Another client changed the same object in between: the next tick is another.
                tracing::debug!(code = refusal.code.as_u16(), "workload step was refused");
            }
        }
    }

    fn disturbs(&self) -> bool {
        self.events_per_second > 0 && !self.held.load(Ordering::Relaxed)
    }

    /// A number below `limit`.
    fn below(&self, limit: usize) -> usize {
        let drawn = u64::from_le_bytes(entropy::bytes(&*self.objects.entropy));
        usize::try_from(drawn % limit.max(1) as u64).unwrap_or(0)
    }

    fn any(&self, kind: &'static Kind, namespaces: &[&str]) -> Option<(Key, Arc<Value>)> {
        let listed = self.objects.store.list(kind, "", None).ok()?.objects;
        let mut among: Vec<_> = listed
            .into_iter()
            .filter(|(key, _)| namespaces.contains(&key.namespace.as_str()))
            .collect();
        (!among.is_empty()).then(|| among.swap_remove(self.below(among.len())))
    }

    fn disturb(&mut self) -> Result<(), Refusal> {
        match self.below(100) {
            0..60 => self.change_pod(),
            60..72 => self.scale(),
            72..84 => self.delete_pod(),
            84..94 => self.scratch(),
            _ => self.rotate_secret(),
        }
    }

    fn change_pod(&self) -> Result<(), Refusal> {
        let pods = named("Pod");
        let Some((kind, (key, _))) = pods.and_then(|kind| Some((kind, self.any(kind, &SHOPS)?)))
        else {
            return Ok(());
        };
        let now = clock::rfc3339(self.objects.clock.now());
        let patch = json!({"status": {
            "message": format!("probed {:08x}", self.below(1 << 32)), "lastProbeTime": now,
        }});
        self.objects.revise(kind, &key, &CONTROLLER, |pod| {
            let mut pod = pod.clone();
            super::patch::merge(&mut pod, &patch);
            Ok(pod)
        })?;
        Ok(())
    }

    fn scale(&self) -> Result<(), Refusal> {
        let deployments = named("Deployment");
        let found = deployments.and_then(|kind| Some((kind, self.any(kind, &SHOPS)?)));
        let Some((kind, (key, _))) = found else {
            return Ok(());
        };
        let replicas = 1 + self.below(4);
        self.objects.revise(kind, &key, &CONTROLLER, |deployment| {
            let mut deployment = deployment.clone();
            super::patch::merge(&mut deployment, &json!({"spec": {"replicas": replicas}}));
            Ok(deployment)
        })?;
        Ok(())
    }

    fn delete_pod(&self) -> Result<(), Refusal> {
        let pods = named("Pod");
        if let Some((kind, (key, _))) = pods.and_then(|kind| Some((kind, self.any(kind, &SHOPS)?)))
        {
            self.objects.delete(kind, &key, None, false)?;
        }
        Ok(())
    }

    /// Creates a `ConfigMap`, or deletes it if it is there.
    fn scratch(&self) -> Result<(), Refusal> {
        let Some(kind) = named("ConfigMap") else {
            return Ok(());
        };
        let name = format!("scratch-{}", self.below(SCRATCH));
        let key = Key::new(kind, "shop", &name);
        if self.objects.store.get(&key).is_some() {
            self.objects.delete(kind, &key, None, false)?;
        } else {
            let object = json!({"metadata": {"name": name}, "data": {"note": "comes and goes"}});
            self.objects.create(kind, "shop", object, &CONTROLLER)?;
        }
        Ok(())
    }

    /// Gives a planted Secret new values.
    fn rotate_secret(&mut self) -> Result<(), Refusal> {
        let secrets = named("Secret");
        let found = secrets.and_then(|kind| Some((kind, self.any(kind, &SHOPS)?)));
        let Some((kind, (key, secret))) = found else {
            return Ok(());
        };
        let is_planted = !text(&secret, "/metadata/labels/planted").is_empty();
        if !is_planted {
            return Ok(());
        }
        let Some(body) = self.planter.secret(&key.namespace, &key.name) else {
            return Ok(());
        };
        self.objects.update(kind, &key, body, &CONTROLLER)?;
        Ok(())
    }
}

/// The namespaces whose objects change.
const SHOPS: [&str; 2] = ["shop", "shop-canary"];
