//! Namespaces, which are always answered for: without them Clouddriver evicts all it knows.

use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::body::Body;
use super::port::{Served, Upstream};
use super::read::{list_response, tell_age};
use super::service::{Asked, Facade};
use crate::resource::{Gvr, Identity, ResourceVersion};
use crate::view::{Listing, Object, Selector};

impl<U: Upstream> Facade<U> {
    /// The namespaces an account is limited to: as they are known, or by their names.
    pub(super) fn limited_namespaces(
        &self,
        asked: &Asked<'_>,
        selector: &Selector,
    ) -> (Response<Body>, Served) {
        let account = asked.account;
        let mut listing = Listing {
            objects: Vec::new(),
            version: ResourceVersion(1),
            age: Duration::ZERO,
        };
        let mut names: Vec<&String> = account.namespaces.iter().collect();
        names.sort();
        let mut versions = Vec::new();
        for name in names {
            match account
                .view
                .list(&asked.target.gvr, Some(name), &Selector::default())
            {
                Ok(found) => {
                    let named = found
                        .objects
                        .into_iter()
                        .filter(|it| it.identity().name == *name);
                    listing.objects.extend(named);
                    versions.push(found.version);
                    listing.age = listing.age.max(found.age);
                }
                Err(_) => listing.objects.push(namespace(name).into()),
            }
        }
        listing.objects.retain(|object| selector.matches(object));
        listing.version = versions.into_iter().min().unwrap_or(listing.version);
        let age = self.age(account, listing.age).unwrap_or_default();
        let mut response = list_response(asked, listing);
        tell_age(&mut response, age);
        (response, Served::View)
    }
}

/// A namespace of which the name is all that is known.
pub(super) fn namespace(name: &str) -> Object {
    let gvr = Gvr::new("", "v1", "namespaces");
    let text = serde_json::Value::from(name);
    let before = format!(
        "{{\"kind\":\"Namespace\",\"apiVersion\":\"v1\",\"metadata\":{{\"name\":{text},\
         \"labels\":{{\"kubernetes.io/metadata.name\":{text}}},\"resourceVersion\":\""
    );
    let identity = Identity {
        name: name.to_owned(),
        resource_version: ResourceVersion(1),
        ..Identity::default()
    };
    let at = u32::try_from(before.len()).unwrap_or(u32::MAX);
    let json = Bytes::from(before + "1\"}}");
    Object::new(&gvr, "Namespace", identity, json, at, 1, false)
}
