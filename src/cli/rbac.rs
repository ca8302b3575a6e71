//! `sortie agent --print-rbac`

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Exit, print};
use crate::agent::{AccountSettings, Settings};
use crate::credential::Source;
use crate::policy::{self, AccountPolicy, PolicyRule, Rights, Rules};
use crate::resource::Verb;

/// The `ServiceAccount` of `deploy/agent`, and its namespace.
const SUBJECT: &str = "sortie-agent";

const API_VERSION: &str = "rbac.authorization.k8s.io/v1";

/// Prints what the agent needs, or nothing: half of it would be applied as if it were all.
pub(super) fn run(settings: &Settings, rules: &Rules) -> Exit {
    let known = match policy::known_kinds() {
        Ok(known) => known,
        Err(error) => return print::failed(&error),
    };
    let mut text = "\
        # The rights that an agent needs in the clusters of its accounts: `sortie agent --print-rbac`.\n\
        # Discovery, /version and the reviews of oneself are open to every authenticated user.\n"
        .to_owned();
    let mut unknown = BTreeSet::new();
    for account in &settings.accounts {
        match AccountPolicy::new(account.policy.clone(), rules).rights(&known) {
            Ok(rights) => documents(account, &rights, &mut text),
            Err(error) => unknown.extend(error.kinds),
        }
    }
    if unknown.is_empty() {
        return print::done(&text);
    }
    let kinds = unknown.into_iter().collect();
    print::error(&policy::UnknownKinds { kinds });
    print::hint("`kubectl api-resources` of the cluster shows the resource of each kind");
    Exit::Usage
}

fn documents(account: &AccountSettings, rights: &Rights, out: &mut String) {
    let name = format!("sortie-agent-{}", account.name);
    let bound = matches!(account.source, Source::ServiceAccount { .. });
    out.push_str("---\n");
    introduce(account, rights, bound, out);
    document(
        "ClusterRole",
        &name,
        None,
        Body::Rules(&rights.cluster),
        out,
    );
    if bound {
        out.push_str("---\n");
        document(
            "ClusterRoleBinding",
            &name,
            None,
            Body::Binds("ClusterRole"),
            out,
        );
    }
    for (namespace, rules) in &rights.namespaces {
        let within = Some(namespace.as_str());
        out.push_str("---\n");
        document("Role", &name, within, Body::Rules(rules), out);
        if bound {
            out.push_str("---\n");
            document("RoleBinding", &name, within, Body::Binds("Role"), out);
        }
    }
}

/// What somebody has to know who applies it.
fn introduce(account: &AccountSettings, rights: &Rights, bound: bool, out: &mut String) {
    let name = &account.name;
    let mut say = |line: &str| {
        out.push_str("# ");
        out.push_str(line);
        out.push('\n');
    };
    if bound {
        say(&format!(
            "Account {name}, for the agent's own ServiceAccount. The subject is the one of"
        ));
        say("deploy/agent: change it where the agent runs as another.");
    } else {
        say(&format!(
            "Account {name}. Apply it in the cluster of its kubeconfig, and bind it there to the"
        ));
        say("user of that kubeconfig: who that is cannot be told from here.");
    }
    if rights.reach_every_kind() {
        say("`*` is among its kinds. RBAC cannot leave any out, so these rules reach Secrets and");
        say(
            "subresources too that the agent's own policy keeps closed. Name kinds where it can be done.",
        );
    }
    if !rights.assumed.is_empty() {
        let assumed: Vec<&str> = rights.assumed.iter().map(String::as_str).collect();
        say(&format!(
            "Taken as resources, as they are written: {}.",
            assumed.join(", ")
        ));
        if !rights.namespaces.is_empty() {
            say("Where one is in no namespace, move it to the ClusterRole.");
        }
    }
}

#[derive(Clone, Copy)]
enum Body<'a> {
    Rules(&'a [PolicyRule]),
    /// What a binding refers to; it has the binding's name.
    Binds(&'static str),
}

fn document(kind: &str, name: &str, namespace: Option<&str>, body: Body<'_>, out: &mut String) {
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Text takes everything.
        let _never_fails = writeln!(out, "{text}");
    };
    line(format_args!(
        "apiVersion: {API_VERSION}\nkind: {kind}\nmetadata:\n  name: {name}"
    ));
    if let Some(namespace) = namespace {
        line(format_args!("  namespace: {}", word(namespace)));
    }
    match body {
        Body::Rules(rules) => {
            line(format_args!("rules:"));
            for rule in rules {
                line(format_args!("  - apiGroups: [{}]", word(&rule.group)));
                line(format_args!("    resources: [{}]", words(&rule.resources)));
                if !rule.names.is_empty() {
                    line(format_args!("    resourceNames: [{}]", words(&rule.names)));
                }
                let verbs: Vec<&str> = rule.verbs.iter().copied().map(Verb::as_str).collect();
                line(format_args!("    verbs: [{}]", verbs.join(", ")));
            }
        }
        Body::Binds(role) => {
            line(format_args!(
                "roleRef:\n  apiGroup: rbac.authorization.k8s.io"
            ));
            line(format_args!("  kind: {role}\n  name: {name}"));
            line(format_args!("subjects:\n  - kind: ServiceAccount"));
            line(format_args!(
                "    name: {SUBJECT}\n    namespace: {SUBJECT}"
            ));
        }
    }
}

fn words(texts: &[String]) -> String {
    let words: Vec<String> = texts.iter().map(|text| word(text)).collect();
    words.join(", ")
}

/// A name as YAML text: in quotes where YAML would read something else, as `null` or `1e3`.
fn word(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && !matches!(
            text,
            "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n"
        );
    if is_plain {
        text.to_owned()
    } else {
        format!("\"{text}\"")
    }
}
