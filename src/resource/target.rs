//! What a request to a Kubernetes API asks for.

use std::fmt;

use thiserror::Error;

use super::Gvr;

/// A Kubernetes verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// POST to a collection or a subresource.
    Create,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
    /// GET of one object.
    Get,
    /// GET of a collection.
    List,
    /// PATCH.
    Patch,
    /// PUT.
    Update,
    /// GET with `watch=true`.
    Watch,
}

impl Verb {
    /// The verb as RBAC writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }

    /// Reads a verb as RBAC writes it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text)
    }

    /// Every verb.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];

    /// Whether it only reads.
    pub const fn reads(self) -> bool {
        matches!(self, Self::Get | Self::List | Self::Watch)
    }

    const fn method(self) -> &'static str {
        match self {
            Self::Create => "POST",
            Self::Delete | Self::DeleteCollection => "DELETE",
            Self::Get | Self::List | Self::Watch => "GET",
            Self::Patch => "PATCH",
            Self::Update => "PUT",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a request asks for. [`Target::path`] is the only path that means the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What is to be done.
    pub verb: Verb,
    /// To which resource.
    pub gvr: Gvr,
    /// In which namespace; for `namespaces` itself, the namespace that is named.
    pub namespace: Option<String>,
    /// On which object; `None` for a collection.
    pub name: Option<String>,
    /// On which part of it, e.g. `scale`.
    pub subresource: Option<String>,
}

/// A path that is not a request for a resource, or not in the one form that is accepted.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    /// A method that no verb has.
    #[error("method `{0}` is not part of the Kubernetes API")]
    Method(String),
    /// The path is not one of a resource.
    #[error("path is not that of a resource")]
    NotAResource,
    /// The path means something, but is written in another way than it should.
    #[error("path is not in canonical form")]
    NotCanonical,
}

impl Target {
    /// Reads a method and a target (path with optional query, as on the request line).
    ///
    /// Accepted are exactly the paths that [`Target::path`] prints: no percent-encoding, no empty
    /// or dot segments, no trailing slash, names of resources in lower case.
    ///
    /// # Errors
    /// Everything else.
    pub fn parse(method: &str, target: &str) -> Result<Self, TargetError> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if !path.bytes().all(is_path_byte) {
            return Err(TargetError::NotCanonical);
        }
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let (gvr_at, group) = match segments.first() {
            Some(&"api") => (1, ""),
            Some(&"apis") => (2, segments.get(1).copied().unwrap_or_default()),
            _ => return Err(TargetError::NotAResource),
        };
        if gvr_at == 2 && group.is_empty() {
            return Err(TargetError::NotAResource);
        }
        let (Some(version), Some(rest)) = (segments.get(gvr_at), segments.get(gvr_at + 1..)) else {
            return Err(TargetError::NotAResource);
        };
        let parsed = Self::from_segments(method, query, group, version, rest)?;
        if parsed.path() != path {
            return Err(TargetError::NotCanonical);
        }
        Ok(parsed)
    }

    fn from_segments(
        method: &str,
        query: &str,
        group: &str,
        version: &str,
        rest: &[&str],
    ) -> Result<Self, TargetError> {
        let own = |text: &&str| (*text).to_owned();
        let is_core = group.is_empty();
        let (resource, namespace, name, subresource) = match rest {
            ["namespaces"] if is_core => ("namespaces", None, None, None),
            ["namespaces", name] if is_core => ("namespaces", Some(name), Some(name), None),
            ["namespaces", name, part @ ("status" | "finalize")] if is_core => {
                ("namespaces", Some(name), Some(name), Some(part))
            }
            ["namespaces", namespace, resource] => (*resource, Some(namespace), None, None),
            ["namespaces", namespace, resource, name] => {
                (*resource, Some(namespace), Some(name), None)
            }
            ["namespaces", namespace, resource, name, part] => {
                (*resource, Some(namespace), Some(name), Some(part))
            }
            [resource] => (*resource, None, None, None),
            [resource, name] => (*resource, None, Some(name), None),
            [resource, name, part] => (*resource, None, Some(name), Some(part)),
            _ => return Err(TargetError::NotAResource),
        };
        let has_dots = |text: &str| matches!(text, "" | "." | "..");
        if rest.iter().any(|segment| has_dots(segment)) || has_dots(version) {
            return Err(TargetError::NotCanonical);
        }
        if !resource
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || b"0123456789-.".contains(&byte))
        {
            return Err(TargetError::NotCanonical);
        }
        Ok(Self {
            verb: verb(method, query, name.is_some())?,
            gvr: Gvr::new(group, version, resource),
            namespace: namespace.map(own),
            name: name.map(own),
            subresource: subresource.map(|part: &&str| own(part)),
        })
    }

    /// The path of this request.
    pub fn path(&self) -> String {
        let mut path = self.gvr.root();
        let mut push = |segment: &str| {
            path.push('/');
            path.push_str(segment);
        };
        if let (Some(namespace), false) = (&self.namespace, self.gvr.is_namespaces()) {
            push("namespaces");
            push(namespace);
        }
        push(&self.gvr.resource);
        if let Some(name) = &self.name {
            push(name);
        }
        if let Some(part) = &self.subresource {
            push(part);
        }
        path
    }

    /// Whether it names a namespace for a kind that is in none: no API server knows such a path.
    pub fn is_misplaced(&self, namespaced: bool) -> bool {
        self.namespace.is_some() && !namespaced && !self.gvr.is_namespaces()
    }

    /// The HTTP method of this request.
    pub const fn method(&self) -> &'static str {
        self.verb.method()
    }
}

/// Unreserved characters of RFC 3986 and those that names of Kubernetes objects use besides.
const fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'/' | b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'+' | b'$'
        )
}

fn verb(method: &str, query: &str, named: bool) -> Result<Verb, TargetError> {
    Ok(match (method, named) {
        ("GET", _) if is_watch(query) => Verb::Watch,
        ("GET", true) => Verb::Get,
        ("GET", false) => Verb::List,
        ("POST", _) => Verb::Create,
        ("PUT", _) => Verb::Update,
        ("PATCH", _) => Verb::Patch,
        ("DELETE", true) => Verb::Delete,
        ("DELETE", false) => Verb::DeleteCollection,
        _ => return Err(TargetError::Method(method.chars().take(16).collect())),
    })
}

/// Whether the query asks for a watch, as the API server reads it: any value but `0` and `false`,
/// in any spelling of the key that decodes to `watch`.
fn is_watch(query: &str) -> bool {
    query.split('&').any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        percent_decoded_equals(key, b"watch")
            && !percent_decoded_equals(value, b"0")
            && !percent_decoded_equals(value, b"false")
    })
}

fn percent_decoded_equals(text: &str, wanted: &[u8]) -> bool {
    let mut decoded = Vec::with_capacity(wanted.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let digits = [bytes.next(), bytes.next()].map(Option::unwrap_or_default);
            std::str::from_utf8(&digits)
                .ok()
                .and_then(|text| u8::from_str_radix(text, 16).ok())
                .unwrap_or(b'%')
        } else {
            byte
        };
        decoded.push(byte);
        if decoded.len() > wanted.len() {
            return false;
        }
    }
    decoded.eq_ignore_ascii_case(wanted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(method: &str, target: &str) -> Target {
        Target::parse(method, target).unwrap()
    }

    #[test]
    fn every_shape_of_path_is_understood() {
        let pods = Gvr::new("", "v1", "pods");
        let list = parse("GET", "/api/v1/pods?limit=500");
        assert_eq!(
            (list.verb, &list.gvr, list.namespace),
            (Verb::List, &pods, None)
        );
        let watch = parse("GET", "/api/v1/namespaces/shop/pods?watch=true");
        assert_eq!(
            (watch.verb, watch.namespace.as_deref()),
            (Verb::Watch, Some("shop"))
        );
        let log = parse("GET", "/api/v1/namespaces/shop/pods/p/log");
        assert_eq!(
            (log.name.as_deref(), log.subresource.as_deref()),
            (Some("p"), Some("log"))
        );
        let scale = parse(
            "PATCH",
            "/apis/apps/v1/namespaces/shop/deployments/web/scale",
        );
        assert_eq!(scale.gvr, Gvr::new("apps", "v1", "deployments"));
        let namespace = parse("DELETE", "/api/v1/namespaces/shop");
        assert_eq!(
            (namespace.verb, namespace.gvr.is_namespaces()),
            (Verb::Delete, true)
        );
        let finalize = parse("PUT", "/api/v1/namespaces/shop/finalize");
        assert_eq!(finalize.subresource.as_deref(), Some("finalize"));
        let all = parse("DELETE", "/api/v1/namespaces/shop/pods");
        assert_eq!(all.verb, Verb::DeleteCollection);
        let crd = parse(
            "GET",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/a.example.com",
        );
        assert_eq!(
            (crd.verb, crd.name.as_deref()),
            (Verb::Get, Some("a.example.com"))
        );
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        for path in [
            "/api/v1/namespaces/shop/../kube-system/secrets",
            "/api/v1/namespaces/shop/%73ecrets",
            "/api/v1//pods",
            "/api/v1/pods/",
            "/api/v1/Secrets",
            "/api/v1/namespaces/./pods",
            "/apis//v1/pods",
            "/api/v1/namespaces/shop/pods/p/log/more",
            "/api/v1/watch/pods/x/y",
            "/version",
            "/",
            "",
            "/api/v1/pods\u{e9}",
        ] {
            assert!(Target::parse("GET", path).is_err(), "{path}");
        }
        assert!(matches!(
            Target::parse("TRACE", "/api/v1/pods"),
            Err(TargetError::Method(_))
        ));
    }

    #[test]
    fn a_watch_cannot_hide_behind_its_spelling() {
        for query in [
            "watch",
            "watch=1",
            "watch=true",
            "%77atch=1",
            "WATCH=t",
            "a=b&watch=",
        ] {
            assert_eq!(
                parse("GET", &format!("/api/v1/pods?{query}")).verb,
                Verb::Watch,
                "{query}"
            );
        }
        for query in ["", "watch=0", "watch=false", "watched=1"] {
            assert_eq!(
                parse("GET", &format!("/api/v1/pods?{query}")).verb,
                Verb::List,
                "{query}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_parsed_target_prints_its_path(path in "/(api|apis/[a-z.]{0,5})/[a-z0-9.]{0,3}(/[a-zA-Z0-9.%~_-]{0,4}){0,6}") {
            if let Ok(target) = Target::parse("GET", &path) {
                prop_assert_eq!(target.path(), path);
            }
        }
    }
}
