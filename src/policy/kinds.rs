//! Kinds as configurations write them.

use std::fmt;

use thiserror::Error;

use crate::resource::Kind;

/// Longest pattern that is read, in bytes: a resource name and a group are DNS names.
const PATTERN_BYTES: usize = 320;

/// A kind as a configuration writes it: `Deployment.apps`, `pods`, `CronTab.stable.example.com`.
///
/// The part before the first dot is the kind, or its plural or singular name; what follows is the
/// group, and nothing means the core group. Letter case does not matter. `*` is every kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindPattern(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Named {
        name: String,
        group: String,
        /// Whether the name was written in lower case, as resources are and kinds are not.
        is_resource: bool,
    },
}

/// A text that is not a kind.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// Nothing before the first dot, or nothing at all.
    #[error("a kind is written `Kind` or `Kind.group`, and this one has no name")]
    Empty,
    /// `*` together with something else.
    #[error("`*` stands for every kind and only alone, got `{0}`")]
    Wildcard(String),
    /// A byte that neither names of kinds nor of groups have.
    #[error("`{0}` is not the name of a kind: letters, digits, `-` and `.` only")]
    Character(String),
    /// Longer than any name in Kubernetes.
    #[error("the name of a kind has at most {PATTERN_BYTES} bytes")]
    TooLong,
}

impl KindPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self(Pattern::Any));
        }
        if text.len() > PATTERN_BYTES {
            return Err(PatternError::TooLong);
        }
        if text.contains('*') {
            return Err(PatternError::Wildcard(text.to_owned()));
        }
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        if !text.bytes().all(is_part) {
            return Err(PatternError::Character(text.to_owned()));
        }
        let (name, group) = text.split_once('.').unwrap_or((text, ""));
        if name.is_empty() || (group.is_empty() && text.contains('.')) {
            return Err(PatternError::Empty);
        }
        Ok(Self(Pattern::Named {
            is_resource: !name.bytes().any(|byte| byte.is_ascii_uppercase()),
            name: name.to_ascii_lowercase(),
            group: group.to_ascii_lowercase(),
        }))
    }

    /// Whether `kind` is meant.
    pub fn matches(&self, kind: &Kind) -> bool {
        match &self.0 {
            Pattern::Any => true,
            Pattern::Named { name, group, .. } => {
                let names = [&kind.kind, &kind.gvr.resource, &kind.singular];
                kind.gvr.group.eq_ignore_ascii_case(group)
                    && names.iter().any(|known| known.eq_ignore_ascii_case(name))
            }
        }
    }

    /// Group and resource, if the name may be a resource's by the way it was written; singular
    /// names are written so as well.
    pub(super) fn as_resource(&self) -> Option<(&str, &str)> {
        match &self.0 {
            Pattern::Named {
                name,
                group,
                is_resource: true,
            } => Some((group, name)),
            Pattern::Any | Pattern::Named { .. } => None,
        }
    }

    /// Whether this is `*`.
    pub const fn is_any(&self) -> bool {
        matches!(self.0, Pattern::Any)
    }
}

impl fmt::Display for KindPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Any => f.write_str("*"),
            Pattern::Named { name, group, .. } if group.is_empty() => f.write_str(name),
            Pattern::Named { name, group, .. } => write!(f, "{name}.{group}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::account::tests::kind;

    #[test]
    fn a_kind_is_matched_without_regard_to_case_and_number() {
        let deployment = kind("apps", "deployments", "Deployment");
        for text in [
            "Deployment.apps",
            "deployments.APPS",
            "deployment.apps",
            "*",
        ] {
            assert!(
                KindPattern::parse(text).unwrap().matches(&deployment),
                "{text}"
            );
        }
        let crontab = kind("stable.example.com", "crontabs", "CronTab");
        assert!(
            KindPattern::parse("CronTab.stable.example.com")
                .unwrap()
                .matches(&crontab)
        );
    }

    #[test]
    fn a_bare_name_means_the_core_group() {
        let deployment = kind("apps", "deployments", "Deployment");
        assert!(
            !KindPattern::parse("Deployment")
                .unwrap()
                .matches(&deployment)
        );
        assert!(
            KindPattern::parse("pods")
                .unwrap()
                .matches(&kind("", "pods", "Pod"))
        );
    }

    #[test]
    fn what_is_not_a_kind_is_refused() {
        for text in [
            "", ".apps", "Pod.", "*.apps", "Po d", "Pod/apps", "P\u{f6}d",
        ] {
            assert!(KindPattern::parse(text).is_err(), "{text}");
        }
    }
}
