//! From the scanner's events to nodes. Nothing here recurses.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::{Entry, Node, Scalar, Value, YamlError, YamlProblem};
use crate::limits;

/// Deepest nesting of lists and maps that is read, in levels.
///
/// A kubeconfig has 5, a configuration of ours 6.
pub const DEPTH: usize = 64;

/// Most values that one document may hold, keys not counted.
///
/// A kubeconfig of 1,000 clusters has about 18,000, a configuration of 256 accounts about 15,000.
pub const NODES: usize = 24 * 1024;

/// Reads the one document of `text`; an empty text is [`Value::Null`].
///
/// # Errors
/// Where the document stops being what is accepted here, and why; never with a piece of it.
pub fn parse(text: &str) -> Result<Node, YamlError> {
    if text.len() > limits::YAML_BYTES {
        return Err(at(1, 1, YamlProblem::TooLarge));
    }
    refuse_directives(text)?;
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    let mut documents = 0_usize;
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| {
            let mark = *error.marker();
            here(mark, not_yaml(text, mark, &builder))
        })?;
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                return Err(here(span.start, YamlProblem::SecondDocument));
            }
        }
        builder
            .take(event, span.start.line())
            .map_err(|problem| here(span.start, problem))?;
    }
    Ok(builder.root.unwrap_or(Node {
        line: 1,
        value: Value::Null,
    }))
}

/// What a person would look for where the parser gave up; its own words may quote the document.
fn not_yaml(text: &str, mark: Marker, builder: &Builder) -> YamlProblem {
    let line_of = |line: usize| text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let line = line_of(mark.line());
    let indent = line.len() - line.trim_start().len();
    if line
        .get(..indent)
        .is_some_and(|indent| indent.contains('\t'))
    {
        return YamlProblem::Tab;
    }
    match builder.open.last() {
        Some(Open::List { line, .. } | Open::Map { line, .. })
            if line_of(*line).contains(['{', '[']) =>
        {
            YamlProblem::Unclosed { line: *line }
        }
        Some(_) | None => YamlProblem::Syntax,
    }
}

/// The parser reads directives without an event. They can only stand before the document: after
/// it, they need a second one.
fn refuse_directives(text: &str) -> Result<(), YamlError> {
    let text = text.trim_start_matches('\u{feff}');
    for (before, line) in text.lines().enumerate() {
        let content = line.trim_start();
        if line.starts_with('%') {
            return Err(at(before + 1, 1, YamlProblem::Directive));
        }
        if !content.is_empty() && !content.starts_with('#') {
            break;
        }
    }
    Ok(())
}

const fn at(line: usize, column: usize, problem: YamlProblem) -> YamlError {
    YamlError {
        line,
        column,
        problem,
    }
}

fn here(mark: Marker, problem: YamlProblem) -> YamlError {
    at(mark.line(), mark.col() + 1, problem)
}

/// A list or a map whose end has not been seen.
enum Open {
    List {
        line: usize,
        items: Vec<Node>,
    },
    Map {
        line: usize,
        entries: Vec<Entry>,
        /// Hashes of the keys so far: the keys themselves would take their room twice.
        keys: HashSet<u64>,
        /// A key, with its line, whose value comes next.
        pending: Option<(String, usize)>,
    },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    /// Values so far.
    nodes: usize,
    hashes: RandomState,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), YamlProblem> {
        match event {
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
            Event::Alias(_) => Err(YamlProblem::AnchorOrAlias),
            Event::Scalar(text, style, anchor, tag) => {
                refuse_marks(anchor, tag.is_some())?;
                let quoted = style != ScalarStyle::Plain;
                let scalar = Scalar {
                    text: text.into_owned(),
                    quoted,
                };
                self.scalar(scalar, line)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_marks(anchor, tag.is_some())?;
                let items = Vec::new();
                self.open(Open::List { line, items })
            }
            Event::MappingStart(anchor, tag) => {
                refuse_marks(anchor, tag.is_some())?;
                self.open(Open::Map {
                    line,
                    entries: Vec::new(),
                    keys: HashSet::new(),
                    pending: None,
                })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn scalar(&mut self, mut scalar: Scalar, line: usize) -> Result<(), YamlProblem> {
        if let Some(Open::Map {
            entries,
            keys,
            pending,
            ..
        }) = self.open.last_mut()
            && pending.is_none()
        {
            if !scalar.quoted && scalar.text == "<<" {
                return Err(YamlProblem::MergeKey);
            }
            let key = std::mem::take(&mut scalar.text);
            let is_new_hash = keys.insert(self.hashes.hash_one(&key));
            if !is_new_hash && entries.iter().any(|entry| entry.key == key) {
                return Err(YamlProblem::DuplicateKey);
            }
            *pending = Some((key, line));
            return Ok(());
        }
        let is_null = !scalar.quoted && matches!(scalar.text.as_str(), "" | "~" | "null");
        let value = if is_null {
            Value::Null
        } else {
            Value::Scalar(scalar)
        };
        self.add(Node { line, value })
    }

    fn open(&mut self, new: Open) -> Result<(), YamlProblem> {
        if let Some(Open::Map { pending: None, .. }) = self.open.last() {
            return Err(YamlProblem::ComplexKey);
        }
        if self.open.len() >= DEPTH {
            return Err(YamlProblem::TooDeep);
        }
        self.open.push(new);
        Ok(())
    }

    fn close(&mut self) -> Result<(), YamlProblem> {
        let node = match self.open.pop().ok_or(YamlProblem::Syntax)? {
            Open::List { line, mut items } => {
                items.shrink_to_fit();
                let value = Value::List(items);
                Node { line, value }
            }
            Open::Map {
                line, mut entries, ..
            } => {
                entries.shrink_to_fit();
                let value = Value::Map(entries);
                Node { line, value }
            }
        };
        self.add(node)
    }

    fn add(&mut self, node: Node) -> Result<(), YamlProblem> {
        self.nodes += 1;
        if self.nodes > NODES {
            return Err(YamlProblem::TooMany);
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map {
                entries, pending, ..
            }) => {
                let (key, line) = pending.take().ok_or(YamlProblem::ComplexKey)?;
                entries.push(Entry { key, line, node });
            }
        }
        Ok(())
    }
}

const fn refuse_marks(anchor: usize, has_tag: bool) -> Result<(), YamlProblem> {
    if anchor != 0 {
        return Err(YamlProblem::AnchorOrAlias);
    }
    if has_tag {
        return Err(YamlProblem::Tag);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(text: &str) -> (usize, usize, YamlProblem) {
        let error = parse(text).unwrap_err();
        (error.line, error.column, error.problem)
    }

    #[test]
    fn a_document_is_read_with_its_lines() {
        let text = "# a comment\nname: lab\nlisten: { health: \"0.0.0.0:8082\", port: 8082 }\nnames:\n  - a\n  - 'b c'\non: true\nnone:\ntext: |\n  two\n  lines\n";
        let node = parse(text).unwrap();
        assert_eq!(node.get("name").unwrap().as_str(), Some("lab"));
        let listen = node.get("listen").unwrap();
        assert_eq!(listen.get("health").unwrap().as_str(), Some("0.0.0.0:8082"));
        assert_eq!(listen.get("port").unwrap().as_u64(), Some(8082));
        let names = node.get("names").unwrap().as_list().unwrap();
        assert_eq!((names[1].as_str(), names[1].line), (Some("b c"), 6));
        assert_eq!(node.get("on").unwrap().as_bool(), Some(true));
        assert!(node.get("none").unwrap().is_null());
        assert_eq!(node.get("text").unwrap().as_str(), Some("two\nlines\n"));
        let lines: Vec<usize> = node.as_map().unwrap().iter().map(|e| e.line).collect();
        assert_eq!(lines, [2, 3, 4, 7, 8, 9]);
    }

    #[test]
    fn json_is_read_too() {
        let node = parse(r#"{"a":[1,{"b":"c\n\u00e9\/"},null],"d":true,"e":"null"}"#).unwrap();
        let list = node.get("a").unwrap().as_list().unwrap();
        assert_eq!(list[0].as_u64(), Some(1));
        assert_eq!(list[1].get("b").unwrap().as_str(), Some("c\n\u{e9}/"));
        assert!(list[2].is_null());
        assert_eq!(node.get("d").unwrap().as_bool(), Some(true));
        assert_eq!(node.get("e").unwrap().as_str(), Some("null"));
    }

    #[test]
    fn only_plain_words_are_booleans_and_only_plain_digits_are_numbers() {
        for text in ["\"true\"", "True", "yes", "on", "1", "~", ""] {
            assert_eq!(parse(text).unwrap().as_bool(), None, "{text}");
        }
        for text in [
            "'7'",
            "+7",
            "-7",
            "0x7",
            "7.0",
            "7_0",
            "1e3",
            "18446744073709551616",
        ] {
            assert_eq!(parse(text).unwrap().as_u64(), None, "{text}");
        }
        for text in ["", "~", "null", "---", "# nothing"] {
            assert!(parse(text).unwrap().is_null(), "{text}");
        }
        assert_eq!(parse("Null").unwrap().as_str(), Some("Null"));
    }

    #[test]
    fn what_can_surprise_is_refused_with_its_place() {
        use YamlProblem as P;
        for (text, expected) in [
            ("a: &x 1\nb: *x\n", (1, 4, P::AnchorOrAlias)),
            ("a: !!str 1\n", (1, 4, P::Tag)),
            ("a: 1\nb: 2\na: 3\n", (3, 1, P::DuplicateKey)),
            ("{\"a\":1,\"a\":2}", (1, 8, P::DuplicateKey)),
            ("a:\n  <<: 1\n", (2, 3, P::MergeKey)),
            ("a: 1\n---\nb: 2\n", (2, 1, P::SecondDocument)),
            ("%YAML 1.2\n---\na: 1\n", (1, 1, P::Directive)),
            ("# first\n%TAG ! x\n---\na: 1\n", (2, 1, P::Directive)),
            ("? [a]\n: 1\n", (1, 3, P::ComplexKey)),
            ("{ {a: 1}: 2 }", (1, 3, P::ComplexKey)),
        ] {
            assert_eq!(problem(text), expected, "{text}");
        }
        for text in ["a: \"open", "a: b: c", "*unknown"] {
            assert_eq!(problem(text).2, P::Syntax, "{text}");
        }
        assert_eq!(problem("a:\n\tb: 1"), (2, 2, P::Tab));
        for text in ["a: 1\nb: [1\n", "a: 1\nb: { c: [], d: 1\ne: 2\n"] {
            assert_eq!(problem(text).2, P::Unclosed { line: 2 }, "{text}");
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(DEPTH)).is_ok());
        assert_eq!(problem(&nested(DEPTH + 1)).2, YamlProblem::TooDeep);
        assert_eq!(problem(&"- ".repeat(100_000)).2, YamlProblem::TooDeep);
        let many = |count: usize| format!("[{}]", "a,".repeat(count));
        assert!(parse(&many(NODES - 1)).is_ok());
        assert_eq!(problem(&many(NODES)).2, YamlProblem::TooMany);
        let large = "a".repeat(limits::YAML_BYTES + 1);
        assert_eq!(problem(&large).2, YamlProblem::TooLarge);
    }

    #[test]
    fn neither_an_error_nor_a_debug_shows_a_value() {
        let node = parse("user: { token: planted-value }").unwrap();
        assert!(!format!("{node:?}").contains("planted-value"));
        for text in [
            "token: planted-value\n bad: x",
            "token: \"planted-value",
            "planted-value: 1\nplanted-value: 2",
            "token: !planted-value x",
            "*planted-value",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("planted"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[ -~\n\t\u{e9}\u{feff}]{0,80}") {
            drop(parse(&text));
        }

        #[test]
        fn marks_of_the_language_in_any_order_are_read_or_refused(text in "([-?:,{}\\[\\]#&*!|>'\"%@ \n]|a|\\. ){0,40}") {
            drop(parse(&text));
        }

        #[test]
        fn any_json_string_comes_back(text in "[^\u{10000}-\u{10ffff}]{0,40}") {
            let written = serde_json::to_string(&serde_json::json!({ "key": text })).unwrap();
            if let Ok(node) = parse(&written) {
                prop_assert_eq!(node.get("key").unwrap().as_str(), Some(text.as_str()));
            }
        }
    }
}
