//! Which kinds an API server has: in two requests where it can, else one per group and version.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::queries::{collect, parse};
use super::{ApiRequest, Cluster, ClusterError};
use crate::resource::{Gvr, Kind, Subresource};

/// Largest discovery document that is read, in bytes.
///
/// A cluster with 2,000 custom kinds answers with about 2 MB.
const DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// Most pairs of group and version that are asked one by one.
const GROUP_VERSIONS: usize = 1024;

/// Aggregated forms first; a server that knows neither answers in the old form.
const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                      application/json";

/// What discovery found.
#[derive(Debug, Default)]
pub struct Discovery {
    /// The kinds, core group first, otherwise in the server's order.
    pub kinds: Vec<Kind>,
    /// `group/version`s that exist and whose kinds the server could not tell (now), usually those
    /// of an extension API server that is down.
    pub incomplete: Vec<String>,
}

impl Cluster {
    /// The kinds that the API server has, and the groups whose kinds it could not tell.
    ///
    /// # Errors
    /// Failures that concern all of it, not those of one group.
    pub async fn discovery(&self) -> Result<Discovery, ClusterError> {
        let mut found = Discovery::default();
        for root in ["/api", "/apis"] {
            let document = self.get(root, ACCEPT, DOCUMENT_BYTES).await?;
            let shape: Shape = parse(&document)?;
            if shape.kind == "APIGroupDiscoveryList" {
                aggregated(parse(&document)?, &mut found);
            } else {
                self.legacy(parse(&document)?, &mut found).await?;
            }
        }
        Ok(found)
    }

    /// Asks for each group and version of an old-form list.
    async fn legacy(&self, list: LegacyRoot, found: &mut Discovery) -> Result<(), ClusterError> {
        let core = list.versions.iter().map(|version| GroupVersion {
            group: String::new(),
            version: version.clone(),
            is_preferred: list.versions.first() == Some(version),
        });
        let named = list.groups.iter().flat_map(|group| {
            group.versions.iter().map(|version| GroupVersion {
                group: group.name.clone(),
                version: version.version.clone(),
                is_preferred: group
                    .preferred
                    .as_ref()
                    .is_some_and(|preferred| preferred.version == version.version),
            })
        });
        let all: Vec<GroupVersion> = core.chain(named).take(GROUP_VERSIONS + 1).collect();
        if all.len() > GROUP_VERSIONS {
            return Err(ClusterError::TooLarge {
                what: "the list of API groups",
                max: GROUP_VERSIONS,
            });
        }
        for at in all {
            match self.resources(&at).await {
                Ok(list) => found.kinds.extend(legacy_kinds(&at, list)),
                Err(ClusterError::Unauthorized) => return Err(ClusterError::Unauthorized),
                Err(_of_this_group_only) => found.incomplete.push(at.gvr("").api_version()),
            }
        }
        Ok(())
    }

    async fn resources(&self, at: &GroupVersion) -> Result<Vec<LegacyResource>, ClusterError> {
        let path = at.gvr("").root();
        let request = ApiRequest::get(path).header("accept", "application/json");
        let answer = self.send(request).await?;
        let document = collect(answer, "the resources of a group", DOCUMENT_BYTES).await?;
        let list: LegacyList = parse(&document)?;
        Ok(list.resources)
    }
}

/// Go writes an empty list as `null`.
fn or_none<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(from).map(Option::unwrap_or_default)
}

struct GroupVersion {
    group: String,
    version: String,
    is_preferred: bool,
}

impl GroupVersion {
    fn gvr(&self, resource: &str) -> Gvr {
        Gvr::new(&self.group, &self.version, resource)
    }
}

#[derive(Deserialize)]
struct Shape {
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
struct AggregatedList {
    #[serde(default, deserialize_with = "or_none")]
    items: Vec<AggregatedGroup>,
}

#[derive(Deserialize)]
struct AggregatedGroup {
    #[serde(default)]
    metadata: GroupName,
    #[serde(default, deserialize_with = "or_none")]
    versions: Vec<AggregatedVersion>,
}

#[derive(Default, Deserialize)]
struct GroupName {
    /// Absent for the core group.
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct AggregatedVersion {
    version: String,
    #[serde(default, deserialize_with = "or_none")]
    resources: Vec<AggregatedResource>,
    #[serde(default)]
    freshness: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AggregatedResource {
    resource: String,
    response_kind: Option<ResponseKind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default, deserialize_with = "or_none")]
    verbs: Vec<String>,
    #[serde(default, deserialize_with = "or_none")]
    short_names: Vec<String>,
    #[serde(default, deserialize_with = "or_none")]
    categories: Vec<String>,
    #[serde(default, deserialize_with = "or_none")]
    subresources: Vec<AggregatedSubresource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AggregatedSubresource {
    subresource: String,
    response_kind: Option<ResponseKind>,
    #[serde(default, deserialize_with = "or_none")]
    verbs: Vec<String>,
}

#[derive(Default, Deserialize)]
struct ResponseKind {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kind: String,
}

fn aggregated(list: AggregatedList, found: &mut Discovery) {
    for group in list.items {
        let mut is_preferred = true; // versions come in the server's order of preference
        for version in group.versions {
            let at = GroupVersion {
                group: group.metadata.name.clone(),
                version: version.version,
                is_preferred: std::mem::take(&mut is_preferred),
            };
            if version.freshness == "Stale" {
                found.incomplete.push(at.gvr("").api_version());
            }
            let kinds = version.resources.into_iter();
            found
                .kinds
                .extend(kinds.filter_map(|one| aggregated_kind(&at, one)));
        }
    }
}

/// None for a resource that is only there for its subresources.
fn aggregated_kind(at: &GroupVersion, resource: AggregatedResource) -> Option<Kind> {
    let kind = resource.response_kind?.kind;
    let subresources = resource.subresources.into_iter().map(|sub| {
        let of = sub.response_kind.unwrap_or_default();
        Subresource {
            name: sub.subresource,
            kind: of.kind,
            group: of.group,
            version: of.version,
            verbs: sub.verbs,
        }
    });
    Some(Kind {
        gvr: at.gvr(&resource.resource),
        kind,
        singular: resource.singular_resource,
        short_names: resource.short_names,
        categories: resource.categories,
        namespaced: resource.scope == "Namespaced",
        verbs: resource.verbs,
        subresources: subresources.collect(),
        preferred_version: at.is_preferred,
    })
}

/// `APIVersions` of `/api` and `APIGroupList` of `/apis` in one.
#[derive(Deserialize)]
struct LegacyRoot {
    #[serde(default, deserialize_with = "or_none")]
    versions: Vec<String>,
    #[serde(default, deserialize_with = "or_none")]
    groups: Vec<LegacyGroup>,
}

#[derive(Deserialize)]
struct LegacyGroup {
    name: String,
    #[serde(default, deserialize_with = "or_none")]
    versions: Vec<LegacyVersion>,
    #[serde(rename = "preferredVersion")]
    preferred: Option<LegacyVersion>,
}

#[derive(Deserialize)]
struct LegacyVersion {
    version: String,
}

#[derive(Deserialize)]
struct LegacyList {
    #[serde(default, deserialize_with = "or_none")]
    resources: Vec<LegacyResource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LegacyResource {
    name: String,
    #[serde(default)]
    singular_name: String,
    #[serde(default)]
    namespaced: bool,
    kind: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default, deserialize_with = "or_none")]
    verbs: Vec<String>,
    #[serde(default, deserialize_with = "or_none")]
    short_names: Vec<String>,
    #[serde(default, deserialize_with = "or_none")]
    categories: Vec<String>,
}

fn legacy_kinds(at: &GroupVersion, resources: Vec<LegacyResource>) -> Vec<Kind> {
    let mut parts: BTreeMap<String, Vec<Subresource>> = BTreeMap::new();
    let mut kinds = Vec::new();
    for resource in resources {
        if let Some((parent, name)) = resource.name.split_once('/') {
            parts
                .entry(parent.to_owned())
                .or_default()
                .push(Subresource {
                    name: name.to_owned(),
                    kind: resource.kind,
                    group: resource.group,
                    version: resource.version,
                    verbs: resource.verbs,
                });
            continue;
        }
        kinds.push(Kind {
            gvr: at.gvr(&resource.name),
            kind: resource.kind,
            singular: resource.singular_name,
            short_names: resource.short_names,
            categories: resource.categories,
            namespaced: resource.namespaced,
            verbs: resource.verbs,
            subresources: Vec::new(),
            preferred_version: at.is_preferred,
        });
    }
    for kind in &mut kinds {
        kind.subresources = parts.remove(&kind.gvr.resource).unwrap_or_default();
    }
    kinds
}
