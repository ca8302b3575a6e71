//! What an agent serves.

use std::collections::BTreeMap;

use super::credential;
use super::engines::Engines;
use crate::agent::AccountSettings;
use crate::config::reader::{Field, Map, Parsed, printable};
use crate::config::source::Environment;
use crate::config::text::text;
use crate::credential::{Key, Source};
use crate::limits::ACCOUNTS_PER_AGENT;
use crate::policy::{self, KindPattern, NamespacePattern, OperationRule, is_account_name};
use crate::resource::Verb;

/// Most entries of any list of an account.
const ENTRIES: usize = 256;

/// Longest name of a namespace, in bytes: a DNS label.
const NAMESPACE_BYTES: usize = 63;

const KEYS: [&str; 6] = [
    "credential",
    "kinds",
    "name",
    "namespaces",
    "operations",
    "permissions",
];

pub(super) fn read(
    root: &Map<'_>,
    engines: &Engines,
    environment: &Environment,
) -> Option<Vec<AccountSettings>> {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    root.required_list("accounts", ACCOUNTS_PER_AGENT, |field| {
        let map = field.map(&KEYS);
        let name = map.required("name", name);
        if let Some(name) = &name
            && let Some(line) = lines.insert(name.clone(), field.line())
        {
            map.tell(
                "name",
                format!("`{name}` is also the account in line {line}"),
            );
        }
        let source = credential::read(&map, engines, environment);
        if let (Some(name), Some(source)) = (&name, &source) {
            check_fan_out(&map, name, source);
        }
        let policy = policy(&map);
        let permissions = map.map("permissions", &["read", "write"]);
        let read_roles = texts(&permissions, "read", text);
        let write_roles = texts(&permissions, "write", text);
        Some(AccountSettings {
            name: name?,
            source: source?,
            policy,
            read_roles: read_roles.unwrap_or_default(),
            write_roles: write_roles.unwrap_or_default(),
        })
    })
}

fn texts<T>(map: &Map<'_>, key: &str, parse: fn(&Field<'_>) -> Parsed<T>) -> Option<Vec<T>> {
    map.list(key, ENTRIES, |field| field.read(parse))
}

/// The name of an account, or of several: then with one `*`.
fn name(field: &Field<'_>) -> Parsed<String> {
    let text = text(field)?;
    if is_account_name(&text.replacen('*', "x", 1)) {
        return Ok(text);
    }
    let got = printable(&text);
    Err(format!(
        "must be letters, digits, `-`, `_` and `.`, not at its ends, got `{got}`"
    ))
}

/// An account for each field of a secret has a place for the field in its name.
fn check_fan_out(account: &Map<'_>, name: &str, source: &Source) {
    let each = matches!(source, Source::Secret { reference, .. } if reference.key == Key::Each);
    match (name.contains('*'), each) {
        (true, false) => account.tell(
            "name",
            "has a `*`, which stands for each field of a secret, but `credential.secret` does \
             not end in `#*`",
        ),
        (false, true) => account.tell(
            "name",
            "needs a `*`, in whose place each field of the secret is put, because \
             `credential.secret` ends in `#*`",
        ),
        (true, true) | (false, false) => {}
    }
}

// ---------------------------------------------------------------- policy

fn policy(account: &Map<'_>) -> policy::AccountSettings {
    let kinds = account.map("kinds", &["cached", "live"]);
    let operations = account.list("operations", ENTRIES, |field| operation(&field));
    policy::AccountSettings {
        cached: texts(&kinds, "cached", kind),
        live: texts(&kinds, "live", kind),
        operations,
        namespaces: texts(account, "namespaces", namespace).unwrap_or_default(),
    }
}

fn operation(field: &Field<'_>) -> Option<OperationRule> {
    let map = field.map(&["kinds", "namespaces", "subresources", "verbs"]);
    let verbs = map.required_list("verbs", ENTRIES, |field| field.read(verb));
    let subresources = texts(&map, "subresources", text);
    let kinds = map.required_list("kinds", ENTRIES, |field| field.read(kind));
    let namespaces = map.required_list("namespaces", ENTRIES, |field| field.read(pattern));
    Some(OperationRule {
        verbs: verbs?,
        subresources,
        kinds: kinds?,
        namespaces: namespaces?,
    })
}

fn verb(field: &Field<'_>) -> Parsed<Verb> {
    let text = text(field)?;
    Verb::parse(&text).ok_or_else(|| {
        let known = Verb::ALL.map(Verb::as_str).join("`, `");
        format!("must be one of `{known}`, got `{}`", printable(&text))
    })
}

fn kind(field: &Field<'_>) -> Parsed<KindPattern> {
    KindPattern::parse(&text(field)?).map_err(|error| error.to_string())
}

fn pattern(field: &Field<'_>) -> Parsed<NamespacePattern> {
    if field.node().as_str() == Some("*") {
        return Ok(NamespacePattern::Any);
    }
    namespace(field).map(NamespacePattern::Name)
}

fn namespace(field: &Field<'_>) -> Parsed<String> {
    let text = text(field)?;
    let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let fits = text.len() <= NAMESPACE_BYTES
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fits {
        return Ok(text);
    }
    let got = printable(&text);
    Err(format!("must be the name of a namespace, got `{got}`"))
}
