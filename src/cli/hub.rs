//! `sortie hub`

use std::num::NonZero;
use std::thread::available_parallelism;

use super::args::{Global, Serve};
use super::process::{self, Signals, THREADS};
use super::{Exit, check, print};
use crate::config::{ConfigError, hub as config, source};
use crate::hub::{self, Running, Settings};
use crate::secret;
use crate::tasks::Tasks;
use crate::{clock, entropy};

pub(super) fn run(serve: &Serve, global: &Global) -> Exit {
    let settings = match read(serve) {
        Ok(settings) => settings,
        Err(error) => return process::refuse(&error),
    };
    if serve.print_config {
        return print::done(&config::print(&settings));
    }
    process::prepare(global, serve.allow_dump);
    if serve.check {
        return check::run(&serve.config, async {
            hub::check(&settings, &clock::system()).await
        });
    }
    let cores = available_parallelism().map_or(THREADS, NonZero::get);
    let threads = cores.clamp(2, THREADS);
    secret::share_heaps(threads);
    process::block_on(threads, run_until_told(settings))
}

fn read(serve: &Serve) -> Result<Settings, ConfigError> {
    let text = source::load(&serve.config)?;
    config::read(&serve.config, &text)
}

async fn run_until_told(settings: Settings) -> Exit {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        name = %settings.name,
        trust_domain = %settings.trust_domain,
        state_dir = %settings.state_dir.display(),
        "starting hub"
    );
    process::raise_open_files();
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return print::failed(&error),
    };
    let tasks = Tasks::new();
    let starting = hub::start(settings, clock::system(), entropy::system(), tasks.clone());
    let running = match starting.await {
        Ok(running) => running,
        Err(error) => return print::failed(&error),
    };
    log_addresses(&running);
    tokio::select! {
        () = signals.next() => {}
        // Logged where it happened; the rest still drains.
        _task = tasks.died() => {}
    }
    let drained = signals.during(|grace| running.drain(grace)).await;
    process::ended(drained, &tasks)
}

fn log_addresses(running: &Running) {
    let at = &running.addresses;
    tracing::info!(
        data = %at.data,
        enrol = %at.enrol,
        facade = %at.facade,
        health = %at.health,
        metrics = %at.metrics,
        "root-spki-sha256" = running.root_pin(),
        "listening"
    );
}
