//! What kube-controller-manager and the kubelet would do: replica sets, pods, statuses.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::fields::text;
use super::kinds::{Kind, named};
use super::objects::Objects;
use super::patch;
use super::refusal::Refusal;
use super::store::Key;
use super::workload::CONTROLLER;
use crate::clock;

/// Pods that one owner gets at most, whatever it asks for.
const REPLICAS: u64 = 100;

/// Follows what the objects ask for, one step at a time.
pub(super) struct Controllers {
    pub(super) objects: Objects,
}

type Found = (Key, Arc<Value>);

impl Controllers {
    /// One look at everything: pods start, owners get their pods, statuses are told.
    ///
    /// An object that cannot be followed does not keep the others from it.
    pub(super) fn reconcile(&self) -> Result<(), Refusal> {
        let mut first_refusal = Ok(());
        let mut note = |done: Result<(), Refusal>| {
            if first_refusal.is_ok() {
                first_refusal = done;
            }
        };
        for (_, deployment) in self.list("Deployment")? {
            note(self.deployment(&deployment));
        }
        for kind in ["ReplicaSet", "StatefulSet", "DaemonSet", "Job"] {
            for (key, owner) in self.list(kind)? {
                note(self.pods(kind, &key, &owner));
            }
        }
        for (key, pod) in self.list("Pod")? {
            note(self.start(&key, &pod));
        }
        first_refusal
    }

    fn list(&self, kind: &str) -> Result<Vec<Found>, Refusal> {
        Ok(self.objects.store.list(known(kind)?, "", None)?.objects)
    }

    fn owned(&self, kind: &str, owner: &Value) -> Result<Vec<Found>, Refusal> {
        let namespace = text(owner, "/metadata/namespace");
        let uid = text(owner, "/metadata/uid");
        let mut owned = self
            .objects
            .store
            .list(known(kind)?, namespace, None)?
            .objects;
        owned.retain(|(_, object)| text(object, "/metadata/ownerReferences/0/uid") == uid);
        Ok(owned)
    }

    fn merge(&self, kind: &str, key: &Key, change: &Value) -> Result<(), Refusal> {
        let merged = self
            .objects
            .revise(known(kind)?, key, &CONTROLLER, |object| {
                let mut object = object.clone();
                patch::merge(&mut object, change);
                Ok(object)
            });
        merged.map(drop)
    }

    /// One replica set per template; the current one has the replicas.
    fn deployment(&self, deployment: &Value) -> Result<(), Refusal> {
        let template = deployment
            .pointer("/spec/template")
            .cloned()
            .unwrap_or_default();
        let digest = digest(&SHA256, template.to_string().as_bytes());
        let hash = hex::encode(digest.as_ref().get(..5).unwrap_or_default());
        let (namespace, app) = (
            text(deployment, "/metadata/namespace"),
            text(deployment, "/metadata/name"),
        );
        let current = format!("{app}-{hash}");
        let replicas = wanted(deployment);
        let sets = self.owned("ReplicaSet", deployment)?;
        if !sets.iter().any(|(key, _)| key.name == current) {
            let mut template = template;
            let label = json!({"metadata": {"labels": {"pod-template-hash": hash}}});
            patch::merge(&mut template, &label);
            let labels = template
                .pointer("/metadata/labels")
                .cloned()
                .unwrap_or_default();
            let revision = (sets.len() + 1).to_string();
            let body = json!({
                "metadata": {
                    "name": current, "labels": labels,
                    "annotations": {"deployment.kubernetes.io/revision": revision},
                    "ownerReferences": [reference("apps/v1", "Deployment", deployment)],
                },
                "spec": {
                    "replicas": replicas, "selector": {"matchLabels": labels},
                    "template": template,
                },
            });
            self.objects
                .create(known("ReplicaSet")?, namespace, body, &CONTROLLER)?;
        }
        let mut ready = 0;
        for (key, set) in &sets {
            let replicas = if key.name == current { replicas } else { 0 };
            if wanted(set) != replicas {
                self.merge("ReplicaSet", key, &json!({"spec": {"replicas": replicas}}))?;
            }
            let of_set = set.pointer("/status/readyReplicas").and_then(Value::as_u64);
            ready += of_set.unwrap_or(0);
        }
        let key = Key::new(known("Deployment")?, namespace, app);
        self.merge(
            "Deployment",
            &key,
            &json!({"status": {
                "observedGeneration": deployment.pointer("/metadata/generation"),
                "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": ready,
                "availableReplicas": ready,
                "conditions": [{
                    "type": "Available", "status": if ready >= replicas { "True" } else { "False" },
                    "reason": "MinimumReplicasAvailable", "message": "",
                }],
            }}),
        )
    }

    /// Creates or deletes pods until an owner has as many as it wants.
    fn pods(&self, kind: &str, key: &Key, owner: &Value) -> Result<(), Refusal> {
        let pods = self.owned("Pod", owner)?;
        let (have, want) = (pods.len() as u64, wanted(owner));
        let mut ordinals = (0..REPLICAS)
            .map(|number| format!("{}-{number}", key.name))
            .filter(|name| pods.iter().all(|(pod, _)| pod.name != *name));
        for _ in have..want {
            let template = owner.pointer("/spec/template").cloned().unwrap_or_default();
            let name = match kind {
                "StatefulSet" => json!({"name": ordinals.next()}),
                _ => json!({"generateName": format!("{}-", key.name)}),
            };
            let mut pod = json!({
                "metadata": {
                    "labels": template.pointer("/metadata/labels"),
                    "ownerReferences": [reference(text(owner, "/apiVersion"), kind, owner)],
                },
                "spec": template.get("spec"), "status": {"phase": "Pending"},
            });
            patch::merge(
                &mut pod,
                &json!({"metadata": name, "spec": {"nodeName": "node-1"}}),
            );
            self.objects
                .create(known("Pod")?, &key.namespace, pod, &CONTROLLER)?;
        }
        let surplus = usize::try_from(have.saturating_sub(want)).unwrap_or(0);
        for (pod, _) in pods.iter().rev().take(surplus) {
            self.objects.delete(known("Pod")?, pod, None, false)?;
        }
        let running = |(_, pod): &&Found| text(pod, "/status/phase") == "Running";
        let ready = pods.iter().filter(running).count();
        let generation = owner.pointer("/metadata/generation");
        let status = match kind {
            "DaemonSet" => json!({
                "observedGeneration": generation, "desiredNumberScheduled": 1,
                "currentNumberScheduled": have, "numberReady": ready,
            }),
            "Job" => json!({"active": ready}),
            _ => json!({
                "observedGeneration": generation, "replicas": have, "readyReplicas": ready,
                "availableReplicas": ready,
            }),
        };
        self.merge(kind, key, &json!({"status": status}))
    }

    /// A pending pod runs.
    fn start(&self, key: &Key, pod: &Value) -> Result<(), Refusal> {
        if !matches!(text(pod, "/status/phase"), "Pending" | "") {
            return Ok(());
        }
        let now = clock::rfc3339(self.objects.clock.now());
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
        let statuses: Vec<Value> = containers
            .into_iter()
            .flatten()
            .map(|container| {
                json!({
                    "name": container.get("name"), "image": container.get("image"),
                    "ready": true, "restartCount": 0, "state": {"running": {"startedAt": now}},
                })
            })
            .collect();
        self.merge(
            "Pod",
            key,
            &json!({"status": {
                "phase": "Running", "startTime": now, "podIP": "10.1.0.1", "hostIP": "10.2.0.1",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
                "containerStatuses": statuses,
            }}),
        )
    }
}

fn known(kind: &str) -> Result<&'static Kind, Refusal> {
    named(kind).ok_or_else(Refusal::no_such_path)
}

/// Replicas that an owner asks for; one if it does not say.
fn wanted(owner: &Value) -> u64 {
    let said = owner.pointer("/spec/replicas").and_then(Value::as_u64);
    said.unwrap_or(1).min(REPLICAS)
}

fn reference(api_version: &str, kind: &str, owner: &Value) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "name": text(owner, "/metadata/name"),
        "uid": text(owner, "/metadata/uid"), "controller": true, "blockOwnerDeletion": true,
    })
}
