//! The command line: one file per subcommand, and the only room that prints.
//!
//! ```text
//! arguments ─args─▶ subcommand ──┬─▶ hub, agent: configuration ─▶ Settings ─▶ run until a signal
//!                                └─▶ the rest ──admin.sock──▶ hub ─▶ Answer ─▶ table, JSON, file
//! ```
//! # Invariants
//! - Standard output holds data only; everything else goes to standard error (test: `tests/cli`).
//! - A file that is written has mode 0600 and did not exist before (enforced by: `output`).
//! # Failure
//! - Every failure is one `error:` line, `hint:` lines, and an exit code of [`Exit`].

mod account;
mod admin;
mod agent;
pub mod args;
mod backup;
mod ban;
mod board;
mod check;
mod client;
mod cluster;
mod demo;
mod get;
mod hub;
mod kubeconfig;
mod output;
mod print;
mod process;
mod rbac;
mod reference;
mod reload;
mod table;
mod token;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use self::args::{Arguments, Command};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Drained, or done.
    Done,
    /// It did not work.
    Failed,
    /// The configuration or the arguments cannot be used (`EX_USAGE` of sysexits.h).
    Usage,
    /// The hub cannot be reached, or what was waited for did not happen (`EX_UNAVAILABLE`).
    Unavailable,
    /// A task panicked (`EX_SOFTWARE`).
    Panicked,
    /// The identity is refused for good (`EX_NOPERM`).
    Refused,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Panicked => 70,
            Exit::Refused => 77,
        })
    }
}

/// Runs the subcommand that the arguments of this process name.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => {
            let exit = if told.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            // Help that nobody reads any more is no failure.
            let _closed = told.print();
            return exit.into();
        }
    };
    let global = &arguments.global;
    match arguments.command {
        Command::Demo(demo) => demo::run(&demo, global),
        Command::Hub(serve) => hub::run(&serve, global),
        Command::Agent(agent) => agent::run(&agent, global),
        Command::Get(get) => get::run(&get, global),
        Command::Token { what } => token::run(what, global),
        Command::Cluster { what } => cluster::run(what, global),
        Command::Account { what } => account::run(what, global),
        Command::Client { what } => client::run(what, global),
        Command::Kubeconfig(wanted) => kubeconfig::run(wanted, global),
        Command::Revoke(who) => ban::revoke(who, global),
        Command::Restore(who) => ban::restore(who, global),
        Command::Backup(wanted) => backup::run(&wanted, global),
        Command::Ref { what } => reference::run(&what, global),
    }
    .into()
}
