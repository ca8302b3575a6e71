//! `sortie revoke`, `sortie restore`

use super::args::{Global, Role, Who};
use super::{Exit, admin};
use crate::hub::admin::{Banned, Request};

pub(super) fn revoke(who: Who, global: &Global) -> Exit {
    let (role, name) = (banned(who.role), who.name);
    admin::execute(global, &Request::Revoke { role, name })
}

pub(super) fn restore(who: Who, global: &Global) -> Exit {
    let (role, name) = (banned(who.role), who.name);
    admin::execute(global, &Request::Restore { role, name })
}

const fn banned(role: Role) -> Banned {
    match role {
        Role::Agent => Banned::Agent,
        Role::Client => Banned::Client,
    }
}
