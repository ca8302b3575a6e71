//! Names of Kubernetes things: resources, scopes, versions, and the request paths made of them.
//!
//! ```text
//! method + path ──Target::parse──▶ Target{verb, gvr, namespace, name, subresource} ──path()──▶ path
//! ```
//! # Invariants
//! - A parsed [`Target`] prints the path it was parsed from; a path that would not is refused
//!   (enforced by: [`Target::parse`], property test in `target::tests`).
//! # Sources
//! - Kubernetes API concepts, "Resource URIs" and "API verbs".

mod target;

use std::fmt;

pub use target::{Target, TargetError, Verb};

/// A resource as request paths name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvr {
    /// Empty for the core group.
    pub group: String,
    /// E.g. `v1`.
    pub version: String,
    /// Plural, lower case, e.g. `deployments`.
    pub resource: String,
}

impl Gvr {
    /// Names a resource.
    pub fn new(
        group: impl Into<String>,
        version: impl Into<String>,
        resource: impl Into<String>,
    ) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            resource: resource.into(),
        }
    }

    /// `group/version`, or `version` for the core group, as in `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Path of the group's version, without a trailing slash.
    pub fn root(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// Path that lists the resource within `scope`.
    ///
    /// The namespace scope of `namespaces` itself is one object, so its list needs a field
    /// selector as well (see [`Gvr::selects_by_name`]).
    pub fn collection(&self, scope: &Scope) -> String {
        match scope {
            Scope::Namespace(namespace) if !self.is_namespaces() => {
                format!("{}/namespaces/{namespace}/{}", self.root(), self.resource)
            }
            Scope::Namespace(_) | Scope::Cluster => format!("{}/{}", self.root(), self.resource),
        }
    }

    /// The name that a list within `scope` has to select with `fieldSelector=metadata.name=…`.
    pub fn selects_by_name<'a>(&self, scope: &'a Scope) -> Option<&'a str> {
        match scope {
            Scope::Namespace(namespace) if self.is_namespaces() => Some(namespace),
            Scope::Namespace(_) | Scope::Cluster => None,
        }
    }

    /// Whether this is the core group's `namespaces`.
    pub fn is_namespaces(&self) -> bool {
        self.group.is_empty() && self.resource == "namespaces"
    }
}

impl fmt::Display for Gvr {
    /// `resource.version.group`, as kubectl writes it; `resource.version` for the core group.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.resource, self.version)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// Which objects of a resource a stream holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// All of them.
    Cluster,
    /// Those of one namespace.
    Namespace(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("*"),
            Self::Namespace(namespace) => f.write_str(namespace),
        }
    }
}

/// A resourceVersion: larger is newer.
///
/// Kubernetes made them comparable within a resource in 1.35 (KEP-5504); with etcd behind the API
/// server they always were decimal numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceVersion(pub u64);

impl ResourceVersion {
    /// Before every version; in a request it means "any version will do".
    pub const ZERO: Self = Self(0);

    /// Reads decimal digits; nothing else is a version.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > 20 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One object, as far as streams and views have to tell it from others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: ResourceVersion,
}

/// A kind as discovery knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Where it is served.
    pub gvr: Gvr,
    /// E.g. `Deployment`.
    pub kind: String,
    /// E.g. `deployment`.
    pub singular: String,
    /// E.g. `deploy`.
    pub short_names: Vec<String>,
    /// E.g. `all`.
    pub categories: Vec<String>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Verbs the API server knows for it.
    pub verbs: Vec<String>,
    /// E.g. `scale`.
    pub subresources: Vec<Subresource>,
    /// Whether the API server prefers this version of the group.
    pub preferred_version: bool,
}

/// A subresource as discovery knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// E.g. `scale`.
    pub name: String,
    /// Kind of its object, e.g. `Scale`.
    pub kind: String,
    /// Group of that kind, where discovery says so.
    pub group: String,
    /// Version of that kind, where discovery says so.
    pub version: String,
    /// Verbs the API server knows for it.
    pub verbs: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collections_are_listed_by_scope() {
        let pods = Gvr::new("", "v1", "pods");
        assert_eq!(pods.collection(&Scope::Cluster), "/api/v1/pods");
        assert_eq!(
            pods.collection(&Scope::Namespace("shop".into())),
            "/api/v1/namespaces/shop/pods"
        );
        let deployments = Gvr::new("apps", "v1", "deployments");
        assert_eq!(
            deployments.collection(&Scope::Cluster),
            "/apis/apps/v1/deployments"
        );
        let namespaces = Gvr::new("", "v1", "namespaces");
        let shop = Scope::Namespace("shop".into());
        assert_eq!(namespaces.collection(&shop), "/api/v1/namespaces");
        assert_eq!(namespaces.selects_by_name(&shop), Some("shop"));
    }

    #[test]
    fn only_digits_are_a_resource_version() {
        assert_eq!(ResourceVersion::parse("42"), Some(ResourceVersion(42)));
        for bad in ["", "-1", "+1", "1a", " 1", "99999999999999999999999"] {
            assert_eq!(ResourceVersion::parse(bad), None, "{bad}");
        }
    }
}
