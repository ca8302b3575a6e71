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
        let (gvr, view) = (&asked.target.gvr, &account.view);
        let whole = view.list(gvr, None, &Selector::default());
        let mut listing = Listing {
            objects: Vec::new(),
            version: whole.map_or(ResourceVersion(1), |whole| whole.version),
            age: Duration::ZERO,
        };
        let mut names: Vec<&String> = account.namespaces.iter().collect();
        names.sort();
        for name in names {
            match view.age(gvr, Some(name)) {
                Ok(age) => {
                    listing.age = listing.age.max(age);
                    listing.objects.extend(view.get(gvr, "", name));
                }
                Err(_) => listing.objects.push(namespace(name).into()),
            }
        }
        listing.objects.retain(|object| selector.matches(object));
        let age = account
            .age(self.clock.now(), listing.age)
            .unwrap_or_default();
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
