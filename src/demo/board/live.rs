//! The board of a running demonstration, shared by who fills it and who draws it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Board, Line, Voice};

/// Lines that are kept.
pub(super) const LINES: usize = 64;

/// Characters of a line that are kept.
const LINE_CHARACTERS: usize = 1024;

/// A board that is being filled; a clone is the same one.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<Mutex<Board>>);

impl Live {
    fn lock(&self) -> MutexGuard<'_, Board> {
        // Figures are put in one by one: whatever is there can be shown.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it looks like now.
    pub fn board(&self) -> Board {
        self.lock().clone()
    }

    /// Puts figures in.
    pub fn change(&self, change: impl FnOnce(&mut Board)) {
        change(&mut self.lock());
    }

    /// Adds a line; the oldest makes room.
    pub fn say(&self, voice: Voice, text: &str) {
        let text = text.chars().take(LINE_CHARACTERS).collect();
        self.change(|board| push_bounded(&mut board.lines, Line { voice, text }, LINES));
    }

    /// Takes the lines that are kept.
    pub fn take_lines(&self) -> VecDeque<Line> {
        std::mem::take(&mut self.lock().lines)
    }
}

/// Adds an entry at the end; beyond `most`, the first ones go.
pub(in crate::demo) fn push_bounded<T>(list: &mut VecDeque<T>, entry: T, most: usize) {
    list.push_back(entry);
    while list.len() > most {
        list.pop_front();
    }
}
