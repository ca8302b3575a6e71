//! `sortie agent`

use std::collections::BTreeSet;

use super::args::{Agent, Global};
use super::process::{self, Signals};
use super::reload::Followed;
use super::{Exit, check, print, rbac};
use crate::agent::{self, Settings};
use crate::config::source::{self, Environment};
use crate::config::{ConfigError, agent as config};
use crate::policy::{self, AccountPolicy, Rules};
use crate::tasks::Tasks;
use crate::{clock, entropy};

pub(super) fn run(wanted: &Agent, global: &Global) -> Exit {
    let serve = &wanted.serve;
    let (settings, followed) = match read(wanted) {
        Ok(read) => read,
        Err(error) => return process::refuse(&error),
    };
    if serve.print_config {
        return print::done(&config::print(&settings));
    }
    let rules = match policy::load() {
        Ok(rules) => rules,
        Err(error) => return print::failed(&error),
    };
    if wanted.print_rbac {
        return rbac::run(&settings, &rules);
    }
    process::prepare(global, serve.allow_dump);
    if serve.check {
        let (config, clock) = (&serve.config, clock::system());
        return check::run(config, agent::check(settings, &rules, &clock));
    }
    // One thread: an agent mostly waits, and each further thread costs memory.
    process::block_on(1, run_until_told(settings, rules, followed))
}

fn read(wanted: &Agent) -> Result<(Settings, Followed), ConfigError> {
    let file = &wanted.serve.config;
    let text = source::load(file)?;
    let mut environment = Environment::of_process();
    if wanted.print_rbac {
        environment = environment.in_a_pod(); // this is seldom one
    }
    let settings = config::read(file, &text, &environment)?;
    Ok((settings, Followed::new(file, text, environment)))
}

async fn run_until_told(settings: Settings, rules: Rules, followed: Followed) -> Exit {
    log_start(&settings, &rules);
    process::raise_open_files();
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return print::failed(&error),
    };
    let tasks = Tasks::new();
    let (clock, entropy) = (clock::system(), entropy::system());
    let starting = agent::start(settings, &rules, clock, entropy, tasks.clone());
    let running = match starting.await {
        Ok(running) => running,
        Err(error) => return print::failed(&error),
    };
    tracing::info!(health = %running.health, metrics = %running.metrics, "listening");
    let refused = tokio::select! {
        () = signals.next() => None,
        // Logged where it happened; the rest still drains.
        _task = tasks.died() => None,
        fatal = running.fatal() => Some(fatal),
        () = followed.follow(&running, tasks.stop()) => None,
    };
    let drained = signals.during(|grace| running.drain(grace)).await;
    match refused {
        Some(fatal) => {
            print::error(&fatal);
            Exit::Refused
        }
        None => process::ended(drained, &tasks),
    }
}

fn log_start(settings: &Settings, rules: &Rules) {
    let accounts = settings.accounts.iter();
    let policies: BTreeSet<[u8; 32]> = accounts
        .map(|account| AccountPolicy::new(account.policy.clone(), rules).digest())
        .collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        name = %settings.name,
        hub = settings.hub.data,
        accounts = settings.accounts.len(),
        engines = settings.engines.len(),
        policies = policies.len(),
        "starting agent"
    );
}
