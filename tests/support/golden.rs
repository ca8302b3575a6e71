//! Texts that are kept in files, for people to read.

use std::path::Path;
use std::{env, fs};

/// Compares `text` with the file at `path`; `SORTIE_GOLDEN=write` writes it instead.
pub(crate) fn check(path: &Path, text: &str) {
    if env::var_os("SORTIE_GOLDEN").is_some_and(|what| what == "write") {
        fs::write(path, text).expect("the file is written");
        return;
    }
    let kept = fs::read_to_string(path).expect("the file is readable");
    let differs = kept.lines().zip(text.lines()).find(|(old, new)| old != new);
    assert!(
        kept == text,
        "{} differs, first in {differs:?}; read `SORTIE_GOLDEN=write` in its test",
        path.display()
    );
}
