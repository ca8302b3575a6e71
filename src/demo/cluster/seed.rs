//! What the cluster holds at its start.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::kinds::named;
use super::objects::Objects;
use super::patch;
use super::refusal::Refusal;
use super::start::Settings;
use super::workload::CONTROLLER;
use crate::demo::canary::Canary;
use crate::entropy;

/// Deployments: namespace, name, replicas.
const DEPLOYMENTS: [(&str, &str, u32); 7] = [
    ("shop", "cart", 2),
    ("shop", "catalog", 3),
    ("shop", "checkout", 2),
    ("shop", "payment", 2),
    ("shop", "web", 3),
    ("shop-canary", "web", 1),
    ("kube-system", "coredns", 2),
];

/// The annotation that client-side apply leaves.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Makes Secrets with values that are not found anywhere else.
pub(super) struct Planter {
    /// Values that have not been used yet: random bytes, and a text.
    fresh: Vec<([u8; 32], String)>,
    marker: String,
}

impl Planter {
    /// Draws all values for the seed and for later rotations.
    pub(super) fn new(settings: &Settings, marker: &[u8]) -> Self {
        let entropy = &*settings.entropy;
        let draw = |_| {
            let password = URL_SAFE_NO_PAD.encode(entropy::bytes::<32>(entropy));
            (entropy::bytes(entropy), password)
        };
        Self {
            fresh: (0..settings.secrets + settings.rotations)
                .map(draw)
                .collect(),
            marker: String::from_utf8_lossy(marker).into_owned(),
        }
    }

    /// All values that are not used yet.
    pub(super) fn canaries(&self) -> Arc<[Canary]> {
        let both = |(number, (token, password)): (usize, &([u8; 32], String))| {
            let canary = |key: &str, value: &[u8]| Canary {
                place: format!("value {number}, {key}"),
                value: value.to_vec(),
            };
            [
                canary("token", token),
                canary("password", password.as_bytes()),
            ]
        };
        self.fresh.iter().enumerate().flat_map(both).collect()
    }

    /// A Secret with the next values; none when they are used up.
    ///
    /// By the sum of its name's bytes, a third has the values in a last-applied annotation, a
    /// third as plain text in that annotation's `stringData`, a third has no annotation.
    pub(super) fn secret(&mut self, namespace: &str, name: &str) -> Option<Value> {
        let (random, password) = self.fresh.pop()?;
        let data = json!({"token": BASE64.encode(random), "password": BASE64.encode(&password)});
        let metadata = json!({"name": name, "namespace": namespace});
        let applied = match name.bytes().map(u32::from).sum::<u32>() % 3 {
            0 => Some(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data,
            })),
            1 => Some(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": metadata,
                "stringData": {"password": password},
            })),
            _ => None,
        };
        let annotations = applied.map(|applied| json!({LAST_APPLIED: format!("{applied}\n")}));
        Some(json!({
            "metadata": {
                "name": name, "annotations": annotations,
                "labels": {"planted": "true", "marker": self.marker},
            },
            "type": "Opaque", "data": data,
        }))
    }
}

/// Fills an empty cluster.
pub(super) fn seed(
    objects: &Objects,
    planter: &mut Planter,
    secrets: usize,
) -> Result<(), Refusal> {
    for namespace in ["default", "kube-system", "shop", "shop-canary"] {
        let labels = json!({"kubernetes.io/metadata.name": namespace});
        let body = json!({
            "metadata": {"name": namespace, "labels": labels},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        });
        create(objects, "Namespace", "", body)?;
    }
    for (namespace, app, replicas) in DEPLOYMENTS {
        let body = deployment(app, replicas, &planter.marker);
        create(objects, "Deployment", namespace, body)?;
        create(objects, "Service", namespace, service(app))?;
        let data = json!({"log-level": "info", "owner": app});
        let body = json!({"metadata": {"name": format!("{app}-settings")}, "data": data});
        create(objects, "ConfigMap", namespace, body)?;
    }
    other_workloads(objects)?;
    other_kinds(objects)?;
    for number in 0..secrets {
        let namespace = if number % 4 == 3 {
            "shop-canary"
        } else {
            "shop"
        };
        if let Some(body) = planter.secret(namespace, &format!("credentials-{number}")) {
            create(objects, "Secret", namespace, body)?;
        }
    }
    Ok(())
}

fn create(objects: &Objects, kind: &str, namespace: &str, body: Value) -> Result<(), Refusal> {
    let kind = named(kind).ok_or_else(Refusal::no_such_path)?;
    objects.create(kind, namespace, body, &CONTROLLER)?;
    Ok(())
}

fn template(app: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {
            "containers": [{
                "name": app, "image": format!("registry.example/{app}:1.0"),
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "PASSWORD", "valueFrom": {
                    "secretKeyRef": {"name": "credentials-0", "key": "password"}}}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
            }],
            "restartPolicy": "Always", "serviceAccountName": "default",
        },
    })
}

fn deployment(app: &str, replicas: u32, marker: &str) -> Value {
    let mut template = template(app);
    patch::merge(
        &mut template,
        &json!({"metadata": {"labels": {"marker": marker}}}),
    );
    json!({
        "metadata": {
            "name": app, "labels": {"app": app},
            "annotations": {"deployment.kubernetes.io/revision": "1"},
        },
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": app}},
            "template": template, "strategy": {"type": "RollingUpdate"},
            "revisionHistoryLimit": 10,
        },
    })
}

fn service(app: &str) -> Value {
    json!({
        "metadata": {"name": app, "labels": {"app": app}},
        "spec": {
            "selector": {"app": app}, "type": "ClusterIP", "clusterIP": "10.0.0.10",
            "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

/// One of each of the other kinds that run something.
fn other_workloads(objects: &Objects) -> Result<(), Refusal> {
    let workload = |app: &str, replicas: u32| {
        json!({
            "metadata": {"name": app, "labels": {"app": app}},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": app}},
                "serviceName": app, "template": template(app),
            },
        })
    };
    let job = json!({"template": template("report"), "completions": 1, "backoffLimit": 2});
    let legacy = json!({
        "metadata": {"name": "legacy"},
        "spec": {"replicas": 0, "selector": {"app": "legacy"}, "template": template("legacy")},
    });
    let cron = json!({
        "metadata": {"name": "report"},
        "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": job}},
    });
    let revision = json!({
        "metadata": {"name": "orders-1"}, "revision": 1, "data": {"spec": template("orders")},
    });
    create(objects, "StatefulSet", "shop", workload("orders", 2))?;
    create(
        objects,
        "DaemonSet",
        "kube-system",
        workload("node-logs", 1),
    )?;
    let mut migrate = json!({"metadata": {"name": "migrate"}, "spec": job});
    let selector = json!({"spec": {"selector": {"matchLabels": {"app": "report"}}}});
    patch::merge(&mut migrate, &selector);
    create(objects, "Job", "shop", migrate)?;
    create(objects, "CronJob", "shop", cron)?;
    create(objects, "ReplicationController", "shop", legacy)?;
    create(objects, "ControllerRevision", "shop", revision)
}

/// One of each of the kinds that run nothing.
fn other_kinds(objects: &Objects) -> Result<(), Refusal> {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let rule = json!({"host": "shop.example", "http": {
        "paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}});
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let policy = json!({
        "metadata": {"name": "default-deny"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    });
    let autoscaler = json!({
        "metadata": {"name": "web"},
        "spec": {"minReplicas": 1, "maxReplicas": 6, "scaleTargetRef": web},
    });
    let event = json!({
        "metadata": {"name": "web.1"}, "type": "Normal", "reason": "ScalingReplicaSet",
        "message": "scaled up", "count": 1, "involvedObject": {
            "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "namespace": "shop"},
    });
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let definition = json!({
        "metadata": {"name": "discounts.shop.example"},
        "spec": {
            "group": "shop.example", "scope": "Namespaced",
            "names": {"plural": "discounts", "singular": "discount", "kind": "Discount"},
            "versions": [{"name": "v1", "served": false, "storage": true, "schema": schema}],
        },
    });
    let ingress = json!({"metadata": {"name": "web"}, "spec": {"rules": [rule]}});
    create(objects, "Ingress", "shop", ingress)?;
    create(objects, "NetworkPolicy", "shop", policy)?;
    create(objects, "HorizontalPodAutoscaler", "shop", autoscaler)?;
    create(objects, "Event", "shop", event)?;
    create(objects, "CustomResourceDefinition", "", definition)
}
