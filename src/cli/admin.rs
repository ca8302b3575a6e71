//! Asks the hub over its socket.

use std::io;

use super::args::Global;
use super::{Exit, print, process};
pub(super) use crate::hub::admin::Row;
use crate::hub::admin::{Answer, AskError, Request, ask};

/// Asks, and gives the answer that the hub meant well.
///
/// # Errors
/// How the program ends; what went wrong has been told.
pub(super) fn answer(global: &Global, request: &Request) -> Result<Answer, Exit> {
    let mut outcome = Err(Exit::Failed);
    process::block_on(1, async {
        outcome = settle(ask(&global.hub, request).await);
        Exit::Done
    });
    outcome
}

/// As [`answer`], for requests whose answer is only that it is done.
pub(super) fn execute(global: &Global, request: &Request) -> Exit {
    match answer(global, request) {
        Ok(Answer::Done { message }) => {
            print::note(&message);
            Exit::Done
        }
        Ok(_) => unexpected(),
        Err(exit) => exit,
    }
}

/// Tells what stands between an answer and its use.
pub(super) fn settle(asked: Result<Answer, AskError>) -> Result<Answer, Exit> {
    match asked {
        Ok(Answer::Error { message }) => {
            print::error_text(&message);
            Err(Exit::Failed)
        }
        Ok(answer) => Ok(answer),
        Err(error) => Err(unreachable(&error)),
    }
}

/// The hub could not be asked.
pub(super) fn unreachable(error: &AskError) -> Exit {
    print::error(error);
    print::hint(match error {
        AskError::Unreachable { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            "a hub is administered by the user that runs it, and by root"
        }
        AskError::Unreachable { .. } => {
            "is the hub running? `--hub` names its socket: `admin.sock` in its `state-dir`"
        }
        AskError::Unreadable { .. } => {
            "`--hub` names the hub's socket: `admin.sock` in its `state-dir`"
        }
        AskError::Lost { .. } => return Exit::Unavailable,
    });
    Exit::Unavailable
}

/// The hub answered something else than was asked for.
pub(super) fn unexpected() -> Exit {
    print::error_text("the hub's answer is not for this question; are both of the same version?");
    Exit::Failed
}
