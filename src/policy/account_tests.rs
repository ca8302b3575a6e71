//! Tests of the compiled policy, and the kinds that the room's other tests share.

use super::*;
use crate::policy::load;
use crate::resource::Gvr;

pub(in crate::policy) fn kind(group: &str, resource: &str, name: &str) -> Kind {
    let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let subresource = |name: &str| Subresource {
        name: name.to_owned(),
        kind: String::new(),
        group: String::new(),
        version: String::new(),
        verbs: own(&["get", "patch", "update"]),
    };
    Kind {
        gvr: Gvr::new(group, "v1", resource),
        kind: name.to_owned(),
        singular: name.to_ascii_lowercase(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: !matches!(resource, "namespaces" | "nodes"),
        verbs: own(&[
            "create", "delete", "get", "list", "patch", "update", "watch",
        ]),
        subresources: vec![
            subresource("status"),
            subresource("exec"),
            subresource("binding"),
        ],
        preferred_version: true,
    }
}

fn patterns(texts: &[&str]) -> Vec<KindPattern> {
    let parsed = texts.iter().map(|text| KindPattern::parse(text).unwrap());
    parsed.collect()
}

fn policy(settings: AccountSettings) -> AccountPolicy {
    AccountPolicy::new(settings, &load().unwrap())
}

fn ask(policy: &AccountPolicy, kind: &Kind, method: &str, path: &str) -> Decision {
    let allowed = policy.allow(kind).unwrap();
    policy.permits(&Target::parse(method, path).unwrap(), &allowed)
}

#[test]
fn the_defaults_are_the_documented_levels() {
    let policy = policy(AccountSettings::default());
    let level = |kind: &Kind| policy.allow(kind).map(|allowed| allowed.level());
    assert_eq!(level(&kind("", "pods", "Pod")), Some(Level::Cached));
    assert_eq!(
        level(&kind("apps", "deployments", "Deployment")),
        Some(Level::Cached)
    );
    assert_eq!(
        level(&kind("", "configmaps", "ConfigMap")),
        Some(Level::Live)
    );
    assert_eq!(level(&kind("", "secrets", "Secret")), None);
    assert_eq!(
        level(&kind("stable.example.com", "crontabs", "CronTab")),
        None
    );
}

#[test]
fn a_masked_kind_must_be_named() {
    let secret = kind("", "secrets", "Secret");
    let everything = policy(AccountSettings {
        cached: Some(patterns(&["*"])),
        live: Some(patterns(&["*"])),
        ..AccountSettings::default()
    });
    assert!(everything.allow(&secret).is_none());
    assert!(
        everything
            .allow(&kind("x.example.com", "things", "Thing"))
            .is_some()
    );
    let named = policy(AccountSettings {
        live: Some(patterns(&["*", "secrets"])),
        ..AccountSettings::default()
    });
    let allowed = named.allow(&secret).unwrap();
    assert!(allowed.masked());
    assert_eq!(allowed.level(), Level::Live);
}

#[test]
fn a_kind_that_cannot_be_watched_is_live() {
    let policy = policy(AccountSettings {
        cached: Some(patterns(&["Pod"])),
        live: Some(patterns(&["Pod"])),
        ..AccountSettings::default()
    });
    let mut pod = kind("", "pods", "Pod");
    assert_eq!(policy.allow(&pod).unwrap().level(), Level::Cached);
    pod.verbs.retain(|verb| verb != "watch");
    assert_eq!(policy.allow(&pod).unwrap().level(), Level::Live);
}

#[test]
fn without_operations_only_reads_are_allowed() {
    let policy = policy(AccountSettings::default());
    let pod = kind("", "pods", "Pod");
    for path in ["", "?watch=true", "/web", "/web/log", "/web/status"] {
        let path = format!("/api/v1/namespaces/shop/pods{path}");
        assert!(ask(&policy, &pod, "GET", &path).is_allowed(), "{path}");
    }
    for method in ["PUT", "PATCH", "DELETE"] {
        let decision = ask(&policy, &pod, method, "/api/v1/namespaces/shop/pods/web");
        assert!(
            matches!(decision, Decision::Deny(Denial::Operation { .. })),
            "{method}"
        );
    }
    let review = kind(
        "authorization.k8s.io",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
    );
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert!(ask(&policy, &review, "POST", path).is_allowed());
    let allowed = policy.allow(&pod).unwrap();
    assert_eq!(policy.verbs(&allowed), ["get", "list", "watch"]);
    let parts = policy.subresources(&allowed);
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].name, "status");
    assert_eq!(parts[0].verbs, ["get"]);
}

#[test]
fn tunnels_are_denied_even_if_listed() {
    let rule = OperationRule {
        verbs: Verb::ALL.to_vec(),
        subresources: Some(vec!["exec".into(), "binding".into(), "proxy".into()]),
        kinds: patterns(&["*"]),
        namespaces: vec![NamespacePattern::Any],
    };
    let policy = policy(AccountSettings {
        operations: Some(vec![rule]),
        ..AccountSettings::default()
    });
    let pod = kind("", "pods", "Pod");
    for part in ["exec", "attach", "portforward", "proxy"] {
        for method in ["GET", "POST"] {
            let path = format!("/api/v1/namespaces/shop/pods/web/{part}");
            let decision = ask(&policy, &pod, method, &path);
            assert!(
                matches!(decision, Decision::Deny(Denial::Tunnel { .. })),
                "{part}"
            );
        }
    }
    let binding = "/api/v1/namespaces/shop/pods/web/binding";
    assert!(ask(&policy, &pod, "POST", binding).is_allowed());
    let log = ask(&policy, &pod, "GET", "/api/v1/namespaces/shop/pods/web/log");
    assert!(matches!(log, Decision::Deny(Denial::Subresource { .. })));
}

#[test]
fn an_operation_rule_covers_only_its_namespaces() {
    let rule = OperationRule {
        verbs: vec![Verb::Patch],
        subresources: None,
        kinds: patterns(&["Pod"]),
        namespaces: vec![NamespacePattern::parse("shop")],
    };
    let policy = policy(AccountSettings {
        operations: Some(vec![rule]),
        ..AccountSettings::default()
    });
    let pod = kind("", "pods", "Pod");
    assert!(ask(&policy, &pod, "PATCH", "/api/v1/namespaces/shop/pods/a").is_allowed());
    assert!(!ask(&policy, &pod, "PATCH", "/api/v1/namespaces/other/pods/a").is_allowed());
    assert!(!ask(&policy, &pod, "GET", "/api/v1/namespaces/shop/pods/a").is_allowed());
}

#[test]
fn an_account_stays_inside_its_namespaces() {
    let policy = policy(AccountSettings {
        cached: Some(patterns(&["Pod", "Namespace", "Node"])),
        operations: Some(vec![OperationRule {
            verbs: Verb::ALL.to_vec(),
            subresources: None,
            kinds: patterns(&["*"]),
            namespaces: vec![NamespacePattern::Any],
        }]),
        namespaces: vec!["shop".into(), "shop".into(), "canary".into()],
        ..AccountSettings::default()
    });
    assert_eq!(policy.namespaces(), ["canary", "shop"]);
    let pod = kind("", "pods", "Pod");
    let namespace = kind("", "namespaces", "Namespace");
    let node = kind("", "nodes", "Node");
    let allowed = [
        (&pod, "DELETE", "/api/v1/namespaces/shop/pods/a"),
        (&namespace, "GET", "/api/v1/namespaces/shop"),
        (&node, "GET", "/api/v1/nodes"),
    ];
    for (kind, method, path) in allowed {
        assert!(
            ask(&policy, kind, method, path).is_allowed(),
            "{method} {path}"
        );
    }
    let denied = [
        (&pod, "GET", "/api/v1/namespaces/kube-system/pods"),
        (&pod, "GET", "/api/v1/pods"),
        (&pod, "GET", "/api/v1/pods?watch=1"),
        (&namespace, "GET", "/api/v1/namespaces"),
        (&namespace, "GET", "/api/v1/namespaces/kube-system"),
        (&namespace, "DELETE", "/api/v1/namespaces/shop"),
        (&namespace, "POST", "/api/v1/namespaces"),
        (&node, "DELETE", "/api/v1/nodes/a"),
    ];
    for (kind, method, path) in denied {
        assert!(
            !ask(&policy, kind, method, path).is_allowed(),
            "{method} {path}"
        );
    }
}

#[test]
fn a_target_of_another_kind_is_denied() {
    let policy = policy(AccountSettings::default());
    let pod = kind("", "pods", "Pod");
    let decision = ask(&policy, &pod, "GET", "/api/v1/namespaces/shop/secrets/a");
    assert!(matches!(
        decision,
        Decision::Deny(Denial::KindMismatch { .. })
    ));
}

#[test]
fn the_digest_follows_what_a_feed_holds() {
    let with = |cached: &[&str], namespaces: &[&str]| {
        let namespaces = namespaces.iter().map(|text| (*text).to_owned()).collect();
        policy(AccountSettings {
            cached: Some(patterns(cached)),
            namespaces,
            ..AccountSettings::default()
        })
        .digest()
    };
    assert_eq!(
        with(&["Pod", "Service"], &["a", "b"]),
        with(&["service", "pod"], &["b", "a"])
    );
    assert_ne!(with(&["Pod"], &[]), with(&["Pod", "Service"], &[]));
    assert_ne!(with(&["Pod"], &["a"]), with(&["Pod"], &[]));
    assert_ne!(with(&["Pod"], &["ab"]), with(&["Pod"], &["a", "b"]));
}

/// A rule of its reads in `namespace`.
fn reads(verbs: &[Verb], namespace: &str) -> OperationRule {
    OperationRule {
        verbs: verbs.to_vec(),
        subresources: None,
        kinds: patterns(&["*"]),
        namespaces: vec![NamespacePattern::parse(namespace)],
    }
}

#[test]
fn a_kind_whose_reads_the_rules_limit_is_not_watched() {
    const READS: [Verb; 3] = [Verb::Get, Verb::List, Verb::Watch];
    let level = |kind: &Kind, namespaces: &[&str], rules: Vec<OperationRule>| {
        let policy = policy(AccountSettings {
            cached: Some(patterns(&["Pod", "Node"])),
            operations: Some(rules),
            namespaces: namespaces.iter().map(|text| (*text).to_owned()).collect(),
            ..AccountSettings::default()
        });
        policy.allow(kind).unwrap().level()
    };
    let (pod, node) = (kind("", "pods", "Pod"), kind("", "nodes", "Node"));
    let (shop, any) = (|| reads(&READS, "shop"), || reads(&READS, "*"));
    assert_eq!(level(&pod, &[], vec![shop()]), Level::Live);
    assert_eq!(level(&pod, &[], vec![shop(), any()]), Level::Cached);
    assert_eq!(level(&pod, &["shop"], vec![shop()]), Level::Cached);
    assert_eq!(level(&pod, &["shop", "bank"], vec![shop()]), Level::Live);
    assert_eq!(level(&node, &["shop"], vec![shop()]), Level::Live);
    let one_verb = vec![reads(&READS[..2], "*"), reads(&READS[2..], "shop")];
    assert_eq!(level(&pod, &[], one_verb), Level::Live);
    assert_eq!(
        level(&pod, &[], Vec::new()),
        Level::Cached,
        "nothing is read"
    );
}

#[test]
fn what_creates_by_another_verb_needs_the_right_to_create() {
    let with = |verbs: &[Verb]| {
        policy(AccountSettings {
            live: Some(patterns(&["ConfigMap", "Service"])),
            operations: Some(vec![reads(verbs, "*")]),
            ..AccountSettings::default()
        })
    };
    let some = with(&[Verb::Patch, Verb::Update]);
    let all = with(&[Verb::Create, Verb::Patch, Verb::Update]);
    let (map, service) = (
        kind("", "configmaps", "ConfigMap"),
        kind("", "services", "Service"),
    );
    let asked = |policy: &AccountPolicy, kind: &Kind, method: &str, content_type: &str| {
        let path = format!("/api/v1/namespaces/shop/{}/a", kind.gvr.resource);
        let target = Target::parse(method, &path).unwrap();
        let allowed = policy.allow(kind).unwrap();
        assert!(policy.permits(&target, &allowed).is_allowed());
        let decision = policy.permits_creation(&target, &allowed, Some(content_type));
        decision.is_allowed()
    };
    for apply in [
        "application/apply-patch+yaml",
        "Application/Apply-Patch+CBOR; x=y",
    ] {
        assert!(!asked(&some, &map, "PATCH", apply), "{apply}");
        assert!(asked(&all, &map, "PATCH", apply), "{apply}");
    }
    assert!(asked(&some, &map, "PATCH", "application/merge-patch+json"));
    assert!(asked(&some, &map, "PUT", "application/json"));
    assert!(!asked(&some, &service, "PUT", "application/json"));
    assert!(asked(&all, &service, "PUT", "application/json"));
}

#[test]
fn a_namespace_does_not_cover_what_is_in_none() {
    let role = Kind {
        namespaced: false,
        ..kind("rbac.authorization.k8s.io", "clusterroles", "ClusterRole")
    };
    let policy = policy(AccountSettings {
        live: Some(patterns(&["*"])),
        operations: Some(vec![reads(
            &["get", "delete"].map(|v| Verb::parse(v).unwrap()),
            "shop",
        )]),
        namespaces: vec!["shop".into()],
        ..AccountSettings::default()
    });
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/clusterroles/admin";
    for method in ["GET", "DELETE"] {
        let Decision::Deny(denial) = ask(&policy, &role, method, path) else {
            panic!("{method} is allowed");
        };
        assert_eq!(denial.label(), "not_namespaced");
    }
}
