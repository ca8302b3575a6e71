//! `sortie ref`

mod check;
mod explain;

use std::path::Path;

use super::args::{Global, Ref};
use super::{Exit, output, print, process};
use crate::agent::Settings;
use crate::config::source::{self, Environment};
use crate::config::{self, ConfigError};
use crate::credential::Reference;

pub(super) fn run(what: &Ref, global: &Global) -> Exit {
    match what {
        Ref::Explain { reference, config } => explain::run(reference, config.as_deref()),
        Ref::Check {
            reference,
            config,
            context,
        } => check::run(reference, config, context.as_deref(), global),
        Ref::Migrate { file, write } => migrate(file, *write),
    }
}

fn migrate(file: &Path, write: bool) -> Exit {
    let text = source::load(file);
    let migrated = match text.and_then(|text| config::migrate(file, &text)) {
        Ok(migrated) => migrated,
        Err(error) => return process::refuse(&error),
    };
    let (name, count) = (file.display(), migrated.rewritten);
    if !write {
        return print::done(&migrated.text);
    }
    if count == 0 {
        print::note(&format!("`{name}` has no reference in an old form"));
        return Exit::Done;
    }
    match output::replace(file, &migrated.text) {
        Ok(()) => {
            print::note(&format!("`{name}`: {count} rewritten"));
            Exit::Done
        }
        Err(error) => print::failed(&error),
    }
}

/// What `text` means.
fn parse(text: &str) -> Result<Reference, Exit> {
    Reference::parse(text).map_err(|error| {
        print::error(&error);
        print::hint("docs/references.md has the forms; keep a reference in single quotes");
        Exit::Usage
    })
}

/// The settings of the agent that the file configures.
fn settings(file: &Path) -> Result<Settings, Exit> {
    let read = || {
        let text = source::load(file)?;
        let environment = Environment::of_process().in_a_pod();
        config::agent::read(file, &text, &environment)
    };
    read().map_err(|error: ConfigError| process::refuse(&error))
}

/// Says that no connection serves `reference`.
fn not_served(reference: &Reference, file: &Path) -> Exit {
    let (engine, file) = (reference.engine().as_str(), file.display());
    let needed = reference.profile.as_ref().map_or_else(
        || "with `default: true`".to_owned(),
        |name| format!("of the name `{name}`"),
    );
    print::error_text(&format!(
        "`{file}` has no connection to `{engine}` {needed} under `engines`"
    ));
    Exit::Usage
}

/// Labels and what belongs to them, in two columns. What comes from afar keeps to its line.
fn rows(rows: &[explain::Row]) -> String {
    let width = rows.iter().map(|(label, _)| label.len()).max();
    let width = width.unwrap_or_default();
    let is_plain = |c: char| c.is_alphanumeric() || c.is_ascii_graphic() || " …".contains(c);
    let line = |(label, text): &explain::Row| {
        let text = text.replace(|c| !is_plain(c), "\u{fffd}");
        format!("{label:width$}  {text}\n")
    };
    rows.iter().map(line).collect()
}
