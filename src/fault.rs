//! How errors are shown: what was attempted, then each cause, then what to do about the last.

use std::error::Error;
use std::fmt;
use std::io;

/// Shows an error and its causes, separated by `: `.
///
/// The house rule is that an error's `Display` never contains its source, so nothing is said
/// twice.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The last cause of a chain, with what to do about it: `CAUSE; ADVICE`.
///
/// For causes that come from the system or a library, whose own words end where an operator's
/// question begins. It has no source: what it wraps is part of what it shows.
#[derive(Debug)]
pub struct Advised<E = io::Error> {
    cause: E,
    advice: &'static str,
}

impl<E> Advised<E> {
    /// `cause` with what to do about it; no advice is given where it is empty.
    pub const fn new(cause: E, advice: &'static str) -> Self {
        Self { cause, advice }
    }

    /// The cause itself.
    pub const fn cause(&self) -> &E {
        &self.cause
    }
}

impl<E: fmt::Display> fmt::Display for Advised<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause)?;
        if self.advice.is_empty() {
            return Ok(());
        }
        write!(f, "; {}", self.advice)
    }
}

impl<E: fmt::Debug + fmt::Display> Error for Advised<E> {}

impl Advised {
    /// For a socket that could not be opened to listen.
    pub fn listening(cause: io::Error) -> Self {
        let advice = match cause.kind() {
            io::ErrorKind::AddrInUse => "stop what listens there, or choose another port",
            io::ErrorKind::AddrNotAvailable => "this machine has no such address",
            io::ErrorKind::PermissionDenied => "ports below 1024 are for root",
            _ => "",
        };
        Self::new(cause, advice)
    }

    /// For a file or folder of our own that could not be used.
    pub fn keeping(cause: io::Error) -> Self {
        let advice = match cause.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "it has to be writable for the user that runs this"
            }
            io::ErrorKind::NotADirectory => "a part of this path is a file",
            kind => full(kind),
        };
        Self::new(cause, advice)
    }
}

/// What to ask where nothing more could be written.
pub const fn full(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "is the disk full?"
        }
        _ => "",
    }
}
