//! What each reference of `tests/golden/references/corpus.txt` is taken for.
//!
//! `SORTIE_GOLDEN=write cargo test --test cli` writes the answers anew, below the references that
//! stand there.
#![expect(
    clippy::expect_used,
    reason = "a corpus that cannot be read fails the test"
)]

use std::fmt::Write as _;
use std::{env, fs};

use sortie::credential::Reference;

/// Fewest references of the corpus.
const LEAST: usize = 150;

/// A reference as the corpus writes it: `\u{…}` is a character, `\r{N,x}` N times x.
fn unescaped(written: &str) -> String {
    let mut text = String::new();
    let mut rest = written;
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        if let Some(after) = escape.strip_prefix('\\') {
            text.push('\\');
            rest = after;
            continue;
        }
        let (inner, after) = escape.split_once('}').expect("an escape ends with a brace");
        if let Some(code) = inner.strip_prefix("u{") {
            let code = u32::from_str_radix(code, 16).expect("hexadecimal");
            text.push(char::from_u32(code).expect("a character"));
        } else {
            let repeated = inner.strip_prefix("r{").expect("an escape is u, r or \\");
            let (times, what) = repeated.split_once(',').expect("times, what");
            text.push_str(&what.repeat(times.parse().expect("a number")));
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// Long answers are cut: their ends say nothing new.
fn cut(answer: &str) -> String {
    const CHARACTERS: usize = 200;
    match answer.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}…", answer.get(..end).expect("a boundary")),
        None => answer.to_owned(),
    }
}

#[test]
fn every_reference_of_the_corpus_is_what_was_agreed() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/references/corpus.txt"
    );
    let known = fs::read_to_string(file).expect("readable");
    let (mut answered, mut references) = (String::new(), 0);
    for line in known.lines().filter(|line| !line.starts_with("  ")) {
        answered.push_str(line);
        answered.push('\n');
        let Some(written) = line.strip_prefix("> ") else {
            continue;
        };
        references += 1;
        let answer = match Reference::parse(&unescaped(written)) {
            Ok(reference) => {
                let canonical = reference.canonical();
                assert_eq!(Reference::parse(&canonical), Ok(reference), "{written}");
                format!("= {canonical}")
            }
            Err(error) => format!("! {error}"),
        };
        writeln!(answered, "  {}", cut(&answer)).expect("text takes everything");
    }
    assert!(references >= LEAST, "{references} references");
    if env::var_os("SORTIE_GOLDEN").is_some_and(|what| what == "write") {
        fs::write(file, &answered).expect("written");
        return;
    }
    assert!(known == answered, "{file} is not what the program says");
}
