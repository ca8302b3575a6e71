//! What a check of a daemon found, one line each.

use std::fmt;
use std::time::Duration;

/// Time that one check may take.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, as the configuration names it.
    pub what: String,
    /// Whether it is as it has to be, and what was seen.
    pub outcome: Outcome,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it has to be.
    Good {
        /// What was seen.
        seen: String,
    },
    /// Not as it has to be.
    Bad {
        /// What was seen.
        seen: String,
        /// What to do about it.
        remedy: String,
    },
}

impl Finding {
    /// All is well.
    pub fn good(what: impl Into<String>, seen: impl Into<String>) -> Self {
        let seen = seen.into();
        Self {
            what: what.into(),
            outcome: Outcome::Good { seen },
        }
    }

    /// Something has to be done.
    pub fn bad(
        what: impl Into<String>,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            what: what.into(),
            outcome: Outcome::Bad {
                seen: seen.into(),
                remedy: remedy.into(),
            },
        }
    }

    /// Whether all is well.
    pub const fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Good { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = &self.what;
        let line = match &self.outcome {
            Outcome::Good { seen } => format!("ok   {what}: {seen}"),
            Outcome::Bad { seen, remedy } => format!("FAIL {what}: {seen}; {remedy}"),
        };
        // What was seen may hold words from afar.
        for character in line.chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_debug())?;
            } else {
                fmt::Write::write_char(f, character)?;
            }
        }
        Ok(())
    }
}

/// A length of time for people, in its two largest units.
pub fn spoken(length: Duration) -> String {
    let minutes = length.as_secs() / 60;
    let (days, hours) = (minutes / 1440, minutes / 60 % 24);
    match (days, hours, minutes % 60) {
        (0, 0, 0) => format!("{} s", length.as_secs()),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_its_remedy() {
        let good = Finding::good("clock", "3 s off");
        assert_eq!(good.to_string(), "ok   clock: 3 s off");
        let bad = Finding::bad("account a", "said \"\u{1b}[2J\n\"", "look at it");
        assert_eq!(
            bad.to_string(),
            "FAIL account a: said \"\\u{1b}[2J\\n\"; look at it"
        );
    }

    #[test]
    fn lengths_are_told_in_two_units() {
        let told = [5, 61, 3700, 90_000].map(|seconds| spoken(Duration::from_secs(seconds)));
        assert_eq!(told, ["5 s", "1 min", "1 h 1 min", "1 d 1 h"]);
    }
}
