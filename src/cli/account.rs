//! `sortie account`

use super::args::{Account, Global};
use super::{Exit, admin};
use crate::hub::admin::Request;

pub(super) fn run(what: Account, global: &Global) -> Exit {
    let request = match what {
        Account::Approve { name } => Request::ApproveAccount { name },
        Account::Suspend { name } => Request::SuspendAccount { name },
        Account::Remove { name } => Request::RemoveAccount { name },
    };
    admin::execute(global, &request)
}
