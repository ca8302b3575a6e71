//! Rewrites references in a file, and leaves everything else as it is written.
//!
//! ```text
//! text ──yaml──▶ scalars with their lines ──find each in its line──▶ edits ──▶ text ──yaml──▶ same?
//! ```

use std::path::Path;

use super::{ConfigError, Problem};
use crate::credential::Reference;
use crate::yaml::{self, Node, Value, YamlError};

/// How a reference begins that is not in our form.
const OLD: [&str; 4] = [
    "encrypted:",
    "encryptedFile:",
    "secret://",
    "boot-secret://",
];

/// A text whose references are all in our form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The whole text.
    pub text: String,
    /// How many references are written in another way than before.
    pub rewritten: usize,
}

/// A key or value, in the order of the document.
struct Scalar {
    line: usize,
    text: String,
    is_value: bool,
}

/// Rewrites the references in `text`, the YAML of `file`, in their canonical form.
///
/// # Errors
/// Every reference that cannot be read or found, with its line; then nothing is rewritten.
pub fn migrate(file: &Path, text: &str) -> Result<Migrated, ConfigError> {
    let problem = |line, text| Problem {
        line,
        key: String::new(),
        text,
        file: file.to_owned(),
    };
    let unread = |error: YamlError| {
        let told = format!("column {}: {}", error.column, error.problem);
        ConfigError::Problems(vec![problem(error.line, told)])
    };
    let mut scalars = scalars(text).map_err(unread)?;
    let (mut out, mut problems) = (Vec::new(), Vec::new());
    let (mut rewritten, mut left) = (0, scalars.iter_mut().peekable());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let (number, mut rest) = (index + 1, line);
        while let Some(scalar) = left.next_if(|scalar| scalar.line <= number) {
            let found = place(rest, &scalar.text).filter(|_| scalar.line == number);
            let old = scalar.is_value && is_old(&scalar.text);
            if old {
                let at = found.map(|at| line.len() - rest.len() + at);
                match modern(&scalar.text, line, at) {
                    Ok(modern) => {
                        let before = found.and_then(|at| rest.get(..at)).unwrap_or_default();
                        out.extend([before.to_owned(), modern.clone()]);
                        rest = after(rest, before.len() + scalar.text.len());
                        scalar.text = modern;
                        rewritten += 1;
                    }
                    Err(told) => problems.push(problem(scalar.line, told)),
                }
            } else if let Some(at) = found {
                // What stands here is not what a later scalar of this line is.
                let end = at + scalar.text.len();
                out.push(rest.get(..end).unwrap_or_default().to_owned());
                rest = after(rest, end);
            }
        }
        out.push(rest.to_owned());
    }
    if !problems.is_empty() {
        return Err(ConfigError::Problems(problems));
    }
    let migrated = out.concat();
    if !is_same(&migrated, &scalars) {
        let told = "its layout cannot be kept; write each value in one line".to_owned();
        return Err(ConfigError::Problems(vec![problem(1, told)]));
    }
    Ok(Migrated {
        text: migrated,
        rewritten,
    })
}

/// Whether a value is a reference, good or bad, of another form. What has several lines is a text.
fn is_old(value: &str) -> bool {
    OLD.iter().any(|lead| value.starts_with(lead)) && !value.contains('\n')
}

/// The canonical form of `reference`, which stands at byte `at` of its line.
fn modern(reference: &str, line: &str, at: Option<usize>) -> Result<String, String> {
    let column = at
        .and_then(|at| line.get(..at))
        .map_or(0, |before| before.chars().count())
        + 1;
    let parsed =
        Reference::parse(reference).map_err(|error| format!("column {column}: {error}"))?;
    if at.is_none() {
        return Err(
            "a reference is written with escapes or over several lines; write it plainly \
                    in one line"
                .to_owned(),
        );
    }
    Ok(parsed.canonical())
}

/// Where `scalar` stands as a word of its own.
fn place(line: &str, scalar: &str) -> Option<usize> {
    if scalar.is_empty() {
        return None;
    }
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_whitespace() || "\"'[]{},:".contains(c));
    let mut places = line.match_indices(scalar).map(|(at, _)| at);
    places.find(|at| {
        let before = line.get(..*at).and_then(|text| text.chars().next_back());
        edge(before) && edge(after(line, at + scalar.len()).chars().next())
    })
}

fn after(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}

fn scalars(text: &str) -> Result<Vec<Scalar>, YamlError> {
    let mut found = Vec::new();
    collect(&yaml::parse(text)?, &mut found);
    Ok(found)
}

/// As deep as [`yaml::DEPTH`].
fn collect(node: &Node, found: &mut Vec<Scalar>) {
    match &node.value {
        Value::Null => {}
        Value::Scalar(scalar) => found.push(Scalar {
            line: node.line,
            text: scalar.text.clone(),
            is_value: true,
        }),
        Value::List(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Map(entries) => {
            for entry in entries {
                found.push(Scalar {
                    line: entry.line,
                    text: entry.key.clone(),
                    is_value: false,
                });
                collect(&entry.node, found);
            }
        }
    }
}

/// Whether a text reads as these scalars.
fn is_same(text: &str, scalars: &[Scalar]) -> bool {
    let again = self::scalars(text).unwrap_or_default();
    let same = |(one, other): (&Scalar, &Scalar)| one.text == other.text;
    again.len() == scalars.len() && again.iter().zip(scalars).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migrated(text: &str) -> Result<Migrated, String> {
        migrate(Path::new("a.yaml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn comments_quotes_and_layout_stay_as_they_are() {
        let old = "\
# encrypted:vault!e:a!p:b!k:c stays here
accounts:   # two of them
  - name: one
    kubeconfigFile:   encryptedFile:vault!e:secret!n:shop!k:a,b   # encrypted:noop!v:x
  - { name: 'two', kubeconfigFile: encrypted:k8s!n:shop!k:config, more: [\"encrypted:noop!v:x\"] }
encrypted: false
notes: \"see encrypted:noop!v:x\"
new: sec+vault://p/secret/shop#k
text: |
  encrypted: no

last: 'secret://vault?e=secret&p=a%20b&k=c'";
        let new = "\
# encrypted:vault!e:a!p:b!k:c stays here
accounts:   # two of them
  - name: one
    kubeconfigFile:   sec+vault:///secret/shop#a%2Cb   # encrypted:noop!v:x
  - { name: 'two', kubeconfigFile: sec+k8s:///shop#config, more: [\"sec+noop:///x\"] }
encrypted: false
notes: \"see encrypted:noop!v:x\"
new: sec+vault://p/secret/shop#k
text: |
  encrypted: no

last: 'sec+vault:///secret/a%20b#c'";
        let expected = Migrated {
            text: new.to_owned(),
            rewritten: 4,
        };
        assert_eq!(migrated(old), Ok(expected));
        let again = migrated(new).unwrap();
        assert_eq!((again.text.as_str(), again.rewritten), (new, 0));
        let windows = old.replace('\n', "\r\n");
        assert_eq!(migrated(&windows).unwrap().text, new.replace('\n', "\r\n"));
    }

    #[test]
    fn the_reference_is_rewritten_and_not_what_looks_like_it() {
        let old = "- [\"see encrypted:noop!v:a\", encrypted:noop!v:a, { encrypted:noop!v:a: x }]\n";
        let new = "- [\"see encrypted:noop!v:a\", sec+noop:///a, { encrypted:noop!v:a: x }]\n";
        assert_eq!(migrated(old).unwrap().text, new);
    }

    #[test]
    fn every_reference_that_cannot_be_read_is_told_with_its_place() {
        let told = migrated(
            "a: encrypted:vault!e:planted\nb: { c: \"encryptedFile:aws!s:planted\" }\n\
             d: encrypted:noop!v:a\ne: \"encrypted:noop!v:\\u0061\"\n",
        );
        assert_eq!(
            told.unwrap_err(),
            "a.yaml:1: column 4: secret reference, byte 25: expected the parameter `p`, the path\n\
             a.yaml:2: column 10: secret reference, byte 14: no engine `aws`; expected one of \
             `file`, `gcs`, `google-secrets-manager`, `k8s`, `noop`, `s3`, `secrets-manager`, \
             `vault`\n\
             a.yaml:4: a reference is written with escapes or over several lines; write it \
             plainly in one line"
        );
        let told = migrated("a: [encrypted:noop!v:a\n").unwrap_err();
        assert!(told.starts_with("a.yaml:"), "{told}");
    }
}
