//! AWS: Secrets Manager and S3, which are reached in the same way.

use std::path::PathBuf;

use serde_json::{Map as Json, Value, json};

use super::url;
use crate::config::reader::{Field, Map, Parsed, printable};
use crate::config::source::Environment;
use crate::config::text::{boolean, path, text};
use crate::credential::aws::{Role, Settings, WebIdentity, is_region};

pub(super) const KEYS: [&str; 7] = [
    "ca-file",
    "endpoint",
    "external-id",
    "instance-metadata",
    "region",
    "role-arn",
    "sts-endpoint",
];

pub(super) fn read(map: &Map<'_>, environment: &Environment) -> Option<Settings> {
    let region = map.required("region", region);
    let role = map.optional("role-arn", role);
    let external_id = map.optional("external-id", text);
    if external_id.is_some() && map.field("role-arn").is_none() {
        map.tell("external-id", "needs `role-arn`");
    }
    let role_arn = environment.aws_role_arn.clone();
    let token_file = environment.aws_web_identity_token_file.clone();
    Some(Settings {
        endpoint: map.optional("endpoint", url),
        sts_endpoint: map.optional("sts-endpoint", url),
        ca_file: map.optional("ca-file", path),
        role: role.map(|arn| Role { arn, external_id }),
        web_identity: role_arn
            .zip(token_file)
            .map(|(role_arn, file)| WebIdentity {
                role_arn,
                token_file: PathBuf::from(file),
            }),
        instance_metadata: map.optional("instance-metadata", boolean).unwrap_or(false),
        region: region?,
    })
}

/// The effective settings, as they are written.
pub(in crate::config::agent) fn value(engine: &Settings) -> Json<String, Value> {
    let role = engine.role.as_ref();
    let external_id = role.and_then(|role| role.external_id.as_ref());
    let written = [
        ("region", Some(json!(engine.region))),
        ("endpoint", engine.endpoint.as_ref().map(|url| json!(url))),
        (
            "sts-endpoint",
            engine.sts_endpoint.as_ref().map(|url| json!(url)),
        ),
        ("ca-file", engine.ca_file.as_ref().map(|file| json!(file))),
        ("role-arn", role.map(|role| json!(role.arn))),
        ("external-id", external_id.map(|id| json!(id))),
        ("instance-metadata", Some(json!(engine.instance_metadata))),
    ];
    let pairs = written.into_iter();
    pairs
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
}

fn region(field: &Field<'_>) -> Parsed<String> {
    let text = text(field)?;
    if is_region(&text) {
        return Ok(text);
    }
    let got = printable(&text);
    Err(format!("must be a region such as `eu-west-1`, got `{got}`"))
}

fn role(field: &Field<'_>) -> Parsed<String> {
    let text = text(field)?;
    if text.starts_with("arn:") && text.contains(":role/") {
        return Ok(text);
    }
    let got = printable(&text);
    Err(format!(
        "must be the ARN of a role, `arn:aws:iam::ACCOUNT:role/NAME`, got `{got}`"
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::agent::Settings as Agent;
    use crate::config::agent::{print, read as read_agent};
    use crate::credential::EngineSettings;

    fn agent(engine: &str, environment: &Environment) -> Result<Agent, String> {
        let text = format!(
            "name: lab\nhub: {{ data: \"hub:9091\", enrol: \"hub:9092\" }}\n\
             identity: {{ trust: {{ root-spki-sha256: \"{}\" }}, join: {{ method: kubernetes, token-file: /t }} }}\n\
             engines:\n  prod: {{ {engine} }}\n\
             accounts: [{{ name: a, credential: {{ kubeconfig-file: /a }} }}]\n",
            "0".repeat(64)
        );
        read_agent(Path::new("/etc/sortie/agent.yaml"), &text, environment)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_connection_reads_and_its_print_reads_back() {
        let environment = Environment::of(|name| match name {
            "AWS_ROLE_ARN" => Some("arn:aws:iam::1:role/irsa".to_owned()),
            "AWS_WEB_IDENTITY_TOKEN_FILE" => Some("/var/run/token".to_owned()),
            _ => None,
        });
        let written = "engine: secrets-manager, region: eu-west-1, endpoint: \"https://sm:1\", \
             sts-endpoint: \"https://sts:2\", ca-file: ca.pem, external-id: ours, \
             role-arn: \"arn:aws:iam::1:role/reader\", instance-metadata: true";
        let read = agent(written, &environment).unwrap();
        let EngineSettings::SecretsManager(settings) = &read.engines[0].engine else {
            panic!("another engine");
        };
        assert_eq!(settings.endpoint.as_deref(), Some("https://sm:1"));
        assert_eq!(
            settings.ca_file.as_deref(),
            Some(Path::new("/etc/sortie/ca.pem"))
        );
        let role = settings.role.as_ref().unwrap();
        assert_eq!(role.external_id.as_deref(), Some("ours"));
        let identity = settings.web_identity.as_ref().unwrap();
        assert_eq!(identity.token_file, Path::new("/var/run/token"));
        let printed = print(&read);
        let file = Path::new("/etc/sortie/agent.yaml");
        let again = read_agent(file, &printed, &environment).unwrap();
        assert_eq!(again.engines, read.engines);
        let short = agent("engine: s3, region: eu-west-1", &Environment::default()).unwrap();
        let EngineSettings::S3(settings) = &short.engines[0].engine else {
            panic!("another engine");
        };
        assert_eq!(
            (&settings.web_identity, settings.instance_metadata),
            (&None, false)
        );
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (written, told) in [
            ("engine: s3", "region"),
            ("engine: s3, region: eu_west", "must be a region"),
            (
                "engine: s3, region: eu-west-1, role-arn: reader",
                "must be the ARN",
            ),
            (
                "engine: s3, region: eu-west-1, external-id: x",
                "needs `role-arn`",
            ),
            (
                "engine: s3, region: eu-west-1, endpoint: \"http://x\"",
                "https://",
            ),
            ("engine: s3, region: eu-west-1, adress: x", "adress"),
        ] {
            let error = agent(written, &Environment::default()).unwrap_err();
            assert!(error.contains(told), "{written}: {error}");
        }
    }
}
