//! A strict YAML document with positions: one document, no aliases, tags or duplicate keys.
//!
//! ```text
//! text ──parse──▶ Node{line, value} ──get("key")──▶ Node ──as_str / as_bool / as_u64──▶ value
//! ```
//! JSON is read as well: it is YAML's flow style.
//!
//! # Invariants
//! - Neither an error nor a `Debug` of a [`Node`] shows a value of the document (enforced by:
//!   [`YamlError`] holds only numbers and a fixed sentence; test
//!   `neither_an_error_nor_a_debug_shows_a_value`).
//! - What is read is bounded: [`limits::YAML_BYTES`](crate::limits::YAML_BYTES) [`NODES`]
//!   values and [`DEPTH`] levels.
//! - Values are wiped when their node is dropped. Copies that the scanner made on the way are
//!   wiped by the allocator of the binary ([`crate::secret`]).
//! # Sources
//! - YAML 1.2.2; §6.8 directives, §6.9 anchors and tags, §3.2.1.3 equality of keys.

mod parse;

use std::fmt;

use thiserror::Error;
use zeroize::Zeroize;

pub use parse::{DEPTH, NODES, parse};

/// A value and the line it starts on.
#[derive(Debug)]
pub struct Node {
    /// From 1.
    pub line: usize,
    /// What is there.
    pub value: Value,
}

/// What a node holds.
#[derive(Debug)]
pub enum Value {
    /// Nothing, `~` or `null`, not quoted.
    Null,
    /// Everything else that is neither a list nor a map.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the document, no key twice.
    Map(Vec<Entry>),
}

/// Text of a value: wiped when dropped, never printed.
pub struct Scalar {
    /// The text, unescaped.
    pub text: String,
    /// Whether it was written in quotes or as a block.
    pub quoted: bool,
}

/// A key of a map and its value.
#[derive(Debug)]
pub struct Entry {
    /// The key; keys are not secret.
    pub key: String,
    /// The line of the key, from 1.
    pub line: usize,
    /// The value.
    pub node: Node,
}

/// A document that is not read, and where it stops making sense.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("line {line}, column {column}: {problem}")]
pub struct YamlError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong there.
    pub problem: YamlProblem,
}

/// Why a document is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum YamlProblem {
    /// Anchors (`&a`) and aliases (`*a`) can make a small document huge.
    AnchorOrAlias,
    /// A list or a map as a key.
    ComplexKey,
    /// `%YAML` or `%TAG`.
    Directive,
    /// A key that the same map already has.
    DuplicateKey,
    /// `<<`.
    MergeKey,
    /// A second document.
    SecondDocument,
    /// Not YAML.
    Syntax,
    /// A tab where only spaces can indent.
    Tab,
    /// A type forced with `!`.
    Tag,
    /// More than [`DEPTH`] levels.
    TooDeep,
    /// More than [`limits::YAML_BYTES`](crate::limits::YAML_BYTES).
    TooLarge,
    /// More than [`NODES`] values.
    TooMany,
    /// Not YAML, behind a `{` or `[` whose end was not seen.
    Unclosed {
        /// Where that begins, from 1.
        line: usize,
    },
}

impl fmt::Display for YamlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unclosed { line } => {
                return write!(
                    f,
                    "this is not valid YAML; is the `{{` or `[` of line {line} closed?"
                );
            }
            Self::AnchorOrAlias => "anchors and aliases are not accepted",
            Self::ComplexKey => "a key has to be text",
            Self::Directive => "directives are not accepted",
            Self::DuplicateKey => "this key is already there",
            Self::MergeKey => "merge keys are not accepted",
            Self::SecondDocument => "there may be only one document",
            Self::Syntax => "this is not valid YAML; look at the indentation and the quotes",
            Self::Tab => "tabs do not indent in YAML; use spaces",
            Self::Tag => "tags are not accepted",
            Self::TooDeep => "nested too deeply",
            Self::TooLarge => "the document is too large",
            Self::TooMany => "the document holds too many values",
        })
    }
}

impl Node {
    /// The value of `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.node)
    }

    /// Whether nothing was written.
    pub const fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The text of a scalar, quoted or not.
    pub fn as_str(&self) -> Option<&str> {
        self.scalar().map(|scalar| scalar.text.as_str())
    }

    /// The items of a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        match &self.value {
            Value::List(items) => Some(items),
            Value::Null | Value::Scalar(_) | Value::Map(_) => None,
        }
    }

    /// The entries of a map.
    pub fn as_map(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Null | Value::Scalar(_) | Value::List(_) => None,
        }
    }

    /// `true` or `false`, written exactly so and without quotes.
    pub fn as_bool(&self) -> Option<bool> {
        match self.plain()? {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// Decimal digits without sign and quotes.
    pub fn as_u64(&self) -> Option<u64> {
        let text = self.plain()?;
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok();
        }
        None
    }

    const fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    fn plain(&self) -> Option<&str> {
        self.scalar()
            .filter(|scalar| !scalar.quoted)
            .map(|scalar| scalar.text.as_str())
    }
}

impl Drop for Scalar {
    fn drop(&mut self) {
        self.text.zeroize();
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scalar")
            .field("quoted", &self.quoted)
            .finish_non_exhaustive()
    }
}
