//! What was shown for one mistake, without what differs between two runs.
#![expect(
    clippy::format_push_string,
    clippy::string_slice,
    reason = "a page is put together line by line; what is cut off it is ASCII"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::support::kubectl::Ran;

/// Hex digits in a row from which on they are an id, a serial or a digest.
const ID_DIGITS: usize = 12;

/// What a person sees of one mistake.
#[derive(Debug)]
pub(super) struct Page {
    name: &'static str,
    text: String,
    hidden: Vec<(String, String)>,
}

/// What kubectl says last, where it says of its last attempt only that it wrote too late: with the
/// reason that it read in the attempt before.
fn last_word(line: &str, before: Option<&String>) -> Option<String> {
    let head = "Unable to connect to the server: ";
    let (_, reason) = before?.rsplit_once("\\\": ")?;
    line.starts_with(head)
        .then(|| format!("{head}{}", reason.trim_end_matches('"')))
}

impl Page {
    /// For the golden file `THEME-NAME.txt`, without its theme.
    pub(super) const fn new(name: &'static str) -> Self {
        Self {
            name,
            text: String::new(),
            hidden: Vec::new(),
        }
    }

    /// Shows `word` in place of `text`, which differs from run to run.
    pub(super) fn hide(mut self, text: &str, word: &str) -> Self {
        self.hidden.push((text.to_string(), word.to_owned()));
        self
    }

    /// Shows paths below `folder` as relative ones.
    pub(super) fn within(self, folder: &Path) -> Self {
        self.hide(&format!("{}/", folder.display()), "")
    }

    /// A command that has ended.
    pub(super) fn ran(mut self, command: &str, ran: &Ran) -> Self {
        let code = ran.code.map_or("none".to_owned(), |code| code.to_string());
        let parts = [
            &format!("$ {command}\n"),
            &ran.stdout,
            &ran.stderr,
            &format!("[exit code {code}]\n"),
        ];
        self.text.extend(parts.map(String::as_str));
        self
    }

    /// A command that lists one row: its columns, two blanks apart, whatever their widths were.
    pub(super) fn table(mut self, command: &str, ran: &Ran) -> Self {
        self.text.push_str(&format!("$ {command}\n"));
        for line in ran.stdout.lines() {
            let cells: Vec<&str> = line.split("  ").filter(|cell| !cell.is_empty()).collect();
            let cells: Vec<&str> = cells.iter().map(|cell| cell.trim()).collect();
            self.text.push_str(&format!("{}\n", cells.join("  ")));
        }
        self
    }

    /// A run of kubectl, which repeats its own log lines and dates them.
    pub(super) fn kubectl(self, line: &str, mut ran: Ran) -> Self {
        let mut shown: Vec<String> = Vec::new();
        for line in ran.stderr.lines() {
            let line = match line.split_once("] ") {
                Some((head, said)) if head.contains(" memcache.go:") => said,
                _ => line,
            };
            let line = self.normal(line);
            // It wrote before it had read why the connection was closed; the reason follows.
            if line.contains("write: broken pipe") {
                shown.extend(last_word(&line, shown.last()));
                continue;
            }
            if shown.last() != Some(&line) {
                shown.push(line);
            }
        }
        shown.push(String::new());
        ran.stderr = shown.join("\n");
        self.ran(&format!("kubectl {line}"), &ran)
    }

    /// A server that has ended by itself: its last words, without what it logged before.
    pub(super) fn ended(self, command: &str, mut ran: Ran) -> Self {
        let lines = ran.stderr.split_inclusive('\n');
        let is_before = |line: &&str| line.contains(" INFO ") || line.contains(" WARN ");
        ran.stderr = lines.filter(|line| !is_before(line)).collect();
        self.ran(command, &ran)
    }

    /// A server that goes on: its warnings and errors until the one with `telling`.
    pub(super) fn runs(mut self, command: &str, log: &str, telling: &str) -> Self {
        self.text.push_str(&format!("$ {command}\n"));
        let mut before = String::new();
        let is_shown = |line: &&str| is_warning(line) || line.contains(telling);
        for line in log.lines().filter(is_shown) {
            let shown = self.normal(line);
            if shown != before {
                self.text.push_str(&format!("{line}\n"));
                before = shown;
            }
            if line.contains(telling) {
                break;
            }
        }
        self.text.push_str("[goes on running]\n");
        self
    }

    fn normal(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (text_of_this_run, word) in &self.hidden {
            text = text.replace(text_of_this_run, word);
        }
        let mut out = String::new();
        for line in text.split_inclusive('\n') {
            out.push_str(&normal_line(line));
        }
        out
    }
}

/// Whether a line of a log is a warning or an error.
fn is_warning(line: &str) -> bool {
    line.split_whitespace()
        .nth(1)
        .is_some_and(|level| matches!(level, "WARN" | "ERROR"))
}

/// A line without times, pauses, ports and ids.
fn normal_line(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let (taken, shown) = token(rest, out.chars().next_back());
        if taken > 0 {
            out.push_str(shown);
        } else {
            out.push(first);
        }
        rest = &rest[taken.max(first.len_utf8())..];
    }
    out
}

/// How many bytes at the start of `text` differ from run to run, and what is shown for them.
fn token(text: &str, before: Option<char>) -> (usize, &'static str) {
    if before.is_some_and(char::is_alphanumeric) {
        return (0, "");
    }
    let run = |accepts: fn(char) -> bool| text.find(|c| !accepts(c)).unwrap_or(text.len());
    let stamp = run(|c| c.is_ascii_digit() || "-:.TZ".contains(c));
    if text[..stamp].contains('T') && text[..stamp].ends_with('Z') {
        return (stamp, "TIME");
    }
    let id = run(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase() || c == '-');
    let digits = text[..id].chars().filter(char::is_ascii_hexdigit).count();
    if digits >= ID_DIGITS {
        return (id, "ID");
    }
    if before == Some(':') {
        let port = run(|c| c.is_ascii_digit());
        if port == 5 {
            return (port, "PORT");
        }
    }
    if before == Some('=') {
        let pause = run(|c| c.is_ascii_digit() || "._mµsn".contains(c));
        let is_pause =
            text.starts_with(|c: char| c.is_ascii_digit()) && text[..pause].ends_with('s');
        if is_pause {
            return (pause, "PAUSE");
        }
    }
    (0, "")
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/mistakes"
    ))
}

/// Fails unless the pages are exactly the golden files of `theme`.
pub(super) fn compare(theme: &str, pages: &[Page]) {
    let write = env::var_os("SORTIE_GOLDEN").is_some_and(|what| what == "write");
    let mut drifted = String::new();
    let mut names = BTreeSet::new();
    for page in pages {
        let file = folder().join(format!("{theme}-{}.txt", page.name));
        let shown = page.normal(&page.text);
        if write {
            fs::write(&file, &shown).unwrap();
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        if golden != shown {
            drifted.push_str(&format!(
                "== {theme}-{}\n{golden}-- is now\n{shown}",
                page.name
            ));
        }
        assert!(names.insert(file), "{theme}-{} is there twice", page.name);
    }
    assert!(drifted.is_empty(), "{drifted}");
    let prefix = format!("{theme}-");
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let stale = name.starts_with(&prefix) && !names.contains(&path);
        assert!(!stale, "no mistake is played for {name}");
    }
}

#[test]
fn what_differs_between_two_runs_is_not_shown() {
    let page = Page::new("x").within(Path::new("/tmp/a"));
    for (line, shown) in [
        (
            "2026-11-22T15:56:55.123456Z  WARN x: m retry_in=183.2ms hub=\"127.0.0.1:40123\"",
            "TIME  WARN x: m retry_in=PAUSE hub=\"127.0.0.1:PORT\"",
        ),
        ("read `/tmp/a/hub.yaml:12`", "read `hub.yaml:12`"),
        ("serial 0a1b2c3d4e5f6a7b, 9091", "serial ID, 9091"),
        ("uid 8c5f8f0e-7b1e-4b1d-a111-0123456789ab", "uid ID"),
        ("within 5s, status 503", "within 5s, status 503"),
    ] {
        assert_eq!(page.normal(line), shown);
    }
}
