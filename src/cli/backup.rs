//! `sortie backup`

use super::args::{Backup, Global};
use super::{Exit, admin, print};
use crate::hub::admin::Request;

pub(super) fn run(wanted: &Backup, global: &Global) -> Exit {
    // The hub has another working folder.
    match std::path::absolute(&wanted.out) {
        Ok(out) => admin::execute(global, &Request::Backup { out }),
        Err(error) => print::failed(&error),
    }
}
