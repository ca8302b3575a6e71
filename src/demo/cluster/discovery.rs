//! Discovery in both forms, the version, and as much OpenAPI as kubectl asks for.

use serde_json::{Value, json};

use super::kinds::{self, GROUPS, KINDS, Kind};

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

fn verbs(kind: &Kind) -> Value {
    if kind.is_review() {
        json!(["create"])
    } else {
        json!(VERBS)
    }
}

/// Verbs and kind of a subresource.
fn part(kind: &Kind, subresource: &str) -> (Value, Value) {
    match subresource {
        "scale" => (
            json!(["get", "patch", "update"]),
            json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}),
        ),
        "log" => (json!(["get"]), own(kind)),
        _ => (json!(["get", "patch", "update"]), own(kind)),
    }
}

fn own(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.name})
}

/// `/api`, legacy form.
pub(super) fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`, legacy form.
pub(super) fn groups() -> Value {
    let groups: Vec<Value> = GROUPS.iter().filter_map(|(name, _)| group(name)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub(super) fn group(name: &str) -> Option<Value> {
    let (name, version) = GROUPS.iter().find(|(group, _)| *group == name)?;
    let version = json!({"groupVersion": format!("{name}/{version}"), "version": version});
    Some(json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": name,
        "versions": [version], "preferredVersion": version,
    }))
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub(super) fn group_version(group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in kinds::of(group, version) {
        let mut entry = json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
            "kind": kind.name, "verbs": verbs(kind),
        });
        if let Some(entry) = entry.as_object_mut() {
            if !kind.short.is_empty() {
                entry.insert("shortNames".into(), json!(kind.short));
            }
            if kind.in_all {
                entry.insert("categories".into(), json!(["all"]));
            }
        }
        resources.push(entry);
        for subresource in kind.subresources {
            let (verbs, response) = part(kind, subresource);
            let mut entry = json!({
                "name": format!("{}/{subresource}", kind.plural), "singularName": "",
                "namespaced": kind.namespaced, "verbs": verbs,
                "kind": response.get("kind"),
            });
            if let (Some(entry), true) = (entry.as_object_mut(), *subresource == "scale") {
                entry.insert("group".into(), "autoscaling".into());
                entry.insert("version".into(), "v1".into());
            }
            resources.push(entry);
        }
    }
    if resources.is_empty() {
        return None;
    }
    let name = [group, version].join("/");
    let name = name.trim_start_matches('/');
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name,
        "resources": resources,
    }))
}

/// `/api` (core) or `/apis`, aggregated form of version `form` (`v2` or `v2beta1`).
pub(super) fn aggregated(core: bool, form: &str) -> Value {
    let groups = if core { &[("", "v1")][..] } else { &GROUPS };
    let items: Vec<Value> = groups
        .iter()
        .map(|(group, version)| {
            let resources: Vec<Value> = kinds::of(group, version).map(aggregated_kind).collect();
            let metadata = if group.is_empty() {
                json!({})
            } else {
                json!({"name": group})
            };
            json!({
                "metadata": metadata,
                "versions": [{"version": version, "freshness": "Current", "resources": resources}],
            })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{form}"),
        "metadata": {}, "items": items,
    })
}

fn aggregated_kind(kind: &'static Kind) -> Value {
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|subresource| {
            let (verbs, response) = part(kind, subresource);
            json!({"subresource": subresource, "responseKind": response, "verbs": verbs})
        })
        .collect();
    let categories: &[&str] = if kind.in_all { &["all"] } else { &[] };
    json!({
        "resource": kind.plural, "singularResource": kind.singular, "responseKind": own(kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "verbs": verbs(kind), "shortNames": kind.short, "categories": categories,
        "subresources": subresources,
    })
}

/// `/version`.
pub(super) fn version() -> Value {
    json!({
        "major": "1", "minor": "33", "gitVersion": "v1.33.0-embedded", "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "2025-01-01T00:00:00Z", "goVersion": "",
        "compiler": "", "platform": "linux/amd64",
    })
}

/// `/openapi/v3`: where the documents are.
pub(super) fn openapi() -> Value {
    let mut paths = serde_json::Map::new();
    for (group, version) in std::iter::once(&("", "v1")).chain(&GROUPS) {
        let path = if group.is_empty() {
            format!("api/{version}")
        } else {
            format!("apis/{group}/{version}")
        };
        let url = format!("/openapi/v3/{path}?hash=1");
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// One document: enough for kubectl to leave validation to the server.
pub(super) fn openapi_of(group: &str, version: &str) -> Option<Value> {
    let mut paths = serde_json::Map::new();
    for kind in KINDS
        .iter()
        .filter(|k| k.group == group && k.version == version)
    {
        let root = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        let scope = if kind.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let operation = json!({
            "x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": own(kind),
            "parameters": [
                {"name": "dryRun", "in": "query", "schema": {"type": "string"}},
                {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}},
            ],
            "responses": {"200": {"description": "OK"}},
        });
        paths.insert(
            format!("{root}{scope}/{}/{{name}}", kind.plural),
            json!({"patch": operation}),
        );
    }
    (!paths.is_empty()).then(|| {
        json!({
            "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.33.0"},
            "paths": paths, "components": {"schemas": {}},
        })
    })
}
