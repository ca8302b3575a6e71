//! What a request's path and query ask for.

use std::collections::BTreeMap;

use super::kinds::{self, Kind};

/// A path of the API.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`.
    GroupVersion(String, String),
    /// `/version`.
    Version,
    /// `/readyz` and its siblings.
    Health,
    /// `/openapi/v3`.
    OpenApi,
    /// `/openapi/v3/PATH`, with the group and version.
    OpenApiOf(String, String),
    /// A collection or one object.
    Resource(Resource),
    /// Nothing that is served.
    Nowhere,
}

/// A collection, an object, or a part of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) kind: &'static Kind,
    /// Empty: all namespaces, or a kind outside namespaces.
    pub(super) namespace: String,
    /// Empty for the collection.
    pub(super) name: String,
    /// Empty for the object itself.
    pub(super) subresource: String,
}

impl Route {
    /// Reads a path.
    pub(super) fn parse(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["version"] => Self::Version,
            ["healthz" | "livez" | "readyz"] => Self::Health,
            ["openapi", "v3"] => Self::OpenApi,
            ["openapi", "v3", "api", version] => Self::OpenApiOf(String::new(), (*version).into()),
            ["openapi", "v3", "apis", group, version] => {
                Self::OpenApiOf((*group).into(), (*version).into())
            }
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).into()),
            ["api", version] => Self::GroupVersion(String::new(), (*version).into()),
            ["apis", group, version] => Self::GroupVersion((*group).into(), (*version).into()),
            ["api", version, rest @ ..] => Self::resource("", version, rest),
            ["apis", group, version, rest @ ..] => Self::resource(group, version, rest),
            _ => Self::Nowhere,
        }
    }

    fn resource(group: &str, version: &str, rest: &[&str]) -> Self {
        let (namespace, rest) = match rest {
            // `namespaces/NAME` and `namespaces/NAME/status` are about the namespace itself.
            ["namespaces", namespace, inside @ ..]
                if !inside.is_empty() && inside != ["status"] && inside != ["finalize"] =>
            {
                (*namespace, inside)
            }
            _ => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, subresource] => (*plural, *name, *subresource),
            _ => return Self::Nowhere,
        };
        let Some(kind) = kinds::find(group, version, plural) else {
            return Self::Nowhere;
        };
        let in_no_namespace = namespace.is_empty() && kind.namespaced && !name.is_empty();
        let wrongly_in_one = !namespace.is_empty() && !kind.namespaced;
        let unknown_part = !subresource.is_empty() && !kind.has(subresource);
        if in_no_namespace || wrongly_in_one || unknown_part {
            return Self::Nowhere;
        }
        Self::Resource(Resource {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        })
    }
}

/// The parameters of a query string; of a repeated one the first counts.
#[derive(Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads a query string.
    pub(super) fn parse(text: &str) -> Self {
        let mut parameters = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters
                .entry(decode(key))
                .or_insert_with(|| decode(value));
        }
        Self(parameters)
    }

    /// The value of `name`, or empty.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The value of `name` as a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    /// Whether `name` is given as true (client-go writes `true`, curl users `1`).
    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }
}

/// Undoes percent-encoding; what is malformed stays as it is.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let mut decoded = [0_u8; 1];
        rest = after;
        match (byte, after.split_at_checked(2)) {
            (b'+', _) => out.push(b' '),
            (b'%', Some((digits, behind)))
                if hex::decode_to_slice(digits, &mut decoded).is_ok() =>
            {
                out.extend(decoded);
                rest = behind;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resource(path: &str) -> (&'static str, String, String, String) {
        match Route::parse(path) {
            Route::Resource(r) => (r.kind.plural, r.namespace, r.name, r.subresource),
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn paths_name_collections_objects_and_their_parts() {
        let owned = |p, a: &str, b: &str, c: &str| (p, a.to_owned(), b.to_owned(), c.to_owned());
        for (path, expected) in [
            ("/api/v1/pods", owned("pods", "", "", "")),
            ("/api/v1/namespaces", owned("namespaces", "", "", "")),
            (
                "/api/v1/namespaces/shop",
                owned("namespaces", "", "shop", ""),
            ),
            (
                "/api/v1/namespaces/shop/status",
                owned("namespaces", "", "shop", "status"),
            ),
            (
                "/api/v1/namespaces/shop/pods/a/log",
                owned("pods", "shop", "a", "log"),
            ),
            (
                "/apis/apps/v1/namespaces/s/deployments/d/scale",
                owned("deployments", "s", "d", "scale"),
            ),
        ] {
            assert_eq!(resource(path), expected, "{path}");
        }
        for path in [
            "/api/v1/nodes",
            "/api/v1/pods/a",
            "/api/v1/namespaces/shop/pods/a/exec",
            "/apis/apps/v1/namespaces/s/deployments/d/scale/x",
            "/metrics",
        ] {
            assert_eq!(Route::parse(path), Route::Nowhere, "{path}");
        }
    }

    proptest! {
        #[test]
        fn an_encoded_value_is_read_back(value in any::<String>()) {
            let digits = hex::encode_upper(&value);
            let pairs = digits.as_bytes().chunks(2).map(|pair| [b"%", pair].concat());
            let encoded = String::from_utf8(pairs.collect::<Vec<_>>().concat()).expect("ASCII");
            let query = Query::parse(&format!("a={encoded}&b=1"));
            prop_assert_eq!(query.text("a"), value);
        }

        #[test]
        fn any_path_and_query_are_read_without_harm(text in any::<String>()) {
            Route::parse(&text);
            Query::parse(&text);
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc+in&watch=1&limit=500&limit=2&odd=%zz");
        assert_eq!(query.text("labelSelector"), "a=b,c in");
        assert!(query.flag("watch"));
        assert_eq!(query.number("limit"), Some(500));
        assert_eq!(query.text("odd"), "%zz");
    }
}
