//! Which room may use which, and the rules that the compiler cannot hold.
//!
//! A room may use every room of a lower level; within a level only what its row names. Tests
//! inside a room follow the same arrows.
#![expect(
    clippy::expect_used,
    reason = "a source that cannot be read fails the test"
)]

#[path = "architecture/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use source::{Use, uses};

/// A room: its level, and what it may use of its own level.
struct Room {
    level: u8,
    name: &'static str,
    uses: &'static [&'static str],
    never: &'static [&'static str],
}

const fn room(level: u8, name: &'static str) -> Room {
    Room {
        level,
        name,
        uses: &[],
        never: &[],
    }
}

impl Room {
    /// Arrows within the level.
    const fn uses(self, uses: &'static [&'static str]) -> Self {
        Self { uses, ..self }
    }

    /// Lower rooms that it leaves alone.
    const fn never(self, never: &'static [&'static str]) -> Self {
        Self { never, ..self }
    }

    fn may_use(&self, other: &Self) -> bool {
        self.name == other.name
            || self.uses.contains(&other.name)
            || (other.level < self.level && !self.never.contains(&other.name))
    }
}

/// The house. A change here is a change of the design: it needs a record in `docs/decisions/`.
const HOUSE: &[Room] = &[
    room(5, "main"),
    room(4, "cli").uses(&["config", "demo"]),
    room(4, "config"),
    room(4, "demo").never(&["scrub", "stream", "view", "identity"]),
    room(3, "agent"),
    room(3, "hub"),
    room(2, "stream"),
    room(2, "ops"),
    room(2, "facade"),
    room(2, "registrar"),
    room(1, "credential"),
    room(1, "cluster").uses(&["credential"]),
    room(1, "identity"),
    room(1, "scrub").uses(&["policy"]),
    room(1, "policy"),
    room(1, "view"),
    room(0, "wire"),
    room(0, "telemetry").uses(&["clock", "fault", "limits", "tasks"]),
    room(0, "resource").uses(&["limits"]),
    room(0, "yaml").uses(&["limits", "secret"]),
    room(0, "secret").uses(&["limits"]),
    room(0, "retry").uses(&["entropy"]),
    room(0, "clock"),
    room(0, "entropy"),
    room(0, "fault"),
    room(0, "limits"),
    room(0, "tasks"),
];

/// Longest file, in lines; one that is longer usually holds two ideas.
const LONGEST_FILE: usize = 600;

/// A file under `src/`, without what is not code.
struct File {
    path: PathBuf,
    room: String,
    /// How many modules lie between the crate and what the file itself declares.
    depth: usize,
    lines: usize,
    uses: Vec<Use>,
}

impl File {
    fn new(path: &Path, text: &str) -> Self {
        let mut modules: Vec<String> = path
            .with_extension("")
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        if modules.last().is_some_and(|last| last == "mod") {
            modules.pop();
        }
        let root = modules == ["lib"] || modules == ["main"];
        let depth = if root { 0 } else { modules.len() };
        Self {
            path: path.to_owned(),
            room: modules.first().cloned().unwrap_or_default(),
            depth,
            lines: text.lines().count(),
            uses: uses(text),
        }
    }

    /// The names directly under the crate that the file uses, with the line.
    fn rooms_used(&self) -> impl Iterator<Item = (&str, usize)> {
        self.uses.iter().filter_map(|found| {
            let path = found.path.as_slice();
            let first = path.first()?.as_str();
            let supers = path.iter().take_while(|part| *part == "super").count();
            let room = match first {
                "crate" => path.get(1)?,
                "sortie" if self.room == "main" => path.get(1)?,
                "super" if supers == self.depth + found.inline_modules => path.get(supers)?,
                _ => return None,
            };
            Some((room.as_str(), found.line))
        })
    }

    fn at(&self, line: usize, what: &str) -> String {
        format!("src/{}:{line}: {what}", self.path.display())
    }
}

/// Arrows of `file` that the house does not have.
fn wrong_arrows(file: &File) -> Vec<String> {
    let Some(from) = HOUSE.iter().find(|room| room.name == file.room) else {
        return Vec::new(); // `lib`, which only declares the rooms
    };
    let mut found: Vec<String> = file
        .rooms_used()
        .filter(|(name, _line)| {
            *name == "*"
                || HOUSE
                    .iter()
                    .any(|room| room.name == *name && !from.may_use(room))
        })
        .map(|(name, line)| file.at(line, &format!("`{}` may not use `{name}`", from.name)))
        .collect();
    found.dedup();
    found
}

/// Uses of `std::env` outside `config`.
fn environment_readers(file: &File) -> Vec<String> {
    offenders(file, &["config"], |path| path.starts_with("std::env"))
}

/// Printing outside `cli` and `main`.
fn printers(file: &File) -> Vec<String> {
    const MACROS: [&str; 4] = ["print!", "println!", "eprint!", "eprintln!"];
    offenders(file, &["cli", "main"], |path| {
        let last = path.rsplit("::").next();
        last.is_some_and(|last| MACROS.contains(&last))
    })
}

/// Generated code outside `wire`.
fn includers(file: &File) -> Vec<String> {
    offenders(file, &["wire"], |path| {
        path.ends_with("include_proto!") || path == "include!"
    })
}

fn offenders(file: &File, allowed: &[&str], offends: impl Fn(&str) -> bool) -> Vec<String> {
    if allowed.contains(&file.room.as_str()) {
        return Vec::new();
    }
    file.uses
        .iter()
        .map(|found| (found.path.join("::"), found.line))
        .filter(|(path, _line)| offends(path))
        .map(|(path, line)| file.at(line, &format!("`{path}` in room `{}`", file.room)))
        .collect()
}

/// Files over the limit.
fn too_long(file: &File) -> Vec<String> {
    if file.lines <= LONGEST_FILE {
        return Vec::new();
    }
    vec![file.at(file.lines, &format!("longer than {LONGEST_FILE} lines"))]
}

/// Every file under `src/`.
fn house() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder under src/") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let relative = path.strip_prefix(&root).expect("it lies under src/");
                files.push(File::new(relative, &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!files.is_empty(), "src/ has files");
    files
}

fn assert_none(rule: impl Fn(&File) -> Vec<String>) {
    let found: Vec<String> = house().iter().flat_map(rule).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn arrows_point_down() {
    assert_none(wrong_arrows);
}

#[test]
fn only_config_reads_the_environment() {
    assert_none(environment_readers);
}

#[test]
fn only_cli_and_main_print() {
    assert_none(printers);
}

#[test]
fn only_wire_includes_generated_code() {
    assert_none(includers);
}

#[test]
fn no_file_is_longer_than_two_ideas() {
    assert_none(too_long);
}

#[test]
fn every_room_is_in_the_table() {
    let unknown = |file: &File| {
        let known = file.room == "lib" || HOUSE.iter().any(|room| room.name == file.room);
        let problem = || vec![file.at(1, "this room is not in the table")];
        if known { Vec::new() } else { problem() }
    };
    assert_none(unknown);
}

#[test]
fn every_name_in_the_table_is_a_room() {
    for room in HOUSE {
        for name in room.uses.iter().chain(room.never) {
            assert!(HOUSE.iter().any(|other| other.name == *name), "`{name}`");
        }
    }
}

/// The rules themselves, on small houses.
mod the_rules {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File::new(Path::new(path), text)
    }

    #[test]
    fn an_arrow_up_is_found_in_every_spelling() {
        for text in [
            "use crate::hub::Hub;",
            "use crate::{clock, hub::{Hub, Other}};",
            "use crate::{\n    clock,\n    hub,\n};",
            "fn f() -> crate::hub::Hub { todo() }",
            "use super::super::hub::Hub;",
            "use super::{super::hub::Hub, other};",
            "mod inner { use super::super::super::hub; }",
            "pub use crate::hub as other;",
            "use crate::*;",
        ] {
            let found = wrong_arrows(&file("view/store.rs", text));
            assert_eq!(found.len(), 1, "{text}: {found:?}");
        }
    }

    #[test]
    fn what_is_no_arrow_is_let_pass() {
        for text in [
            "// use crate::hub::Hub;",
            "/// See [`crate::hub`].",
            "/* use crate::hub; /* nested */ use crate::cli; */",
            "const S: &str = \"crate::hub\";",
            "const S: &str = r#\"a \" crate::hub\"#;",
            "const C: char = '\"'; // crate::hub \"",
            "use crate::{clock::Clock, limits};",
            "use crate::view::other;",
            "use super::hub::Local;",
            "mod tests { use super::hub; }",
            "pub(crate) fn f<'a>(x: &'a str) {}",
        ] {
            let found = wrong_arrows(&file("view/store.rs", text));
            assert!(found.is_empty(), "{text}: {found:?}");
        }
    }

    #[test]
    fn arrows_within_a_level_are_only_those_of_the_table() {
        let from = |path| wrong_arrows(&file(path, "use crate::credential::Settings;"));
        assert!(from("cluster/mod.rs").is_empty());
        assert_eq!(from("identity/mod.rs").len(), 1);
        assert_eq!(
            from("identity/mod.rs"),
            ["src/identity/mod.rs:1: `identity` may not use `credential`"]
        );
    }

    #[test]
    fn the_demo_leaves_alone_what_it_shows() {
        let found = wrong_arrows(&file("demo/mod.rs", "use crate::{agent, scrub, view};"));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn main_may_name_the_library() {
        assert!(wrong_arrows(&file("main.rs", "use sortie::cli;")).is_empty());
    }

    #[test]
    fn the_environment_is_found_in_every_spelling() {
        for text in [
            "let x = std::env::var(\"X\");",
            "use std::env;",
            "use std::{collections::HashMap, env::{self, var}};",
        ] {
            assert!(
                !environment_readers(&file("hub/mod.rs", text)).is_empty(),
                "{text}"
            );
            assert!(environment_readers(&file("config/source.rs", text)).is_empty());
        }
        let compiled = "const V: &str = env!(\"CARGO_PKG_VERSION\"); // std::env";
        assert!(environment_readers(&file("hub/mod.rs", compiled)).is_empty());
    }

    #[test]
    fn a_print_is_found_unless_it_is_text() {
        for text in ["println!(\"x\");", "std::eprint!(\"x\");"] {
            assert_eq!(printers(&file("hub/mod.rs", text)).len(), 1, "{text}");
            assert!(printers(&file("cli/print.rs", text)).is_empty());
        }
        assert!(printers(&file("hub/mod.rs", "let s = \"println!\"; // println!")).is_empty());
    }

    #[test]
    fn generated_code_is_found_outside_its_room() {
        let text = "tonic::include_proto!(\"sortie.v1\");";
        assert_eq!(includers(&file("hub/mod.rs", text)).len(), 1);
        assert!(includers(&file("wire/mod.rs", text)).is_empty());
        let bytes = "const B: &[u8] = include_bytes!(\"x\");";
        assert!(includers(&file("hub/mod.rs", bytes)).is_empty());
    }

    #[test]
    fn one_line_too_many_is_too_long() {
        let fits = "\n".repeat(LONGEST_FILE);
        assert!(too_long(&file("hub/mod.rs", &fits)).is_empty());
        assert_eq!(too_long(&file("hub/mod.rs", &format!("{fits}\n"))).len(), 1);
    }
}
