//! The kinds of an account: which are served, and by which streams.

use std::fmt;

use crate::cluster::Discovery;
use crate::limits;
use crate::ops::Kinds;
use crate::policy::{AccountPolicy, AllowedKind, Level};
use crate::resource::{Gvr, Scope};
use crate::wire::v1;

/// Why an account serves fewer kinds than it is allowed to.
pub(super) const TOO_MANY_STREAMS: &str = "TooManyStreams";

/// What an account serves.
pub(super) struct Chosen {
    /// In the order of the API server.
    pub(super) kinds: Vec<AllowedKind>,
    pub(super) left_out: Option<LeftOut>,
}

/// Kinds that are not served, because an account has more streams already than it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    kinds: usize,
    first: Gvr,
    streams: usize,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kinds × namespaces are {} streams, and an account has at most {}; left out: {} kinds, \
             `{}` first; allow fewer kinds or namespaces, or watch all namespaces",
            self.streams,
            limits::STREAMS_PER_ACCOUNT,
            self.kinds,
            self.first,
        )
    }
}

/// The kinds that were found and are allowed. One of a group that the API server could not tell
/// stays as it was `before`; one whose streams do not fit is left out as a whole, for a part of its
/// namespaces would look like all of them.
pub(super) fn choose(found: &Discovery, before: &Kinds, policy: &AccountPolicy) -> Chosen {
    let is_told = |gvr: &Gvr| {
        let group_is_told = !found.incomplete.contains(&gvr.api_version());
        group_is_told || found.kinds.iter().any(|kind| kind.gvr == *gvr)
    };
    let stay = before.iter().filter(|(gvr, _)| !is_told(gvr));
    let stay = stay.map(|(_, kind)| kind.clone());
    let allowed = found.kinds.iter().filter_map(|kind| policy.allow(kind));
    let (mut kinds, mut left_out) = (Vec::new(), Vec::new());
    let (mut streams, mut wanted) = (0, 0);
    for kind in allowed.chain(stay) {
        let needs = streams_of(&kind, policy);
        wanted += needs;
        if streams + needs > limits::STREAMS_PER_ACCOUNT {
            left_out.push(kind.kind().gvr.clone());
        } else {
            streams += needs;
            kinds.push(kind);
        }
    }
    let left_out = left_out.first().map(|first| LeftOut {
        kinds: left_out.len(),
        first: first.clone(),
        streams: wanted,
    });
    Chosen { kinds, left_out }
}

fn streams_of(kind: &AllowedKind, policy: &AccountPolicy) -> usize {
    match kind.level() {
        Level::Cached => scopes(kind, policy.namespaces()).len(),
        Level::Live => 0,
    }
}

/// Which streams a kind needs when the account is limited to `namespaces`.
pub(super) fn scopes(kind: &AllowedKind, namespaces: &[String]) -> Vec<Scope> {
    let limited = kind.kind().namespaced || kind.kind().gvr.is_namespaces();
    if namespaces.is_empty() || !limited {
        return vec![Scope::Cluster];
    }
    namespaces.iter().cloned().map(Scope::Namespace).collect()
}

/// What the hub is told of the kinds.
pub(super) fn discovery(
    allowed: &[AllowedKind],
    policy: &AccountPolicy,
    version: &[u8],
) -> v1::Discovery {
    let kinds = allowed.iter().map(|allowed| {
        let kind = allowed.kind();
        let subresources =
            policy
                .subresources(allowed)
                .into_iter()
                .map(|part| v1::DiscoveredSubresource {
                    name: part.name,
                    kind: part.kind,
                    group: part.group,
                    version: part.version,
                    verbs: part.verbs,
                });
        let level = match allowed.level() {
            Level::Cached => v1::Level::Cached,
            Level::Live => v1::Level::Live,
        };
        v1::DiscoveredKind {
            resource: Some(v1::Gvr {
                group: kind.gvr.group.clone(),
                version: kind.gvr.version.clone(),
                resource: kind.gvr.resource.clone(),
            }),
            kind: kind.kind.clone(),
            singular: kind.singular.clone(),
            short_names: kind.short_names.clone(),
            categories: kind.categories.clone(),
            namespaced: kind.namespaced,
            verbs: policy.verbs(allowed),
            subresources: subresources.collect(),
            level: level.into(),
            masked: allowed.masked(),
            preferred_version: kind.preferred_version,
        }
    });
    v1::Discovery {
        kinds: kinds.collect(),
        version_json: version.to_vec().into(),
        namespaces: policy.namespaces().to_vec(),
        outdated: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{AccountSettings, KindPattern, load};
    use crate::resource::Kind;

    fn kind(resource: &str, namespaced: bool) -> Kind {
        Kind {
            gvr: Gvr::new("shop.example", "v1", resource),
            kind: resource.to_owned(),
            singular: String::new(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced,
            verbs: ["list", "watch"].map(str::to_owned).to_vec(),
            subresources: Vec::new(),
            preferred_version: true,
        }
    }

    /// Everything is cached, within this many namespaces.
    fn policy(namespaces: usize) -> AccountPolicy {
        let settings = AccountSettings {
            cached: Some(vec![KindPattern::parse("*").unwrap()]),
            namespaces: (0..namespaces).map(|at| format!("team-{at}")).collect(),
            ..AccountSettings::default()
        };
        AccountPolicy::new(settings, &load().unwrap())
    }

    fn found() -> Discovery {
        let kinds = [
            ("books", true),
            ("carts", true),
            ("desks", true),
            ("eras", false),
        ];
        Discovery {
            kinds: kinds
                .map(|(name, namespaced)| kind(name, namespaced))
                .to_vec(),
            incomplete: Vec::new(),
        }
    }

    fn names(chosen: &Chosen) -> Vec<&str> {
        let kinds = chosen.kinds.iter();
        kinds
            .map(|kind| kind.kind().gvr.resource.as_str())
            .collect()
    }

    #[test]
    fn a_kind_whose_streams_do_not_fit_is_left_out_as_a_whole_and_told() {
        let fits = choose(&found(), &Kinds::new(), &policy(1_365));
        assert_eq!(names(&fits), ["books", "carts", "desks", "eras"]);
        assert_eq!(fits.left_out, None);
        let surplus = choose(&found(), &Kinds::new(), &policy(1_366));
        assert_eq!(names(&surplus), ["books", "carts", "eras"]);
        assert_eq!(
            surplus.left_out.unwrap().to_string(),
            "kinds × namespaces are 4099 streams, and an account has at most 4096; left out: 1 \
             kinds, `desks.v1.shop.example` first; allow fewer kinds or namespaces, or watch all \
             namespaces"
        );
    }

    #[test]
    fn a_kind_of_a_group_that_is_not_told_stays() {
        let policy = policy(0);
        let all = choose(&found(), &Kinds::new(), &policy).kinds.into_iter();
        let before: Kinds = all.map(|kind| (kind.kind().gvr.clone(), kind)).collect();
        let untold = Discovery {
            kinds: Vec::new(),
            incomplete: vec!["shop.example/v1".to_owned()],
        };
        assert_eq!(choose(&untold, &before, &policy).kinds.len(), before.len());
        assert!(
            choose(&Discovery::default(), &before, &policy)
                .kinds
                .is_empty()
        );
    }
}
