//! The operator guide says what the program says: each first-hour error with the sentence that is
//! shown for it, each state and each reason with what to do.
#![expect(
    clippy::expect_used,
    reason = "a source that cannot be read fails the test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// Reasons that stand in no enum: they are the hub's, a worker's, or of a task that died.
const OTHER_REASONS: [&str; 7] = [
    "AccountTaken",
    "AgentAway",
    "ClusterChanged",
    "CredentialRejected",
    "Internal",
    "Revoked",
    "TooManyStreams",
];

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).expect("a file of this repository")
}

/// The part of the guide below this heading.
fn section(heading: &str) -> String {
    let guide = read("docs/operator-guide.md");
    let (_, below) = guide.split_once(heading).expect("a heading of the guide");
    let end = below.find("\n## ").unwrap_or(below.len());
    below.get(..end).expect("whole lines").to_owned()
}

/// The rows of the tables in `text`, cell by cell; heads aside.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let inner = line.trim_matches('|').split('|');
        inner.map(|cell| cell.trim().to_owned()).collect()
    };
    let lines = text.lines().filter(|line| line.starts_with("| "));
    lines.map(cells).collect()
}

/// What stands between quotes in `text`, in order.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

/// The text between the first `from` and the next `until`.
fn between<'a>(text: &'a str, from: &str, until: &str) -> &'a str {
    let (_, after) = text.split_once(from).expect("it is there");
    after.split_once(until).expect("it ends").0
}

fn first_cells(text: &str) -> BTreeSet<String> {
    let first = |row: Vec<String>| row.first().map(|cell| cell.trim_matches('`').to_owned());
    rows(text).into_iter().filter_map(first).collect()
}

#[test]
fn every_first_hour_error_of_the_guide_is_what_is_shown() {
    let text = section("## 12. First-hour errors\n");
    let mut told = BTreeSet::new();
    for row in rows(&text)
        .iter()
        .filter(|row| row.first().is_some_and(|cell| cell != "mistake"))
    {
        let [mistake, sentence, way_out] = row.as_slice() else {
            panic!("a row of three cells: {row:?}");
        };
        let file = between(mistake, "](../", ")").to_owned();
        let sentence = sentence.trim_start_matches("`` ").trim_end_matches(" ``");
        assert!(!sentence.is_empty() && !way_out.is_empty(), "{row:?}");
        assert!(read(&file).contains(sentence), "{file} has no `{sentence}`");
        told.insert(file);
    }
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mistakes");
    let files = fs::read_dir(folder).expect("a folder of this repository");
    let shown: BTreeSet<String> = files
        .map(|file| {
            file.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .map(|name| format!("tests/golden/mistakes/{name}"))
        .collect();
    assert_eq!(told, shown, "each mistake that is played has its row");
}

#[test]
fn every_state_and_every_reason_has_a_row_with_what_to_do() {
    let text = section("## 8. States\n");
    let told = first_cells(&text);
    let mut wanted: BTreeSet<String> = OTHER_REASONS.map(ToOwned::to_owned).into();
    for file in ["src/credential/mod.rs", "src/cluster/error.rs"] {
        let source = read(file);
        let names = between(&source, "pub const fn as_str(self)", "\n    }\n");
        let names: Vec<&str> = quoted(names).collect();
        assert!(!names.is_empty(), "{file}");
        wanted.extend(names.into_iter().map(ToOwned::to_owned));
    }
    let source = read("src/cli/get.rs");
    for list in ["const ACCOUNT_STATES", "const AGENT_STATES"] {
        let states = between(&source, list, "];");
        wanted.extend(quoted(states).map(ToOwned::to_owned));
    }
    let proto = read("proto/sortie/v1/session.proto");
    let states = between(&proto, "enum AccountState {", "\n}");
    let states = states.lines().filter_map(|line| {
        let name = line.trim().strip_prefix("ACCOUNT_STATE_")?;
        Some(name.split_once(' ')?.0.to_owned())
    });
    wanted.extend(states.filter(|state| state != "UNSPECIFIED"));
    let missing: Vec<&String> = wanted.difference(&told).collect();
    assert!(missing.is_empty(), "no row in section 8: {missing:?}");
    let heads = BTreeSet::from(["reason".to_owned(), "state".to_owned()]);
    let unknown: Vec<&String> = told
        .difference(&wanted)
        .filter(|cell| !heads.contains(*cell))
        .collect();
    assert!(unknown.is_empty(), "rows of nothing: {unknown:?}");
    for row in rows(&text) {
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}
