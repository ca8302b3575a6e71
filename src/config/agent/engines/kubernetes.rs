//! Secrets of a cluster.

use std::path::PathBuf;

use serde_json::{Map as Json, Value, json};

use crate::config::agent::SERVICE_ACCOUNT;
use crate::config::reader::Map;
use crate::config::source::Environment;
use crate::config::text::{boolean, path, text};
use crate::credential::kubernetes::{Access, Settings};

pub(super) const KEYS: [&str; 4] = ["context", "in-cluster", "kubeconfig-file", "namespace"];

pub(super) fn read(map: &Map<'_>, environment: &Environment) -> Option<Settings> {
    let namespace = map.optional("namespace", text);
    Some(Settings {
        access: access(map, environment)?,
        namespace,
    })
}

fn access(map: &Map<'_>, environment: &Environment) -> Option<Access> {
    let own = map.optional("in-cluster", boolean);
    let is_there = |key| map.field(key).is_some();
    if is_there("kubeconfig-file") && own == Some(true) {
        map.tell("kubeconfig-file", "does not go with `in-cluster: true`");
        return None;
    }
    if is_there("kubeconfig-file") {
        let context = map.optional("context", text);
        let path = map.optional("kubeconfig-file", path)?;
        return Some(Access::Kubeconfig { path, context });
    }
    if own != Some(true) {
        map.tell(
            "in-cluster",
            "must be `true`, or `kubeconfig-file` must name another cluster",
        );
        return None;
    }
    if is_there("context") {
        map.tell("context", "belongs to `kubeconfig-file`");
    }
    let host = environment.service_host.clone();
    let port = environment.service_port.as_deref();
    let port = port.and_then(|port| port.parse().ok());
    if host.is_none() || port.is_none() {
        map.tell(
            "in-cluster",
            "works in a pod only: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; \
             elsewhere use `kubeconfig-file`",
        );
    }
    Some(Access::InCluster {
        host: host?,
        port: port?,
        mount: PathBuf::from(SERVICE_ACCOUNT),
    })
}

/// As [`read`] reads it.
pub(in crate::config::agent) fn value(settings: &Settings) -> Json<String, Value> {
    let mut map = Json::new();
    match &settings.access {
        Access::InCluster { .. } => {
            map.insert("in-cluster".to_owned(), json!(true));
        }
        Access::Kubeconfig { path, context } => {
            map.insert("kubeconfig-file".to_owned(), json!(path));
            if let Some(context) = context {
                map.insert("context".to_owned(), json!(context));
            }
        }
    }
    if let Some(namespace) = &settings.namespace {
        map.insert("namespace".to_owned(), json!(namespace));
    }
    map
}
