//! Why a text is not a reference, and where.

use std::fmt;

use thiserror::Error;

use super::EngineId;

/// Longest name of an engine or parameter that is quoted, in bytes. A longer one is none of ours, and
/// may be a credential in the wrong place.
const QUOTED_BYTES: usize = 24;

/// A text that is not a reference: where it stops being one, and what was expected there.
///
/// Quotes names of engines and of parameters, never a value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("secret reference, byte {at}: {problem}")]
pub struct ReferenceError {
    /// Bytes of the text before the mistake.
    pub at: usize,
    problem: Problem,
}

/// What is wrong there.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum Problem {
    /// Something else has to stand there.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A parameter is not there.
    #[error("expected the parameter `{0}`, {1}")]
    Missing(&'static str, &'static str),
    /// A parameter that must not be there.
    #[error("`{0}` cannot be given here: {1}")]
    Misplaced(&'static str, &'static str),
    /// A parameter is there twice.
    #[error("the parameter `{0}` is given twice")]
    Repeated(Quoted),
    /// No engine of ours.
    #[error("no engine `{0}`; expected one of {known}", known = engines())]
    UnknownEngine(Quoted),
    /// No parameter of this engine.
    #[error("no parameter `{0}` here; expected {1}")]
    UnknownParameter(Quoted, &'static str),
}

impl Problem {
    pub(super) const fn at(self, at: usize) -> ReferenceError {
        ReferenceError { at, problem: self }
    }
}

/// What has to stand at byte `at`.
pub(super) const fn expected(at: usize, what: &'static str) -> ReferenceError {
    Problem::Expected(what).at(at)
}

/// A name that somebody else wrote, if it is short: what is not a letter, digit, `-`, `_` or `.` is
/// left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quoted(String);

impl Quoted {
    pub(super) fn new(name: &str) -> Self {
        let is_name = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
        let mut kept: String = name
            .chars()
            .filter(is_name)
            .take(QUOTED_BYTES + 1)
            .collect();
        if kept.len() > QUOTED_BYTES {
            kept.clear();
        }
        if kept.len() < name.len() {
            kept.push('…');
        }
        Self(kept)
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn engines() -> String {
    format!("`{}`", EngineId::ALL.map(EngineId::as_str).join("`, `"))
}
