//! `sortie ref check`

use std::path::Path;
use std::time::SystemTime;

use super::super::args::Global;
use super::super::{Exit, print, process};
use super::explain::{Row, head};
use super::{not_served, parse, rows, settings};
use crate::agent::surroundings;
use crate::clock::{self, Clock, rfc3339};
use crate::credential::kubeconfig::{Shape, shape};
use crate::credential::{Engines, Key, Profile, Reference};
use crate::telemetry::finding::spoken;

pub(super) fn run(text: &str, config: &Path, context: Option<&str>, global: &Global) -> Exit {
    let reference = match parse(text) {
        Ok(reference) => reference,
        Err(exit) => return exit,
    };
    let settings = match settings(config) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let mut engines = settings.engines.iter();
    let Some(serving) = engines.find(|engine| engine.serves(&reference)) else {
        return not_served(&reference, config);
    };
    let connection = serving.name.clone();
    process::prepare(global, false);
    let clock = clock::system();
    let surroundings = surroundings(&settings, &clock);
    let engines = Engines::new(settings.engines, surroundings);
    process::block_on(1, async {
        let exit = if reference.key == Key::Each {
            fields(&reference, connection, &engines).await
        } else {
            look(&reference, connection, &engines, context, &*clock).await
        };
        engines.close(None).await;
        exit
    })
}

/// The names of the fields, of which each is an account.
async fn fields(reference: &Reference, connection: String, engines: &Engines) -> Exit {
    let keys = match engines.keys(reference).await {
        Ok(keys) => keys,
        Err(error) => return print::failed(&error),
    };
    let mut lines = head(reference);
    lines.push(("connection", connection));
    lines.push(("fields", keys.names.join(", ")));
    print::done(&rows(&lines))
}

async fn look(
    reference: &Reference,
    connection: String,
    engines: &Engines,
    context: Option<&str>,
    clock: &dyn Clock,
) -> Exit {
    let fetched = match engines.fetch(reference).await {
        Ok(fetched) => fetched,
        Err(error) => return print::failed(&error),
    };
    let now = clock.now();
    let mut lines = head(reference);
    lines.push(("connection", connection));
    lines.push((
        "version",
        fetched.version.unwrap_or_else(|| "not told".to_owned()),
    ));
    lines.push(("fetched", format!("{}, just now", rfc3339(now))));
    let lease = fetched.lease.as_ref().map(|lease| spoken(lease.time));
    lines.push(("lease", lease.unwrap_or_else(|| "none".to_owned())));
    let shape = shape(&fetched.document, context, &Profile::sealed());
    if let Ok(shape) = &shape {
        lines.extend(seen(shape, now));
    }
    match (print::done(&rows(&lines)), shape) {
        (Exit::Done, Err(error)) => {
            let exit = print::failed(&error);
            print::hint("the secret was fetched; make it a kubeconfig that an account can use");
            exit
        }
        (exit, _) => exit,
    }
}

fn seen(shape: &Shape, now: SystemTime) -> Vec<Row> {
    let none = || "none".to_owned();
    let ends = |end: SystemTime| match end.duration_since(now) {
        Ok(left) => format!("{}, in {}", rfc3339(end), spoken(left)),
        Err(past) => format!("{}, {} ago", rfc3339(end), spoken(past.duration())),
    };
    let mut lines = vec![
        ("contexts", shape.contexts.join(", ")),
        ("server", shape.server.clone()),
        ("namespace", shape.namespace.clone().unwrap_or_else(none)),
        ("user", shape.user.to_owned()),
    ];
    lines.extend(
        shape
            .certificate_ends
            .map(|end| ("certificate ends", ends(end))),
    );
    lines.extend(
        shape
            .authority_ends
            .map(|end| ("authority ends", ends(end))),
    );
    lines
}
