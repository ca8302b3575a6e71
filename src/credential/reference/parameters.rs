//! `name:value!name:value`, `name=value&name=value`: parameters, in any order, each once.

use super::ReferenceError;
use super::error::{Problem, Quoted, expected};

/// A piece of a reference that has been decoded, and the byte at which it starts.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) at: usize,
}

/// How parameters are written.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// What stands between two of them.
    pub(super) between: char,
    /// What stands between name and value; the first one counts.
    pub(super) equals: char,
    /// The same, for people.
    pub(super) shape: &'static str,
    /// How a value, which starts at that byte, is read.
    pub(super) decode: fn(&str, usize) -> Result<String, ReferenceError>,
}

/// Parameters that nobody has asked for yet.
pub(super) struct Parameters<'a> {
    left: Vec<(&'a str, usize, Piece)>,
    /// Where they end.
    end: usize,
}

impl<'a> Parameters<'a> {
    /// None, at this byte.
    pub(super) const fn none(at: usize) -> Self {
        Self {
            left: Vec::new(),
            end: at,
        }
    }

    /// Those in `text`, which starts at byte `at`.
    pub(super) fn split(text: &'a str, at: usize, style: Style) -> Result<Self, ReferenceError> {
        let mut parameters = Self::none(at + text.len());
        let mut start = at;
        for pair in text.split(style.between) {
            let (name, value) = pair
                .split_once(style.equals)
                .ok_or_else(|| expected(start, style.shape))?;
            if parameters.left.iter().any(|(known, ..)| *known == name) {
                return Err(Problem::Repeated(Quoted::new(name)).at(start));
            }
            let value_at = start + name.len() + style.equals.len_utf8();
            if value.is_empty() {
                return Err(expected(value_at, "a value"));
            }
            let text = (style.decode)(value, value_at)?;
            let piece = Piece { text, at: value_at };
            parameters.left.push((name, start, piece));
            start += pair.len() + style.between.len_utf8();
        }
        Ok(parameters)
    }

    /// Takes this one out.
    pub(super) fn take(&mut self, name: &str) -> Option<Piece> {
        let index = self.left.iter().position(|(known, ..)| *known == name)?;
        Some(self.left.swap_remove(index).2)
    }

    /// Takes this one out; `what` says what it is.
    pub(super) fn need(
        &mut self,
        name: &'static str,
        what: &'static str,
    ) -> Result<Piece, ReferenceError> {
        let missing = Problem::Missing(name, what).at(self.end);
        self.take(name).ok_or(missing)
    }

    /// Refuses what nobody asked for; `known` are the names that this engine has.
    pub(super) fn finish(self, known: &'static str) -> Result<(), ReferenceError> {
        let first = self.left.into_iter().min_by_key(|(_, at, _)| *at);
        first.map_or(Ok(()), |(name, at, _)| {
            Err(Problem::UnknownParameter(Quoted::new(name), known).at(at))
        })
    }
}
