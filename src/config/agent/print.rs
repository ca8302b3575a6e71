//! The effective settings of an agent as YAML, without anything secret.

use serde_json::{Map, Value, json};

use crate::agent::{AccountSettings, Evidence, Settings};
use crate::config::print::yaml;
use crate::config::text::written;
use crate::credential::{self, EngineSettings, Minting, Rules, Source};
use crate::policy::{self, KindPattern, NamespacePattern, OperationRule};
use crate::resource::Verb;

/// The effective settings as YAML. Of a join string, only the public id of its token is shown.
pub fn print(settings: &Settings) -> String {
    let engines: Map<String, Value> = settings
        .engines
        .iter()
        .map(|engine| (engine.name.clone(), engine_value(engine)))
        .collect();
    let mut value = json!({
        "name": settings.name.as_str(),
        "listen": { "health": settings.health, "metrics": settings.metrics },
        "hub": { "data": settings.hub.data, "enrol": settings.hub.enrol, "proxy": "none" },
        "identity": {
            "trust": { "root-spki-sha256": hex::encode(settings.hub.root_spki_sha256) },
            "join": join_value(&settings.evidence),
        },
        "engines": engines,
        "accounts": settings.accounts.iter().map(account_value).collect::<Vec<_>>(),
    });
    if let (Some(state_dir), Some(map)) = (&settings.state_dir, value.as_object_mut()) {
        map.insert("state-dir".to_owned(), json!(state_dir));
    }
    yaml(&value)
}

fn join_value(evidence: &Evidence) -> Value {
    match evidence {
        Evidence::ServiceAccount { token_file } => {
            json!({ "method": "kubernetes", "token-file": token_file })
        }
        Evidence::Token { id, .. } => json!({ "method": "token", "token-id": id }),
    }
}

fn engine_value(settings: &credential::Settings) -> Value {
    let mut value = match &settings.engine {
        #[cfg(feature = "aws")]
        EngineSettings::S3(aws) | EngineSettings::SecretsManager(aws) => {
            super::engines::aws::value(aws)
        }
        #[cfg(feature = "google")]
        EngineSettings::Gcs(google) | EngineSettings::GoogleSecretsManager(google) => {
            super::engines::google::value(google)
        }
        EngineSettings::File(file) => super::engines::file::value(file),
        EngineSettings::Kubernetes(cluster) => super::engines::kubernetes::value(cluster),
        EngineSettings::Noop => Map::new(),
        EngineSettings::Vault(vault) => super::engines::vault::value(vault),
    };
    let common = [
        ("engine", json!(settings.engine.id().as_str())),
        ("default", json!(settings.default)),
        ("refresh", json!(written(settings.refresh))),
        ("credential-max-stale", json!(written(settings.max_stale))),
    ];
    for (key, common) in common {
        value.insert(key.to_owned(), common);
    }
    Value::Object(value)
}

fn account_value(account: &AccountSettings) -> Value {
    let mut map = Map::new();
    map.insert("name".to_owned(), json!(account.name));
    map.insert("credential".to_owned(), source_value(&account.source));
    map.insert(
        "permissions".to_owned(),
        json!({ "read": account.read_roles, "write": account.write_roles }),
    );
    policy_values(&account.policy, &mut map);
    Value::Object(map)
}

fn source_value(source: &Source) -> Value {
    let (key, value, context) = match source {
        Source::ServiceAccount { .. } => ("service-account", json!(true), &None),
        Source::KubeconfigFile { path, context, .. } => ("kubeconfig-file", json!(path), context),
        Source::Secret {
            reference, context, ..
        } => ("secret", json!(reference.to_string()), context),
    };
    let mut map = Map::new();
    map.insert(key.to_owned(), value);
    if let Source::Secret {
        max_stale: Some(max_stale),
        ..
    } = source
    {
        let written = json!(written(*max_stale));
        map.insert("credential-max-stale".to_owned(), written);
    }
    if let Some(context) = context {
        map.insert("context".to_owned(), json!(context));
    }
    if let Some(rules) = source.rules() {
        rules_values(rules, &mut map);
    }
    Value::Object(map)
}

/// What its kubeconfig may do besides what every kubeconfig may.
fn rules_values(rules: &Rules, map: &mut Map<String, Value>) {
    if !rules.allow.is_empty() {
        let allow: Vec<&str> = rules.allow.iter().map(|one| one.as_str()).collect();
        map.insert("allow".to_owned(), json!(allow));
    }
    if !rules.exec.is_empty() {
        map.insert("exec".to_owned(), json!(rules.exec));
    }
    let token = rules.token.as_ref().map(|minting| match minting {
        Minting::Eks { profile, cluster } => json!({ "eks": profile, "cluster": cluster }),
        Minting::Gke { profile } => json!({ "gke": profile }),
    });
    if let Some(token) = token {
        map.insert("token".to_owned(), token);
    }
}

/// What is left out follows the program's own rules.
fn policy_values(policy: &policy::AccountSettings, map: &mut Map<String, Value>) {
    let names = |patterns: &[KindPattern]| -> Vec<String> {
        patterns.iter().map(ToString::to_string).collect()
    };
    let mut kinds = Map::new();
    for (key, patterns) in [("cached", &policy.cached), ("live", &policy.live)] {
        if let Some(patterns) = patterns {
            kinds.insert(key.to_owned(), json!(names(patterns)));
        }
    }
    if !kinds.is_empty() {
        map.insert("kinds".to_owned(), Value::Object(kinds));
    }
    if !policy.namespaces.is_empty() {
        map.insert("namespaces".to_owned(), json!(policy.namespaces));
    }
    if let Some(rules) = &policy.operations {
        let rules: Vec<Value> = rules.iter().map(operation_value).collect();
        map.insert("operations".to_owned(), json!(rules));
    }
}

fn operation_value(rule: &OperationRule) -> Value {
    let namespace = |pattern: &NamespacePattern| match pattern {
        NamespacePattern::Any => "*".to_owned(),
        NamespacePattern::Name(name) => name.clone(),
    };
    let verbs: Vec<&str> = rule.verbs.iter().copied().map(Verb::as_str).collect();
    let kinds: Vec<String> = rule.kinds.iter().map(ToString::to_string).collect();
    let namespaces: Vec<String> = rule.namespaces.iter().map(namespace).collect();
    let mut value = json!({ "verbs": verbs, "kinds": kinds, "namespaces": namespaces });
    if let (Some(subresources), Some(map)) = (&rule.subresources, value.as_object_mut()) {
        map.insert("subresources".to_owned(), json!(subresources));
    }
    value
}
