//! Writes to the terminal.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write as _};

use super::Exit;
use crate::fault::Chain;

/// Data, to standard output.
///
/// # Errors
/// It cannot be written; a reader that has seen enough (a closed pipe) is none.
pub(super) fn data(text: &str) -> io::Result<()> {
    more(text).map(drop)
}

/// As [`data`], and more is to come: whether anybody still reads it.
///
/// # Errors
/// As there.
pub(super) fn more(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

/// One line of progress, to standard output.
pub(super) fn progress(text: &str) {
    // Nobody reads it: nothing to be done.
    let _closed = writeln!(io::stdout(), "{text}");
}

/// What went wrong, to standard error.
pub(super) fn error(error: &dyn Error) {
    line("error", &Chain(error));
}

/// As [`error`], in our own words.
pub(super) fn error_text(text: &str) {
    line("error", &text);
}

/// What to do about it, to standard error.
pub(super) fn hint(text: &str) {
    line("hint", &text);
}

/// What was done, to standard error.
pub(super) fn note(text: &str) {
    // Nobody reads it: nothing to be done.
    let _closed = writeln!(io::stderr(), "{text}");
}

fn line(lead: &str, text: &dyn Display) {
    let _closed = writeln!(io::stderr(), "{lead}: {text}");
}

/// Data, and how the program ends after it.
pub(super) fn done(text: &str) -> Exit {
    match data(text) {
        Ok(()) => Exit::Done,
        Err(error) => failed(&error),
    }
}

/// What went wrong, and how the program ends after it.
pub(super) fn failed(error: &dyn Error) -> Exit {
    self::error(error);
    Exit::Failed
}
