//! The kinds that Kubernetes itself serves, for when no cluster can be asked.

use std::collections::BTreeMap;

use super::load::{self, LoadError};
use crate::resource::{Gvr, Kind, Subresource};
use crate::yaml::Node;

const FILE: &str = "kinds.yaml";
const KINDS: &str = include_str!("../../policies/kinds.yaml");

/// What can be done to a part of an object, by the part's name.
type Parts = BTreeMap<String, Vec<String>>;

/// The kinds of `policies/kinds.yaml`, as discovery would tell them, without versions.
///
/// # Errors
/// The file that is built in cannot be read.
pub fn known_kinds() -> Result<Vec<Kind>, LoadError> {
    let root = load::document(FILE, KINDS)?;
    let verbs = load::strings(&root, "verbs")?;
    let mut parts = Parts::new();
    for part in load::entries(&root, "parts")? {
        parts.insert(part.key.clone(), load::texts(&part.node, "parts")?);
    }
    let mut kinds = Vec::new();
    for group in load::entries(&root, "kinds")? {
        let Some(of_group) = group.node.as_list() else {
            return Err(load::missing(&group.node, "kinds"));
        };
        for entry in of_group {
            kinds.push(kind(&group.key, entry, &verbs, &parts)?);
        }
    }
    Ok(kinds)
}

fn kind(group: &str, entry: &Node, verbs: &[String], parts: &Parts) -> Result<Kind, LoadError> {
    let kind = load::string(entry, "kind")?;
    let resource = load::string(entry, "resource")?;
    let verbs = match entry.get("verbs") {
        None => verbs.to_vec(),
        Some(own) => load::texts(own, "verbs")?,
    };
    let names = match entry.get("parts") {
        None => Vec::new(),
        Some(own) => load::texts(own, "parts")?,
    };
    let mut subresources = Vec::new();
    for name in names {
        let verbs = parts.get(&name).cloned();
        let verbs = verbs.ok_or_else(|| load::missing(entry, "parts"))?;
        subresources.push(subresource(name, verbs));
    }
    Ok(Kind {
        gvr: Gvr::new(group, "", resource),
        singular: kind.to_ascii_lowercase(),
        kind,
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: entry.get("namespaced").and_then(Node::as_bool) == Some(true),
        verbs,
        subresources,
        preferred_version: true,
    })
}

/// A part of an object, without what only discovery can tell.
pub(super) const fn subresource(name: String, verbs: Vec<String>) -> Subresource {
    Subresource {
        name,
        kind: String::new(),
        group: String::new(),
        version: String::new(),
        verbs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_kinds_are_read_with_their_parts() {
        let kinds = known_kinds().unwrap();
        let find = |group: &str, resource: &str| {
            let mut kinds = kinds.iter();
            kinds
                .find(|kind| kind.gvr == Gvr::new(group, "", resource))
                .unwrap()
        };
        let pods = find("", "pods");
        assert!(pods.namespaced && pods.verbs.len() == 8);
        let log = pods.subresources.iter().find(|part| part.name == "log");
        assert_eq!(log.unwrap().verbs, ["get"]);
        assert!(!find("rbac.authorization.k8s.io", "clusterroles").namespaced);
    }
}
