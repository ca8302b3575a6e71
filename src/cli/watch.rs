//! `sortie get --watch`

use std::io;

use serde_json::json;

use super::admin::{self, Row};
use super::args::{Get, Global, Output};
use super::get::{Seen, named};
use super::process::Signals;
use super::table::Table;
use super::{Exit, print};
use crate::hub::admin as hub;

/// Prints what there is, and then each row that changes, until a signal comes.
pub(super) async fn run(get: &Get, global: &Global) -> Exit {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return print::failed(&error),
    };
    tokio::select! {
        () = signals.next() => Exit::Done,
        exit = follow(get, global) => exit,
    }
}

async fn follow(get: &Get, global: &Global) -> Exit {
    let mut watching = match hub::watch(&global.hub, get.what.at_the_hub()).await {
        Ok(watching) => watching,
        Err(error) => return admin::unreachable(&error),
    };
    let mut seen = Seen::default();
    let mut table = None;
    loop {
        let answer = match admin::settle(watching.next().await) {
            Ok(answer) => answer,
            Err(exit) => return exit,
        };
        let Some((rows, gone)) = seen.take(answer) else {
            return admin::unexpected();
        };
        let (rows, gone) = (named(get, rows), named(get, gone));
        let told = match get.output {
            Output::Json => tell_json(&rows, &gone),
            Output::Table | Output::Wide => tell_table(get, &mut table, &rows, &gone, &seen),
        };
        match told {
            Ok(true) => {}
            // Nobody reads any more.
            Ok(false) => return Exit::Done,
            Err(error) => return print::failed(&error),
        }
    }
}

/// One document per row and line.
fn tell_json(rows: &[Row], gone: &[Row]) -> io::Result<bool> {
    let set = rows.iter().map(|row| ("set", row));
    let all = set.chain(gone.iter().map(|row| ("gone", row)));
    let line = |(change, row)| {
        format!(
            "{}\n",
            json!({ "version": 1, "change": change, "item": row })
        )
    };
    print::more(&all.map(line).collect::<String>())
}

/// The header above the first rows, then one line per row.
fn tell_table(
    get: &Get,
    table: &mut Option<Table>,
    rows: &[Row],
    gone: &[Row],
    seen: &Seen,
) -> io::Result<bool> {
    let mut text = String::new();
    if table.is_none() && !rows.is_empty() {
        let made = Table::new(get.what.columns(get.output), rows);
        text.push_str(&made.header());
        *table = Some(made);
    }
    if let Some(table) = table {
        for row in rows {
            text.push_str(&table.line(row, ""));
        }
        for row in gone.iter().filter(|row| seen.misses(row)) {
            text.push_str(&table.line(row, "gone"));
        }
    }
    print::more(&text)
}
