//! `sortie kubeconfig`

use secrecy::ExposeSecret as _;

use super::args::{Global, Kubeconfig};
use super::output::Output;
use super::{Exit, admin, print, process};
use crate::clock::rfc3339;
use crate::hub::admin::{KubeconfigError, kubeconfig};

pub(super) fn run(wanted: Kubeconfig, global: &Global) -> Exit {
    let output = match Output::open(wanted.out.clone()) {
        Ok(output) => output,
        Err(error) => return print::failed(&error),
    };
    process::block_on(1, write(wanted, global, output))
}

async fn write(wanted: Kubeconfig, global: &Global, output: Output) -> Exit {
    let (account, client) = (&wanted.account, &wanted.client);
    let granted = match kubeconfig(&global.hub, account, client, wanted.ttl).await {
        Ok(granted) => granted,
        Err(KubeconfigError::Ask(error)) => return admin::unreachable(&error),
        Err(error) => return print::failed(&error),
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "written to where the user asked for"
    )]
    let text = String::from_utf8_lossy(granted.document.expose_secret());
    if let Err(error) = output.write(&text) {
        return print::failed(&error);
    }
    let until = rfc3339(granted.not_after);
    print::note(&format!("client {client} may use it until {until}"));
    Exit::Done
}
