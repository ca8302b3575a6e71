//! What an agent needs in a cluster for what its configuration lets it do.
//!
//! Nothing is decided here: each right is one that [`AccountPolicy::permits`] would let through, or
//! that a watch of a cached kind needs, so what is printed and what is enforced cannot differ.
//!
//! # Sources
//! - Kubernetes, "Using RBAC Authorization": referring to resources and subresources,
//!   `resourceNames` (of lists and watches, with the field selector `metadata.name`).

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::known::subresource;
use super::{AccountPolicy, AllowedKind, KindPattern, Level};
use crate::resource::{Gvr, Kind, Target, Verb};

/// The namespace whose uid tells one cluster from another.
const IDENTITY: &str = "kube-system";

/// RBAC's own word for every group and every resource; as a namespace, one that no configuration
/// can name, so that only a rule for all of them covers it.
const EVERY: &str = "*";

/// Parts that a custom kind can have.
const CUSTOM_PARTS: [&str; 2] = ["scale", "status"];

/// An entry of `rules` in a Role or a `ClusterRole`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyRule {
    /// The group; empty for the core group, `*` for every one.
    pub group: String,
    /// Resources and `resource/part`s.
    pub resources: Vec<String>,
    /// The only objects; empty means all.
    pub names: Vec<String>,
    /// What may be done to them.
    pub verbs: Vec<Verb>,
}

/// What an agent needs for one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// In the whole cluster.
    pub cluster: Vec<PolicyRule>,
    /// In single namespaces.
    pub namespaces: BTreeMap<String, Vec<PolicyRule>>,
    /// Resources that no built-in kind has and that were taken from the configuration as written,
    /// with their group.
    pub assumed: BTreeSet<String>,
}

impl Rights {
    /// Whether a rule names every kind at once, those too that the account does not read.
    pub fn reach_every_kind(&self) -> bool {
        let mut all = self
            .cluster
            .iter()
            .chain(self.namespaces.values().flatten());
        all.any(|rule| rule.group == EVERY)
    }
}

/// Kinds whose resource no one here knows.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "which resources are `{}`? RBAC names resources, not kinds; write them in the configuration as \
     `kubectl api-resources` does, plural and in lower case: `crontabs.stable.example.com`",
    kinds.join("`, `")
)]
pub struct UnknownKinds {
    /// As far as the configuration tells.
    pub kinds: Vec<String>,
}

/// Where a right is needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Cluster,
    /// One object of a kind that is in no namespace.
    Named(String),
    Namespace(String),
}

/// Group, and resource or `resource/part`.
type Resource = (String, String);

impl AccountPolicy {
    /// The rights without which some of the account's reads or operations would be refused by its
    /// cluster, and no more. `known` are the kinds whose resources need not be asked for.
    ///
    /// Discovery, `/version` and the reviews of the caller itself are not among them: Kubernetes
    /// grants those to every authenticated user (`system:discovery`, `system:basic-user`).
    ///
    /// # Errors
    /// A kind is named that is not known, and not by its resource.
    pub fn rights(&self, known: &[Kind]) -> Result<Rights, UnknownKinds> {
        let custom = self.custom(known)?;
        let mut needed = Needed {
            policy: self,
            places: self.candidates(),
            found: BTreeMap::new(),
        };
        needed.add(
            Place::Named(IDENTITY.to_owned()),
            (String::new(), "namespaces".to_owned()),
            [Verb::Get],
        );
        let every = kind((EVERY, EVERY), &[]);
        let all = std::iter::once(&every).chain(known).chain(&custom);
        for allowed in all.filter_map(|kind| self.allow(kind)) {
            if !self.is_review(allowed.kind()) {
                needed.kind(&allowed);
            }
        }
        let assumed = custom.iter().map(|kind| {
            let (group, resource) = (&kind.gvr.group, &kind.gvr.resource);
            format!("{resource}.{group}")
                .trim_end_matches('.')
                .to_owned()
        });
        Ok(Rights {
            assumed: assumed.collect(),
            ..needed.rights()
        })
    }

    /// Kinds that are named and not known, by their resources.
    fn custom(&self, known: &[Kind]) -> Result<Vec<Kind>, UnknownKinds> {
        let operations = self.operations.iter().flat_map(|rule| &rule.kinds);
        let named = self.cached.iter().chain(&self.live).chain(operations);
        let is_unknown = |pattern: &&KindPattern| {
            !pattern.is_any() && !known.iter().any(|kind| pattern.matches(kind))
        };
        let (mut resources, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        for pattern in named.filter(is_unknown) {
            match pattern.as_resource() {
                Some(resource) => drop(resources.insert(resource)),
                None => drop(unknown.insert(pattern.to_string())),
            }
        }
        if !unknown.is_empty() {
            let kinds = unknown.into_iter().collect();
            return Err(UnknownKinds { kinds });
        }
        let kinds = resources.into_iter();
        Ok(kinds.map(|name| kind(name, &CUSTOM_PARTS)).collect())
    }

    /// Every namespace that the configuration names.
    fn candidates(&self) -> BTreeSet<String> {
        let rules = self.operations.iter().flat_map(|rule| &rule.namespaces);
        let named = rules.filter_map(|pattern| match pattern {
            super::NamespacePattern::Any => None,
            super::NamespacePattern::Name(name) => Some(name),
        });
        named.chain(self.namespaces()).cloned().collect()
    }
}

/// A kind of which no more is known than its resource.
fn kind((group, resource): (&str, &str), parts: &[&str]) -> Kind {
    let verbs = |wanted: &[Verb]| -> Vec<String> {
        wanted.iter().map(|verb| verb.as_str().to_owned()).collect()
    };
    let of_part = [Verb::Get, Verb::Patch, Verb::Update];
    let subresources = parts
        .iter()
        .map(|part| subresource((*part).to_owned(), verbs(&of_part)));
    Kind {
        gvr: Gvr::new(group, "", resource),
        kind: resource.to_owned(),
        singular: resource.to_owned(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: true,
        verbs: verbs(&Verb::ALL),
        subresources: subresources.collect(),
        preferred_version: true,
    }
}

/// Rights as they are found.
struct Needed<'a> {
    policy: &'a AccountPolicy,
    /// Namespaces in which something may be allowed that is not allowed everywhere.
    places: BTreeSet<String>,
    found: BTreeMap<Place, BTreeMap<Resource, BTreeSet<Verb>>>,
}

impl Needed<'_> {
    fn add(&mut self, place: Place, resource: Resource, verbs: impl IntoIterator<Item = Verb>) {
        let at = self.found.entry(place).or_default();
        at.entry(resource).or_default().extend(verbs);
    }

    fn kind(&mut self, allowed: &AllowedKind) {
        let kind = allowed.kind();
        let whole = (kind.gvr.group.clone(), kind.gvr.resource.clone());
        if allowed.level() == Level::Cached {
            for place in self.watched(kind) {
                self.add(place, whole.clone(), [Verb::List, Verb::Watch]);
            }
        }
        self.operations(allowed, &kind.verbs, None, &whole);
        for part in &kind.subresources {
            let resource = (whole.0.clone(), format!("{}/{}", whole.1, part.name));
            self.operations(allowed, &part.verbs, Some(&part.name), &resource);
        }
    }

    /// Where the agent lists and watches a cached kind for its feed.
    fn watched(&self, kind: &Kind) -> Vec<Place> {
        let namespaces = self.policy.namespaces();
        if namespaces.is_empty() || !(kind.namespaced || kind.gvr.is_namespaces()) {
            return vec![Place::Cluster];
        }
        let places = namespaces.iter().cloned();
        if kind.gvr.is_namespaces() {
            places.map(Place::Named).collect()
        } else {
            places.map(Place::Namespace).collect()
        }
    }

    /// What operations may do, wherever they may.
    fn operations(
        &mut self,
        allowed: &AllowedKind,
        verbs: &[String],
        part: Option<&str>,
        resource: &Resource,
    ) {
        let kind = allowed.kind();
        let is_namespaces = kind.gvr.is_namespaces();
        for verb in verbs.iter().filter_map(|text| Verb::parse(text)) {
            let on_object = matches!(verb, Verb::Get | Verb::Patch | Verb::Update | Verb::Delete)
                || part.is_some();
            // A request for one Namespace counts as being in it.
            let in_namespace = kind.namespaced || (is_namespaces && on_object);
            let everywhere = in_namespace.then_some(EVERY);
            if self.permits(allowed, verb, everywhere, part) {
                self.add(Place::Cluster, resource.clone(), [verb]);
                continue;
            }
            if !in_namespace {
                continue;
            }
            for namespace in self.places.clone() {
                if self.permits(allowed, verb, Some(&namespace), part) {
                    let place = if is_namespaces {
                        Place::Named(namespace)
                    } else {
                        Place::Namespace(namespace)
                    };
                    self.add(place, resource.clone(), [verb]);
                }
            }
        }
    }

    fn permits(
        &self,
        allowed: &AllowedKind,
        verb: Verb,
        namespace: Option<&str>,
        part: Option<&str>,
    ) -> bool {
        let target = Target {
            verb,
            gvr: allowed.kind().gvr.clone(),
            namespace: namespace.map(str::to_owned),
            name: None,
            subresource: part.map(str::to_owned),
        };
        self.policy.permits(&target, allowed).is_allowed()
    }

    /// What is left once nothing is granted twice.
    fn rights(mut self) -> Rights {
        let cluster = self.found.remove(&Place::Cluster).unwrap_or_default();
        let mut rights = Rights::default();
        let mut named: BTreeMap<(Resource, BTreeSet<Verb>), Vec<String>> = BTreeMap::new();
        for (place, found) in self.found {
            let left = without(&found, &cluster);
            match place {
                Place::Namespace(namespace) => {
                    let rules = folded(&simplified(&left));
                    if !rules.is_empty() {
                        rights.namespaces.insert(namespace, rules);
                    }
                }
                Place::Named(name) => {
                    for one in left {
                        named.entry(one).or_default().push(name.clone());
                    }
                }
                Place::Cluster => {}
            }
        }
        rights.cluster = named
            .into_iter()
            .map(|(((group, resource), verbs), names)| PolicyRule {
                group,
                resources: vec![resource],
                names,
                verbs: verbs.into_iter().collect(),
            })
            .collect();
        rights.cluster.extend(folded(&simplified(&cluster)));
        rights
    }
}

type Found = BTreeMap<Resource, BTreeSet<Verb>>;

/// `found` without what the whole cluster's rights grant already.
fn without(found: &Found, cluster: &Found) -> Found {
    let every = cluster.get(&every());
    filtered(found, |resource, verb| {
        let by_name = cluster.get(resource);
        [by_name, every]
            .iter()
            .flatten()
            .any(|set| set.contains(&verb))
    })
}

/// `found` without what its own `*` grants.
fn simplified(found: &Found) -> Found {
    let (every, own) = (every(), found.get(&every()));
    filtered(found, |resource, verb| {
        *resource != every && own.is_some_and(|set| set.contains(&verb))
    })
}

fn filtered(found: &Found, is_granted: impl Fn(&Resource, Verb) -> bool) -> Found {
    let mut left = Found::new();
    for (resource, verbs) in found {
        let verbs = verbs.iter().copied();
        let rest: BTreeSet<Verb> = verbs.filter(|verb| !is_granted(resource, *verb)).collect();
        if !rest.is_empty() {
            left.insert(resource.clone(), rest);
        }
    }
    left
}

fn every() -> Resource {
    (EVERY.to_owned(), EVERY.to_owned())
}

/// Resources of one group with the same verbs become one rule.
fn folded(found: &Found) -> Vec<PolicyRule> {
    let mut by_verbs: BTreeMap<(&str, Vec<Verb>), Vec<String>> = BTreeMap::new();
    for ((group, resource), verbs) in found {
        let key = (group.as_str(), verbs.iter().copied().collect());
        by_verbs.entry(key).or_default().push(resource.clone());
    }
    let rules = by_verbs
        .into_iter()
        .map(|((group, verbs), resources)| PolicyRule {
            group: group.to_owned(),
            resources,
            names: Vec::new(),
            verbs,
        });
    rules.collect()
}

#[cfg(test)]
#[path = "rights_tests.rs"]
mod tests;
