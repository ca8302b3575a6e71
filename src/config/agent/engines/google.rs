//! Google Secret Manager and Cloud Storage.

use serde_json::{Map as JsonMap, Value, json};

use super::url;
use crate::config::reader::{Map, printable};
use crate::config::text::{path, text};
use crate::credential::google::{AuthMethod, Settings};

pub(super) const KEYS: [&str; 3] = ["auth", "ca-file", "endpoint"];

/// `endpoint` is Google's own.
pub(super) fn read(map: &Map<'_>, endpoint: &str) -> Option<Settings> {
    let configured = map.optional("endpoint", url);
    let ca_file = map.optional("ca-file", path);
    let auth = auth(&map.map("auth", &["file", "method"]));
    Some(Settings {
        endpoint: configured.unwrap_or_else(|| endpoint.to_owned()),
        ca_file,
        auth: auth?,
    })
}

fn auth(map: &Map<'_>) -> Option<AuthMethod> {
    let method = map.optional("method", text);
    let method = method.as_deref().unwrap_or("default");
    let without_file = |auth| {
        if map.field("file").is_some() {
            map.tell("file", format!("does not belong to the method `{method}`"));
        }
        Some(auth)
    };
    match method {
        "default" => without_file(AuthMethod::Default),
        "federation" => Some(AuthMethod::Federation(map.required("file", path)?)),
        "key-file" => Some(AuthMethod::KeyFile(map.required("file", path)?)),
        "metadata" => without_file(AuthMethod::Metadata),
        other => {
            let got = printable(other);
            map.tell(
                "method",
                format!("must be `default`, `federation`, `key-file` or `metadata`, got `{got}`"),
            );
            None
        }
    }
}

/// The same as it is written; none of it is secret.
pub(in crate::config::agent) fn value(settings: &Settings) -> JsonMap<String, Value> {
    let auth = match &settings.auth {
        AuthMethod::Default => json!({ "method": "default" }),
        AuthMethod::Federation(file) => json!({ "method": "federation", "file": file }),
        AuthMethod::KeyFile(file) => json!({ "method": "key-file", "file": file }),
        AuthMethod::Metadata => json!({ "method": "metadata" }),
    };
    let mut value = JsonMap::from_iter([
        ("endpoint".to_owned(), json!(settings.endpoint)),
        ("auth".to_owned(), auth),
    ]);
    if let Some(ca_file) = &settings.ca_file {
        value.insert("ca-file".to_owned(), json!(ca_file));
    }
    value
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::agent;
    use crate::config::source::Environment;
    use crate::credential::EngineSettings;
    use crate::credential::google::{AuthMethod, CLOUD_STORAGE};

    fn read(engines: &str) -> Result<crate::agent::Settings, String> {
        let text = format!(
            "name: lab\n\
             hub: {{ data: \"hub:9091\", enrol: \"hub:9092\" }}\n\
             identity:\n  trust: {{ root-spki-sha256: \"{}\" }}\n  \
             join: {{ method: kubernetes, token-file: /token }}\n\
             engines:\n{engines}\
             accounts: [{{ name: lab, credential: {{ kubeconfig-file: /lab.yaml }} }}]\n",
            "08".repeat(32)
        );
        let file = Path::new("/etc/sortie/agent.yaml");
        let read = agent::read(file, &text, &Environment::default());
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn every_login_reads_and_its_print_reads_back() {
        let engines = "  a: { engine: gcs }\n  \
             b: { engine: google-secrets-manager, endpoint: \"https://sm.example:8443/\", ca-file: ca.pem, \
             auth: { method: key-file, file: key.json } }\n  \
             c: { engine: gcs, auth: { method: federation, file: /federation.json } }\n  \
             d: { engine: google-secrets-manager, auth: { method: metadata } }\n";
        let settings = read(engines).unwrap();
        let EngineSettings::Gcs(storage) = &settings.engines[0].engine else {
            panic!("{settings:?}");
        };
        assert_eq!(storage.endpoint, CLOUD_STORAGE);
        assert_eq!(
            (&storage.ca_file, &storage.auth),
            (&None, &AuthMethod::Default)
        );
        let EngineSettings::GoogleSecretsManager(secrets) = &settings.engines[1].engine else {
            panic!("{settings:?}");
        };
        assert_eq!(secrets.endpoint, "https://sm.example:8443");
        let key = Path::new("/etc/sortie/key.json").to_owned();
        assert_eq!(secrets.auth, AuthMethod::KeyFile(key));
        let printed = agent::print(&settings);
        let engines = printed.split_once("engines:\n").unwrap().1;
        let engines = engines.lines().take_while(|line| line.starts_with(' '));
        let engines: Vec<&str> = engines.collect();
        let engines = engines.join("\n") + "\n";
        assert_eq!(read(&engines).unwrap().engines, settings.engines);
    }

    #[test]
    fn a_login_that_is_not_whole_is_told() {
        for (engine, problem) in [
            ("auth: { method: key-file }", "engines.a.auth.file"),
            (
                "auth: { method: metadata, file: /f }",
                "does not belong to the method `metadata`",
            ),
            (
                "auth: { file: /f }",
                "does not belong to the method `default`",
            ),
            (
                "auth: { method: password }",
                "`key-file` or `metadata`, got `password`",
            ),
            ("endpoint: http://plain.example", "must be https://host"),
            ("address: https://a.example", "address"),
        ] {
            let told = read(&format!("  a: {{ engine: gcs, {engine} }}\n")).unwrap_err();
            assert!(told.contains(problem), "{told}");
        }
    }
}
