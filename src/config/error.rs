//! What is wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Larger than [`limits::YAML_BYTES`](crate::limits::YAML_BYTES), or not UTF-8.
    #[error("the configuration `{}` is too large, or not text", path.display())]
    NotText {
        /// Which.
        path: PathBuf,
    },
    /// Everything that has to be changed, in the order of the file; one line each.
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
}

/// One thing that has to be changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line it is in, or that of the map where something is missing.
    pub line: usize,
    /// Path of the key, such as `listen.data`; empty for the whole document.
    pub key: String,
    /// What is wrong.
    pub text: String,
    /// The file.
    pub file: PathBuf,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
