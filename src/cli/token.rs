//! `sortie token`

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::args::{Global, Token};
use super::output::Output;
use super::{Exit, admin, print};
use crate::clock::{from_unix_seconds, rfc3339};
use crate::hub::admin::{Answer, Request};

pub(super) fn run(what: Token, global: &Global) -> Exit {
    match what {
        Token::Create {
            agent,
            accounts,
            ttl,
            out,
        } => {
            let request = Request::CreateToken {
                agent,
                accounts: accounts.into_iter().collect(),
                ttl_seconds: ttl.as_secs(),
            };
            create(&request, out, global)
        }
        Token::Delete { id } => admin::execute(global, &Request::DeleteToken { id }),
    }
}

fn create(request: &Request, out: Option<PathBuf>, global: &Global) -> Exit {
    let output = match Output::open(out) {
        Ok(output) => output,
        Err(error) => return print::failed(&error),
    };
    let (join, id, expires) = match admin::answer(global, request) {
        Ok(Answer::Token { join, id, expires }) => (Zeroizing::new(join), id, expires),
        Ok(_) => return admin::unexpected(),
        Err(exit) => return exit,
    };
    let text = Zeroizing::new(format!("{}\n", join.as_str()));
    if let Err(error) = output.write(&text) {
        print::hint(&format!("`sortie token delete {id}` takes the token back"));
        return print::failed(&error);
    }
    let until = rfc3339(from_unix_seconds(expires));
    print::note(&format!(
        "token {id}: a secret, for one agent, until {until}"
    ));
    Exit::Done
}
