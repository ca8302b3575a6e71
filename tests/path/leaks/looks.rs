//! Looks through the memory of an agent: while its secrets are in use, at rest, and when they are gone.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::support::eventually::eventually;
use crate::support::facade::Facade;
use crate::support::planted::Planted;
use crate::support::scan::{Found, Needles};
use crate::support::stand::{Stand, account_yaml};

pub(super) const OPTIONS: [&str; 3] = ["--allow-dump", "--log-level", "trace"];

/// Copies of one value at most, while it is fetched and used again and again.
pub(super) const IN_USE: usize = 3;

/// Copies of one value at most, after a second without a fetch.
pub(super) const AT_REST: usize = 1;

/// How often memory is looked through while the values are in use.
pub(super) const LOOKS: usize = 20;

/// A list of a kind that is never watched: each request goes to the API server.
pub(super) const LIVE: &str = "/api/v1/namespaces/default/configmaps";

/// Time after which nothing may be left, and which rest needs.
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// What is looked for, by name.
#[derive(Default)]
pub(super) struct Values(pub(super) Vec<(String, Vec<u8>)>);

impl Values {
    pub(super) fn add(&mut self, account: &str, planted: &Planted) {
        for (name, value) in &planted.values {
            self.0.push((format!("{account}: {name}"), value.clone()));
        }
    }

    pub(super) fn needles(&self) -> Needles {
        let values: Vec<&[u8]> = self.0.iter().map(|(_, value)| value.as_slice()).collect();
        Needles::new(&values)
    }

    /// The copies of each, for the report.
    pub(super) fn report(&self, when: &str, found: &Found) -> Vec<usize> {
        let copies: Vec<usize> = (0..self.0.len()).map(|at| found.copies(at)).collect();
        for ((name, _), copies) in self.0.iter().zip(&copies) {
            println!("{when}: {name}: {copies}");
        }
        copies
    }

    #[track_caller]
    pub(super) fn assert_at_most(&self, most: usize, when: &str, found: &Found) {
        let copies = self.report(when, found);
        assert!(
            copies.iter().all(|copies| *copies <= most),
            "{when}: {found:?}"
        );
    }
}

/// An account whose kubeconfig is in a secret, with every operation.
pub(super) fn secret_yaml(account: &str, reference: &str) -> String {
    account_yaml(account, Path::new("KUBECONFIG"), "").replace(
        "kubeconfig-file: KUBECONFIG",
        &format!("secret: \"{reference}\""),
    )
}

/// Writes the agent's file anew with these engines and accounts; waits until it follows.
pub(super) async fn rewrite(stand: &Stand, engines: &str, accounts: &str) {
    const FOLLOWED: &str = "accounts follow the configuration";
    let followed = || {
        stand
            .agent
            .log()
            .entries()
            .filter(|entry| entry.message() == Some(FOLLOWED))
            .count()
    };
    let before = followed();
    let text = fs::read_to_string(stand.agent.config_file()).expect("readable");
    let head = text.split("engines:").next().expect("a head");
    let text = format!("{head}{engines}accounts:\n{accounts}");
    fs::write(stand.agent.config_file(), text).expect("writable");
    eventually("the agent follows its file", || {
        (followed() > before).then_some(())
    })
    .await;
}

/// Reads through every account, again and again, while memory is looked through; gives the most
/// copies of each value that a look found.
pub(super) async fn looked_through(
    stand: &Stand,
    accounts: &[&str],
    values: &Values,
    pid: i32,
) -> Vec<usize> {
    let mut facades = Vec::new();
    for account in accounts {
        let client = format!("visitor-of-{account}");
        facades.push(Facade::of(&stand.kubeconfig(account, &client).await));
    }
    let needles = Arc::new(values.needles());
    let mut most = vec![0; values.0.len()];
    for look in 0..LOOKS {
        let needles = Arc::clone(&needles);
        let scan = tokio::task::spawn_blocking(move || needles.scan(pid));
        while !scan.is_finished() {
            let reads = facades.iter().map(|facade| facade.read(LIVE));
            join_all(reads).await;
        }
        let found = scan.await.expect("it looked");
        let copies = values.report(&format!("in use, look {look}"), &found);
        for (most, copies) in most.iter_mut().zip(copies) {
            *most = copies.max(*most);
        }
    }
    most
}

/// A look that begins within a second from now finds nothing.
pub(super) async fn assert_gone(values: &Values, pid: i32) {
    let needles = values.needles();
    let began = Instant::now();
    let mut found = needles.scan(pid);
    while found.total() > 0 && began.elapsed() <= SECOND {
        tokio::task::yield_now().await;
        found = needles.scan(pid);
    }
    values.assert_at_most(0, "gone", &found);
}
