//! `sortie client`

use super::args::{Client, Global};
use super::{Exit, admin};
use crate::hub::admin::Request;

pub(super) fn run(what: Client, global: &Global) -> Exit {
    let Client::Create { name, accounts } = what;
    let accounts = accounts.into_iter().collect();
    admin::execute(global, &Request::CreateClient { name, accounts })
}
