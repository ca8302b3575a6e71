//! Tests of what an agent is said to need.

use super::*;
use crate::policy::{AccountSettings, NamespacePattern, OperationRule, known_kinds, load};

fn patterns(texts: &[&str]) -> Vec<KindPattern> {
    let parsed = texts.iter().map(|text| KindPattern::parse(text).unwrap());
    parsed.collect()
}

fn policy(settings: AccountSettings) -> AccountPolicy {
    AccountPolicy::new(settings, &load().unwrap())
}

fn rights(settings: AccountSettings) -> Rights {
    let known = known_kinds().unwrap();
    policy(settings).rights(&known).unwrap()
}

fn operation(verbs: &[Verb], kinds: &[&str], namespaces: &[&str]) -> OperationRule {
    let namespaces = namespaces.iter().map(|name| NamespacePattern::parse(name));
    OperationRule {
        verbs: verbs.to_vec(),
        subresources: None,
        kinds: patterns(kinds),
        namespaces: namespaces.collect(),
    }
}

fn kinds(cached: &[&str], live: &[&str]) -> AccountSettings {
    AccountSettings {
        cached: Some(patterns(cached)),
        live: Some(patterns(live)),
        ..AccountSettings::default()
    }
}

fn shown(rules: &[PolicyRule]) -> Vec<String> {
    let show = |rule: &PolicyRule| {
        let verbs: Vec<&str> = rule.verbs.iter().copied().map(Verb::as_str).collect();
        let resources = rule.resources.join(",");
        let (group, names) = (&rule.group, rule.names.join(","));
        format!("{group}/{resources}[{names}] {}", verbs.join(","))
    };
    rules.iter().map(show).collect()
}

const IDENTITY_RULE: &str = "/namespaces[kube-system] get";

#[test]
fn an_account_without_operations_needs_no_verb_that_writes() {
    let found = rights(AccountSettings::default());
    assert!(found.namespaces.is_empty() && !found.reach_every_kind());
    let mut verbs = found.cluster.iter().flat_map(|rule| &rule.verbs);
    assert!(verbs.all(|verb| verb.reads()));
    let mut resources = found.cluster.iter().flat_map(|rule| &rule.resources);
    assert!(!resources.any(|resource| resource == "secrets" || resource.contains("review")));
}

#[test]
fn a_cached_kind_is_watched_even_where_no_operation_reads_it() {
    let found = rights(AccountSettings {
        operations: Some(vec![operation(&[Verb::Patch], &["Pod"], &["*"])]),
        ..kinds(&["Pod", "Service"], &[])
    });
    let cluster = shown(&found.cluster);
    assert_eq!(
        cluster,
        [
            IDENTITY_RULE,
            "/pods[] list,patch,watch",
            "/services[] list,watch",
            "/pods/status[] patch",
        ]
    );
}

#[test]
fn an_account_within_namespaces_gets_roles_there_and_little_else() {
    let read = [Verb::Get, Verb::List];
    let found = rights(AccountSettings {
        namespaces: vec!["b".to_owned(), "a".to_owned()],
        operations: Some(vec![
            operation(&read, &["*"], &["*"]),
            operation(&[Verb::Delete], &["*"], &["b", "elsewhere"]),
        ]),
        ..kinds(&["Pod", "Namespace", "Node"], &[])
    });
    assert_eq!(
        shown(&found.cluster),
        [
            IDENTITY_RULE,
            "/namespaces[a,b] get,list,watch",
            "/namespaces/status[a,b] get",
            "/nodes/status[] get",
            "/nodes[] get,list,watch",
        ]
    );
    let roles: Vec<_> = found.namespaces.keys().collect();
    assert_eq!(roles, ["a", "b"]);
    let of_b = shown(&found.namespaces["b"]);
    assert_eq!(
        of_b,
        [
            "/pods[] delete,get,list,watch",
            "/pods/log,pods/status[] get"
        ]
    );
}

#[test]
fn an_operation_of_one_namespace_is_a_role_and_repeats_nothing_of_the_cluster() {
    let found = rights(AccountSettings {
        operations: Some(vec![
            operation(&[Verb::Get], &["*"], &["*"]),
            operation(&[Verb::Get, Verb::Create], &["Pod"], &["shop"]),
        ]),
        ..kinds(&["Pod"], &[])
    });
    assert_eq!(shown(&found.namespaces["shop"]), ["/pods[] create"]);
}

#[test]
fn every_kind_is_one_rule_and_a_masked_kind_stays_named() {
    let found = rights(AccountSettings {
        operations: Some(vec![operation(&[Verb::Get], &["*"], &["*"])]),
        ..kinds(&["Pod"], &["*"])
    });
    assert!(found.reach_every_kind());
    assert_eq!(
        shown(&found.cluster),
        ["/pods[] list,watch", "*/*[] get"],
        "kube-system is covered by the second one"
    );
}

#[test]
fn a_custom_kind_has_to_be_named_by_its_resource() {
    let by_kind = policy(kinds(&["CronTab.stable.example.com", "Pod"], &["Other"]));
    let error = by_kind.rights(&known_kinds().unwrap()).unwrap_err();
    assert_eq!(error.kinds, ["crontab.stable.example.com", "other"]);
    let found = rights(kinds(&["crontabs.stable.example.com"], &[]));
    assert_eq!(
        shown(&found.cluster),
        [
            IDENTITY_RULE,
            "stable.example.com/crontabs/scale,crontabs/status[] get",
            "stable.example.com/crontabs[] get,list,watch",
        ]
    );
    assert!(found.assumed.contains("crontabs.stable.example.com"));
}
