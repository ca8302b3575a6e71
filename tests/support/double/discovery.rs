//! What clients ask before they ask for objects, and the answer to what fails.

use http::StatusCode;
use serde_json::{Value, json};

use super::object::{KINDS, Kind};

/// What clients ask before they ask for objects.
pub(crate) fn discovery(path: &str) -> Option<String> {
    let found = match path {
        "/readyz" | "/livez" | "/healthz" => return Some("ok".to_owned()),
        "/version" => json!({"major": "1", "minor": "36", "gitVersion": "v1.36.4",
            "platform": "linux/amd64"}),
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": []}),
        "/apis" => groups(),
        root => resources(root)?,
    };
    Some(found.to_string())
}

fn groups() -> Value {
    let mut names: Vec<&str> = KINDS.iter().map(|kind| kind.group).collect();
    names.retain(|group| !group.is_empty());
    names.dedup();
    let group = |name: &str| {
        let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    let groups: Vec<Value> = names.into_iter().map(group).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn resources(root: &str) -> Option<Value> {
    let kinds: Vec<&Kind> = KINDS.iter().filter(|kind| kind.root() == root).collect();
    let version = kinds.first()?.api_version();
    let mut resources: Vec<Value> = kinds
        .iter()
        .map(|kind| {
            json!({"name": kind.resource, "singularName": kind.name.to_lowercase(),
                "kind": kind.name, "namespaced": kind.namespaced,
                "verbs": ["get", "list", "patch", "watch"]})
        })
        .collect();
    if kinds.iter().any(|kind| kind.resource == "pods") {
        resources.push(
            json!({"name": "pods/log", "singularName": "", "kind": "Pod",
            "namespaced": true, "verbs": ["get"]}),
        );
    }
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version,
        "resources": resources}),
    )
}

/// The `Status` object of a failure.
pub(crate) fn failure(code: StatusCode) -> Value {
    let reason = match code {
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::GONE => "Expired",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("the double answers {reason}"), "reason": reason,
        "code": code.as_u16()})
}
