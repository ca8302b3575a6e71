//! Walks a document with the path of its keys, and collects what is wrong with it.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{ConfigError, Problem};
use crate::yaml::{self, Entry, Node};

/// A document under inspection.
pub(super) struct Reader {
    file: PathBuf,
    problems: RefCell<Vec<Problem>>,
}

/// A map of the document, whose keys are known.
pub(super) struct Map<'a> {
    reader: &'a Reader,
    entries: &'a [Entry],
    path: String,
    line: usize,
}

/// A value of the document.
pub(super) struct Field<'a> {
    reader: &'a Reader,
    node: &'a Node,
    path: String,
}

/// What a parser makes of a field; the error says what it must be.
pub(super) type Parsed<T> = Result<T, String>;

impl Reader {
    /// Parses `text`, which stands in `file`.
    pub(super) fn open(file: &Path, text: &str) -> Result<(Self, Node), ConfigError> {
        let reader = Self {
            file: file.to_owned(),
            problems: RefCell::default(),
        };
        match yaml::parse(text) {
            Ok(root) => Ok((reader, root)),
            Err(error) => {
                let text = format!("column {}: {}", error.column, error.problem);
                reader.tell(error.line, String::new(), text);
                Err(ConfigError::Problems(reader.problems.into_inner()))
            }
        }
    }

    /// The document as a map of `known` keys.
    pub(super) fn root<'a>(&'a self, node: &'a Node, known: &[&str]) -> Map<'a> {
        self.map(node, String::new(), known)
    }

    /// Notes a problem.
    pub(super) fn tell(&self, line: usize, key: String, text: String) {
        let file = self.file.clone();
        self.problems.borrow_mut().push(Problem {
            line,
            key,
            text,
            file,
        });
    }

    /// The result of the reading: what was made, or every problem in the order of the file.
    pub(super) fn finish<T>(self, made: Option<T>) -> Result<T, ConfigError> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        match made {
            Some(made) if problems.is_empty() => Ok(made),
            Some(_) | None => Err(ConfigError::Problems(problems)),
        }
    }

    fn map<'a>(&'a self, node: &'a Node, path: String, known: &[&str]) -> Map<'a> {
        if node.as_map().is_none() && !node.is_null() {
            self.tell(node.line, path.clone(), "must be a map".to_owned());
        }
        let map = Map {
            reader: self,
            entries: node.as_map().unwrap_or_default(),
            path,
            line: node.line,
        };
        if !known.is_empty() {
            map.refuse_unknown(known);
        }
        map
    }
}

impl<'a> Map<'a> {
    fn refuse_unknown(&self, known: &[&str]) {
        for entry in self.entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            let text = match nearest(&entry.key, known) {
                Some(near) => format!("is not a key here; did you mean `{near}`?"),
                None => format!("is not a key here; known are `{}`", known.join("`, `")),
            };
            let key = self.key(&printable(&entry.key));
            self.reader.tell(entry.line, key, text);
        }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Notes a problem with `key`, which may be absent.
    pub(super) fn tell(&self, key: &str, text: impl Into<String>) {
        let written = self.entries.iter().find(|entry| entry.key == key);
        let line = written.map_or(self.line, |entry| entry.line);
        self.reader.tell(line, self.key(key), text.into());
    }

    /// The value of `key`, if one is written.
    pub(super) fn field(&self, key: &str) -> Option<Field<'a>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!entry.node.is_null()).then(|| Field {
            reader: self.reader,
            node: &entry.node,
            path: self.key(key),
        })
    }

    /// Every key with its value.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> {
        self.entries.iter().map(|entry| {
            let field = Field {
                reader: self.reader,
                node: &entry.node,
                path: self.key(&printable(&entry.key)),
            };
            (entry.key.as_str(), field)
        })
    }

    /// What `parse` makes of `key`, which must be there.
    pub(super) fn required<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&Field<'a>) -> Parsed<T>,
    ) -> Option<T> {
        if self.field(key).is_none() {
            self.tell(key, "is missing");
        }
        self.optional(key, parse)
    }

    /// What `parse` makes of `key`, if it is there.
    pub(super) fn optional<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&Field<'a>) -> Parsed<T>,
    ) -> Option<T> {
        self.field(key)?.read(parse)
    }

    /// The map at `key`; an empty one if there is none.
    pub(super) fn map(&self, key: &str, known: &[&str]) -> Self {
        self.field(key).map_or_else(
            || Self {
                reader: self.reader,
                entries: &[],
                path: self.key(key),
                line: self.line,
            },
            |field| field.map(known),
        )
    }

    /// The values of the list at `key` that `parse` accepts; none if there is no list.
    pub(super) fn list<T>(
        &self,
        key: &str,
        most: usize,
        parse: impl FnMut(Field<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.field(key)?.items(most, parse)
    }

    /// As [`Map::list`], for one that must be there and not empty.
    pub(super) fn required_list<T>(
        &self,
        key: &str,
        most: usize,
        parse: impl FnMut(Field<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let empty = self
            .field(key)
            .is_none_or(|field| field.node.as_list().is_some_and(<[Node]>::is_empty));
        if empty {
            self.tell(key, "needs at least one entry");
            return None;
        }
        self.list(key, most, parse)
    }
}

impl<'a> Field<'a> {
    /// Notes a problem with this value.
    pub(super) fn tell(&self, text: impl Into<String>) {
        self.reader
            .tell(self.node.line, self.path.clone(), text.into());
    }

    /// The values of this list that `parse` accepts; none if it is not a list.
    pub(super) fn items<T>(
        &self,
        most: usize,
        parse: impl FnMut(Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Some(items) = self.node.as_list() else {
            self.tell("must be a list, each entry after a `-`");
            return None;
        };
        if items.len() > most {
            self.tell(format!("has {} entries; at most {most}", items.len()));
            return None;
        }
        let items = items.iter().enumerate().map(|(number, node)| Field {
            reader: self.reader,
            node,
            path: format!("{}[{number}]", self.path),
        });
        Some(items.filter_map(parse).collect())
    }

    /// The line it stands in.
    pub(super) const fn line(&self) -> usize {
        self.node.line
    }

    /// What is written.
    pub(super) const fn node(&self) -> &'a Node {
        self.node
    }

    /// `path` as it is meant: relative to the folder of the configuration.
    pub(super) fn beside_file(&self, path: &str) -> PathBuf {
        let folder = self.reader.file.parent();
        folder.map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    /// The value as a map of `known` keys; no list of keys accepts every key.
    pub(super) fn map(&self, known: &[&str]) -> Map<'a> {
        self.reader.map(self.node, self.path.clone(), known)
    }

    /// What `parse` makes of it.
    pub(super) fn read<T>(&self, parse: impl FnOnce(&Self) -> Parsed<T>) -> Option<T> {
        match parse(self) {
            Ok(made) => Some(made),
            Err(text) => {
                self.tell(text);
                None
            }
        }
    }
}

/// Longest piece of a document that a problem quotes, in characters.
const QUOTED: usize = 64;

/// A piece of the document, fit for one line.
pub(super) fn printable(text: &str) -> String {
    let mut out: String = text.escape_debug().take(QUOTED).collect();
    if out.len() < text.len() {
        let _fits = out.write_char('…');
    }
    out
}

/// The known key that `key` was probably meant to be: at most a third of its letters differ.
pub(super) fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    if key.len() > QUOTED {
        return None;
    }
    let near = known
        .iter()
        .map(|candidate| (distance(key, candidate), *candidate))
        .min()?;
    (near.0 <= (near.1.len() / 3).max(1)).then_some(near.1)
}

/// Letters to insert, remove, replace or swap with their neighbour to get from `a` to `b`
/// (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let replaced = at(&above, j) + usize::from(from != to);
            let mut best = replaced.min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    at(&above, b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_named_only_if_it_is_near() {
        let known = ["listen", "max-stale", "name", "names", "state-dir"];
        assert_eq!(nearest("lisetn", &known), Some("listen"));
        assert_eq!(nearest("stat-dir", &known), Some("state-dir"));
        assert_eq!(nearest("max_stale", &known), Some("max-stale"));
        assert_eq!(nearest("tls", &known), None);
        assert_eq!(nearest(&"x".repeat(10_000), &known), None);
    }

    #[test]
    fn a_swap_counts_once() {
        assert_eq!(distance("lisetn", "listen"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn what_is_quoted_stays_on_one_line() {
        assert_eq!(printable("a\nb"), "a\\nb");
        assert_eq!(printable(&"x".repeat(100)).chars().count(), QUOTED + 1);
    }
}
