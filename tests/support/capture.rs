//! Logs as a test sees them: JSON lines, searched by message and field.

use serde_json::Value;

/// A log, line by line.
#[derive(Debug)]
pub(crate) struct Log {
    text: String,
}

impl Log {
    /// Of what a process has written so far; a line that is not complete does not count.
    pub(crate) fn of(mut text: String) -> Self {
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        Self { text }
    }

    /// The entries that are JSON; a panic or a warning of the runtime is none.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .map(Entry)
    }

    /// The first entry with this message.
    pub(crate) fn find(&self, message: &str) -> Option<Entry> {
        self.entries()
            .find(|entry| entry.message() == Some(message))
    }

    /// How often something was refused for `reason`, with `part` in the actor or the details.
    pub(crate) fn refusals(&self, reason: &str, part: &str) -> usize {
        let refused = |entry: &Entry| {
            entry.text("target") == Some("sortie::audit")
                && entry.text("outcome") == Some("refused")
                && entry.text("reason") == Some(reason)
                && ["actor", "details"]
                    .iter()
                    .any(|name| entry.text(name).is_some_and(|text| text.contains(part)))
        };
        self.entries().filter(refused).count()
    }

    /// Fails if one of `values` stands anywhere in the log.
    pub(crate) fn assert_without(&self, values: &[&str]) {
        for (number, value) in values.iter().enumerate() {
            let line = self.text.lines().position(|line| line.contains(value));
            assert_eq!(
                line, None,
                "planted value {number} stands in this line of the log"
            );
        }
    }
}

/// One event of a log.
#[derive(Clone, Debug)]
pub(crate) struct Entry(Value);

impl Entry {
    /// Its constant message.
    pub(crate) fn message(&self) -> Option<&str> {
        self.field("message")?.as_str()
    }

    /// A field, whether the fields stand beside the level or below `fields`.
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        self.0.get(name).or_else(|| self.0.get("fields")?.get(name))
    }

    /// A field that is a string.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.field(name)?.as_str()
    }
}
