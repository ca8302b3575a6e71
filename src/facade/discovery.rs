//! Discovery from memory: which kinds an account has, in the forms that clients ask for.
//!
//! Sources: Kubernetes API reference, `APIResourceList`, `APIGroupList`; KEP-3352 (aggregated).

use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::body::{self, Body};
use super::port::{Account, Kind};
use super::query::{essence, media_types, parameter};
use super::status::{Failure, json_response, respond};
use crate::resource::Subresource;

/// The versions of one group, preferred first, each with its kinds.
pub(super) struct Group<'a> {
    pub(super) name: &'a str,
    pub(super) versions: Vec<(&'a str, Vec<&'a Kind>)>,
}

/// The groups of an account: core first, the others by name.
pub(super) fn groups(account: &Account) -> Vec<Group<'_>> {
    let mut kinds: Vec<&Kind> = account.discovery.iter().collect();
    // The empty name of the core group sorts first.
    kinds.sort_by_key(|kind| {
        let resource = &kind.resource;
        (
            &resource.gvr.group,
            !resource.preferred_version,
            &resource.gvr.version,
            &resource.gvr.resource,
        )
    });
    let mut groups: Vec<Group<'_>> = Vec::new();
    for kind in kinds {
        let gvr = &kind.resource.gvr;
        if groups.last().is_none_or(|group| group.name != gvr.group) {
            groups.push(Group {
                name: &gvr.group,
                versions: Vec::new(),
            });
        }
        let Some(group) = groups.last_mut() else {
            continue;
        };
        let mut versions = group.versions.iter_mut();
        match versions.find(|(version, _)| *version == gvr.version) {
            Some((_, kinds)) => kinds.push(kind),
            None => group.versions.push((&gvr.version, vec![kind])),
        }
    }
    groups
}

/// Answers a discovery path; `None` if `path` is not one.
pub(super) fn answer(account: &Account, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let groups = groups(account);
    let found = |value: Option<Value>| match value {
        Some(value) => json_response(StatusCode::OK, value.to_string()),
        None => Failure::unknown_path().response(),
    };
    let version_of = |name: &str, version: &str| {
        let group = groups.iter().find(|group| group.name == name)?;
        let (_, kinds) = group.versions.iter().find(|(known, _)| *known == version)?;
        Some(resource_list(name, version, kinds))
    };
    Some(match *segments.as_slice() {
        ["api" | "apis"] => {
            let is_core = segments == ["api"];
            let of_path = |group: &&Group<'_>| group.name.is_empty() == is_core;
            let groups: Vec<&Group<'_>> = groups.iter().filter(of_path).collect();
            match Aggregated::asked(headers) {
                Some(form) => form.response(&groups),
                None if is_core => found(Some(api_versions(&groups))),
                None => {
                    let list: Vec<Value> = groups.iter().map(|group| api_group(group)).collect();
                    found(Some(json!({
                        "kind": "APIGroupList",
                        "apiVersion": "v1",
                        "groups": list,
                    })))
                }
            }
        }
        ["api", version] => found(version_of("", version)),
        ["apis", name] => {
            let group = groups.iter().find(|group| group.name == name);
            found(group.map(|group| {
                let mut value = api_group(group);
                if let Value::Object(members) = &mut value {
                    members.insert("kind".into(), "APIGroup".into());
                    members.insert("apiVersion".into(), "v1".into());
                }
                value
            }))
        }
        ["apis", name, version] => found(version_of(name, version)),
        _ => return None,
    })
}

fn api_versions(groups: &[&Group<'_>]) -> Value {
    let versions = groups.iter().flat_map(|group| &group.versions);
    let versions: Vec<&str> = versions.map(|(version, _)| *version).collect();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [],
    })
}

fn api_group(group: &Group<'_>) -> Value {
    let version = |version: &str| {
        let group_version = format!("{}/{version}", group.name);
        json!({ "groupVersion": group_version, "version": version })
    };
    let versions: Vec<Value> = group.versions.iter().map(|(it, _)| version(it)).collect();
    json!({
        "name": group.name,
        "preferredVersion": versions.first(),
        "versions": versions,
    })
}

fn resource_list(group: &str, version: &str, kinds: &[&Kind]) -> Value {
    let mut resources = Vec::new();
    for kind in kinds {
        let kind = &kind.resource;
        let mut entry = json!({
            "name": kind.gvr.resource,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs,
        });
        if let Value::Object(entry) = &mut entry {
            if !kind.short_names.is_empty() {
                entry.insert("shortNames".into(), json!(kind.short_names));
            }
            if !kind.categories.is_empty() {
                entry.insert("categories".into(), json!(kind.categories));
            }
        }
        resources.push(entry);
        for part in &kind.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", kind.gvr.resource, part.name),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": part.kind,
                "verbs": part.verbs,
            });
            if let (Value::Object(entry), false) = (&mut entry, part.version.is_empty()) {
                entry.insert("group".into(), json!(part.group));
                entry.insert("version".into(), json!(part.version));
            }
            resources.push(entry);
        }
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    })
}

/// A version of the aggregated form.
#[derive(Clone, Copy)]
enum Aggregated {
    V2,
    V2Beta1,
}

impl Aggregated {
    /// The first aggregated form that the client accepts.
    fn asked(headers: &HeaderMap) -> Option<Self> {
        media_types(headers)
            .filter(|kind| {
                essence(kind) == "application/json"
                    && parameter(kind, "as") == Some("APIGroupDiscoveryList")
                    && parameter(kind, "g") == Some("apidiscovery.k8s.io")
            })
            .find_map(|kind| match parameter(kind, "v") {
                Some("v2") => Some(Self::V2),
                Some("v2beta1") => Some(Self::V2Beta1),
                _ => None,
            })
    }

    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::V2 => (
                "apidiscovery.k8s.io/v2",
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            ),
            Self::V2Beta1 => (
                "apidiscovery.k8s.io/v2beta1",
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
            ),
        }
    }

    fn response(self, groups: &[&Group<'_>]) -> Response<Body> {
        let (api_version, media_type) = self.names();
        let items: Vec<Value> = groups.iter().map(|group| discovered_group(group)).collect();
        let list = json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": api_version,
            "metadata": {},
            "items": items,
        });
        respond(StatusCode::OK, media_type, body::whole(list.to_string()))
    }
}

fn discovered_group(group: &Group<'_>) -> Value {
    let version = |(version, kinds): &(&str, Vec<&Kind>)| {
        let resources: Vec<Value> = kinds.iter().map(|kind| discovered_resource(kind)).collect();
        json!({ "version": version, "resources": resources, "freshness": "Current" })
    };
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({ "metadata": { "name": group.name }, "versions": versions })
}

fn discovered_resource(kind: &Kind) -> Value {
    let kind = &kind.resource;
    let part = |part: &Subresource| {
        let (group, version) = if part.version.is_empty() {
            (&kind.gvr.group, &kind.gvr.version)
        } else {
            (&part.group, &part.version)
        };
        json!({
            "subresource": part.name,
            "responseKind": { "group": group, "version": version, "kind": part.kind },
            "verbs": part.verbs,
        })
    };
    let parts: Vec<Value> = kind.subresources.iter().map(part).collect();
    json!({
        "resource": kind.gvr.resource,
        "responseKind": {
            "group": kind.gvr.group,
            "version": kind.gvr.version,
            "kind": kind.kind,
        },
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
        "shortNames": kind.short_names,
        "categories": kind.categories,
        "subresources": parts,
    })
}
