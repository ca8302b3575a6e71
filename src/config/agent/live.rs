//! What a running agent takes from its file when that changes.

use std::fmt::Write as _;
use std::path::Path;

use super::{KEYS, accounts, engines, identity};
use crate::agent::Wanted;
use crate::config::ConfigError;
use crate::config::reader::Reader;
use crate::config::source::Environment;
use crate::yaml::{Node, Value};

/// Keys that take effect while the agent runs.
const LIVE: [&str; 2] = ["accounts", "engines"];

/// A configuration as far as a running agent can follow it.
#[derive(Debug)]
pub struct Live {
    /// What is to be served.
    pub wanted: Wanted,
    /// Every other key, as it was written.
    fixed: Vec<(String, String)>,
}

impl Live {
    /// Keys that differ from `before` and take effect at the next start only.
    pub fn needs_restart(&self, before: &Self) -> Vec<String> {
        let differs = |one: &Self, other: &Self| {
            let keys = one.fixed.iter().filter(|pair| !other.fixed.contains(pair));
            keys.map(|(key, _)| key.clone()).collect::<Vec<_>>()
        };
        let mut keys = differs(self, before);
        keys.extend(differs(before, self));
        keys.sort();
        keys.dedup();
        keys
    }
}

/// Reads the text of the file at `path` again. The join string is not: the agent has joined, and
/// whoever takes the file away then does right.
///
/// # Errors
/// Everything that has to be changed.
pub fn live(path: &Path, text: &str, environment: &Environment) -> Result<Live, ConfigError> {
    let (reader, node) = Reader::open(path, text)?;
    let root = reader.root(&node, &KEYS);
    identity::check(&root);
    let engines = engines::read(&root, environment);
    let accounts = accounts::read(&root, &engines, environment);
    let live = accounts.map(|accounts| Live {
        wanted: Wanted {
            engines: engines.settings,
            accounts,
        },
        fixed: fixed(&node),
    });
    reader.finish(live)
}

fn fixed(root: &Node) -> Vec<(String, String)> {
    let Value::Map(entries) = &root.value else {
        return Vec::new();
    };
    let others = entries
        .iter()
        .filter(|entry| !LIVE.contains(&entry.key.as_str()));
    others
        .map(|entry| {
            let mut written = String::new();
            write(&mut written, &entry.node);
            (entry.key.clone(), written)
        })
        .collect()
}

/// The same text for what means the same, however it is laid out.
fn write(out: &mut String, node: &Node) {
    match &node.value {
        Value::Null => out.push('~'),
        Value::Scalar(scalar) => {
            let _fits = write!(out, "{:?}", scalar.text);
        }
        Value::List(items) => {
            out.push('[');
            for item in items {
                write(out, item);
                out.push(',');
            }
            out.push(']');
        }
        Value::Map(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|one, other| one.key.cmp(&other.key));
            out.push('{');
            for entry in sorted {
                let _fits = write!(out, "{:?}:", entry.key);
                write(out, &entry.node);
                out.push(',');
            }
            out.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Live {
        let environment = Environment::default();
        live(Path::new("agent.yaml"), text, &environment).unwrap()
    }

    const BEFORE: &str = "name: lab
listen: { health: \"127.0.0.1:1\", metrics: \"127.0.0.1:2\" }
identity: { join: { method: token, join-file: gone } }
accounts: [{ name: a, credential: { kubeconfig-file: /a } }]
";

    #[test]
    fn a_file_is_read_again_without_its_join_string() {
        let live = read(BEFORE);
        assert_eq!(live.wanted.accounts.len(), 1);
    }

    #[test]
    fn what_needs_a_restart_is_told_by_key_and_layout_does_not_count() {
        let before = read(BEFORE);
        let laid_out = BEFORE.replace(
            "listen: { health: \"127.0.0.1:1\", metrics: \"127.0.0.1:2\" }",
            "listen:\n  metrics: 127.0.0.1:2\n  health: 127.0.0.1:1",
        );
        assert_eq!(read(&laid_out).needs_restart(&before), [] as [String; 0]);
        let moved = BEFORE
            .replace("127.0.0.1:1", "127.0.0.1:3")
            .replace("name: lab", "name: bal");
        assert_eq!(read(&moved).needs_restart(&before), ["listen", "name"]);
        let state = format!("{BEFORE}state-dir: s\n");
        assert_eq!(read(&state).needs_restart(&before), ["state-dir"]);
        let account = BEFORE.replace("name: a", "name: b");
        assert_eq!(read(&account).needs_restart(&before), [] as [String; 0]);
    }
}
