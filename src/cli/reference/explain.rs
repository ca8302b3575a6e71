//! `sortie ref explain`

use std::path::Path;

use super::super::{Exit, print};
use super::{not_served, parse, rows, settings};
use crate::credential::{Key, Locator, Reference};

/// A label and what belongs to it.
pub(super) type Row = (&'static str, String);

pub(super) fn run(text: &str, config: Option<&Path>) -> Exit {
    let reference = match parse(text) {
        Ok(reference) => reference,
        Err(exit) => return exit,
    };
    let mut lines = head(&reference);
    if let Some(file) = config {
        let settings = match settings(file) {
            Ok(settings) => settings,
            Err(exit) => return exit,
        };
        let mut engines = settings.engines.iter();
        let Some(serving) = engines.find(|engine| engine.serves(&reference)) else {
            return not_served(&reference, file);
        };
        lines.push(("connection", serving.name.clone()));
    }
    lines.extend(document(&reference.locator));
    lines.push((
        "field",
        match &reference.key {
            Key::Whole => "none: the whole document".to_owned(),
            Key::Named(name) => name.clone(),
            Key::Each => "each, one account for each".to_owned(),
        },
    ));
    if reference.base64 {
        lines.push(("encoding", "base64".to_owned()));
    }
    print::done(&rows(&lines))
}

/// What it is called and who is asked.
pub(super) fn head(reference: &Reference) -> Vec<Row> {
    let profile = reference.profile.clone();
    vec![
        ("reference", reference.to_string()),
        ("engine", reference.engine().as_str().to_owned()),
        (
            "profile",
            profile.unwrap_or_else(|| "none: the default one".to_owned()),
        ),
    ]
}

/// Which document is asked for.
fn document(locator: &Locator) -> Vec<Row> {
    let or =
        |value: &Option<String>, other: &str| value.clone().unwrap_or_else(|| other.to_owned());
    let own = "none: the connection's";
    match locator {
        Locator::File { path } if path.is_empty() => vec![("file", "the folder itself".to_owned())],
        Locator::File { path } => vec![("file", path.clone())],
        Locator::Gcs { bucket, object } => {
            vec![("bucket", bucket.clone()), ("object", object.clone())]
        }
        Locator::GoogleSecret {
            project,
            secret,
            version,
        } => vec![
            ("project", project.clone()),
            ("secret", secret.clone()),
            ("version", or(version, "latest")),
        ],
        Locator::KubernetesSecret { namespace, name } => {
            vec![("namespace", or(namespace, own)), ("secret", name.clone())]
        }
        Locator::Noop { .. } => vec![("value", "not shown".to_owned())],
        Locator::S3 {
            region,
            bucket,
            object,
        } => vec![
            ("region", or(region, own)),
            ("bucket", bucket.clone()),
            ("object", object.clone()),
        ],
        Locator::AwsSecret {
            region,
            name,
            version,
            stage,
        } => {
            let mut rows = vec![("region", or(region, own)), ("secret", name.clone())];
            rows.extend(version.clone().map(|version| ("version", version)));
            if stage.is_some() || version.is_none() {
                rows.push(("stage", or(stage, "AWSCURRENT")));
            }
            rows
        }
        Locator::Vault {
            mount,
            path,
            version,
        } => vec![
            ("mount", mount.clone()),
            ("path", path.clone()),
            (
                "version",
                version.map_or_else(|| "newest".to_owned(), |version| version.to_string()),
            ),
        ],
    }
}
