//! Takes a list apart while its bytes arrive.

use std::ops::Range;

use super::Refused;
use super::copier::Copier;
use super::filter::each;
use super::frame::Framer;
use super::json::{Flaw, Reader};
use crate::limits;
use crate::resource::ResourceVersion;

/// Takes one list apart: feed it the filled bytes of a buffer, consume what each step says.
#[derive(Debug, Default)]
pub struct ListScanner {
    phase: Phase,
    /// Whether something stands before the next member or item, so that a comma is due.
    comma_due: bool,
    framer: Option<Framer>,
    seen_items: bool,
    end: Option<ListEnd>,
}

/// What the list itself says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListEnd {
    /// The version of the collection; `None` if the list does not tell.
    pub resource_version: Option<ResourceVersion>,
    /// Where the next page starts, if there is one.
    pub continue_token: Option<String>,
}

/// What was found at the start of the filled bytes.
///
/// Ranges count from there. `consume` bytes have to be consumed before the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListStep {
    /// Nothing complete yet.
    More,
    /// Punctuation.
    Progress {
        /// Bytes that are done with.
        consume: usize,
    },
    /// The array of items starts.
    ItemsBegin {
        /// Bytes that are done with.
        consume: usize,
    },
    /// One item.
    Item {
        /// Where it stands.
        at: Range<usize>,
        /// Bytes that are done with.
        consume: usize,
    },
    /// A member of the list that is not `items`.
    Member {
        /// Where its key stands, with quotes.
        key: Range<usize>,
        /// Where its value stands.
        value: Range<usize>,
        /// Bytes that are done with.
        consume: usize,
    },
    /// The list is over; only white space may follow.
    End {
        /// What the list says.
        list: ListEnd,
        /// Bytes that are done with.
        consume: usize,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Start,
    Members,
    Items,
    Done,
}

/// Longest key of a list's own members, in bytes; `remainingItemCount` is the longest known.
const KEY_BYTES: usize = 1024;

impl ListScanner {
    /// A scanner at the start of a list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the list has ended.
    pub const fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Looks for the next part of the list at the start of `filled`.
    pub fn step(&mut self, filled: &[u8]) -> Result<ListStep, Refused> {
        let step = self.next(filled)?;
        if step == ListStep::More && filled.len() >= limits::RAW_OBJECT_BYTES {
            return Err(Flaw::TooLarge.into());
        }
        Ok(step)
    }

    /// Whether anything was found yet.
    pub(super) const fn is_started(&self) -> bool {
        !matches!(self.phase, Phase::Start)
    }

    /// As [`ListScanner::step`], without a bound on what is buffered.
    pub(super) fn next(&mut self, filled: &[u8]) -> Result<ListStep, Flaw> {
        let at = white_space(filled, 0);
        let Some(byte) = filled.get(at) else {
            return Ok(ListStep::More);
        };
        match (self.phase, byte) {
            (Phase::Start, b'{') => {
                self.phase = Phase::Members;
                Ok(ListStep::Progress { consume: at + 1 })
            }
            (Phase::Start | Phase::Done, _) => Err(Flaw::Syntax),
            (Phase::Members, b'}') => {
                self.phase = Phase::Done;
                Ok(ListStep::End {
                    list: self.end.take().unwrap_or_default(),
                    consume: at + 1,
                })
            }
            (Phase::Items, b']') => {
                (self.phase, self.comma_due) = (Phase::Members, true);
                Ok(ListStep::Progress { consume: at + 1 })
            }
            (Phase::Members | Phase::Items, b',') if self.comma_due => {
                let next = white_space(filled, at + 1);
                match filled.get(next) {
                    None => Ok(ListStep::More),
                    Some(b'}' | b']' | b',') => Err(Flaw::Syntax),
                    Some(_) => {
                        self.comma_due = false;
                        Ok(ListStep::Progress { consume: at + 1 })
                    }
                }
            }
            (Phase::Members | Phase::Items, _) if self.comma_due => Err(Flaw::Syntax),
            (Phase::Members, _) => self.next_member(filled, at),
            (Phase::Items, _) => self.item(filled, at),
        }
    }

    fn item(&mut self, filled: &[u8], at: usize) -> Result<ListStep, Flaw> {
        if filled.get(at) != Some(&b'{') {
            return Err(Flaw::Shape);
        }
        let Some(end) = self.value_end(filled, at)? else {
            return Ok(ListStep::More);
        };
        self.comma_due = true;
        Ok(ListStep::Item {
            at: at..end,
            consume: end,
        })
    }

    fn next_member(&mut self, filled: &[u8], at: usize) -> Result<ListStep, Flaw> {
        let Some(key) = key(filled, at)? else {
            return Ok(ListStep::More);
        };
        let colon = white_space(filled, key.end);
        let start = white_space(filled, colon + 1);
        match (filled.get(colon), filled.get(start)) {
            (Some(b':'), Some(_)) => {}
            (None | Some(b':'), None) => return Ok(ListStep::More),
            (_, _) => return Err(Flaw::Syntax),
        }
        let mut reader = Reader::new(filled.get(key.clone()).unwrap_or_default())?;
        let name = reader.string()?;
        let name = reader.decoded_key(name);
        let is_items = name.as_ref() == b"items";
        if is_items && self.seen_items {
            return Err(Flaw::Duplicate);
        }
        if is_items && filled.get(start) == Some(&b'[') {
            (self.phase, self.seen_items) = (Phase::Items, true);
            return Ok(ListStep::ItemsBegin { consume: start + 1 });
        }
        let Some(end) = self.value_end(filled, start)? else {
            return Ok(ListStep::More);
        };
        let value = filled.get(start..end).unwrap_or_default();
        if name.as_ref() == b"metadata" {
            if self.end.is_some() {
                return Err(Flaw::Duplicate);
            }
            self.end = Some(list_metadata(value)?);
        } else if is_items {
            if value != b"null" {
                return Err(Flaw::Shape);
            }
            self.seen_items = true;
        }
        self.comma_due = true;
        Ok(ListStep::Member {
            key,
            value: start..end,
            consume: end,
        })
    }

    /// Where the value at `start` ends, once it is complete.
    fn value_end(&mut self, filled: &[u8], start: usize) -> Result<Option<usize>, Flaw> {
        let rest = filled.get(start..).unwrap_or_default();
        match rest.first() {
            Some(b'{' | b'[') => {
                let framer = self.framer.get_or_insert_default();
                let end = framer.end(rest);
                if end.is_some() {
                    self.framer = None;
                }
                Ok(end.map(|end| start + end))
            }
            Some(b'"') => Ok(string_end(filled, start)),
            Some(_) => {
                let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
                let length = rest.iter().position(is_end);
                let value = rest.get(..length.unwrap_or(0)).unwrap_or_default();
                if length.is_some() {
                    let mut reader = Reader::new(value)?;
                    reader.skip()?;
                    reader.finish()?;
                }
                Ok(length.map(|length| start + length))
            }
            None => Ok(None),
        }
    }
}

/// The key at `at`, with its quotes, once it is complete.
fn key(filled: &[u8], at: usize) -> Result<Option<Range<usize>>, Flaw> {
    if filled.get(at) != Some(&b'"') {
        return Err(Flaw::Syntax);
    }
    let Some(end) = string_end(filled, at) else {
        return if filled.len() - at > KEY_BYTES {
            Err(Flaw::TooLarge)
        } else {
            Ok(None)
        };
    };
    Ok(Some(at..end))
}

fn white_space(filled: &[u8], from: usize) -> usize {
    let rest = filled.get(from..).unwrap_or_default();
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    from + rest.iter().position(is_text).unwrap_or(rest.len())
}

/// The place behind the string that starts at `start`, if it is complete.
fn string_end(filled: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += plain_prefix_from(filled, at);
        match filled.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn plain_prefix_from(filled: &[u8], at: usize) -> usize {
    super::text::plain_prefix(filled.get(at..).unwrap_or_default())
}

fn list_metadata(value: &[u8]) -> Result<ListEnd, Flaw> {
    let mut list = ListEnd::default();
    let mut seen_version = false;
    let mut reader = Reader::new(value)?;
    each(&mut reader, &mut |reader, key| {
        let is_text = reader.peek()? == b'"';
        match key {
            b"resourceVersion" if is_text => {
                if std::mem::replace(&mut seen_version, true) {
                    return Err(Flaw::Duplicate);
                }
                let text = reader.string()?;
                let text = reader.owned(text);
                if !text.is_empty() {
                    let version = ResourceVersion::parse(&text).ok_or(Flaw::Version)?;
                    list.resource_version = Some(version);
                }
                Ok(())
            }
            b"continue" if is_text => {
                let text = reader.string()?;
                let text = reader.owned(text);
                list.continue_token = (!text.is_empty()).then_some(text);
                Ok(())
            }
            _ => reader.skip(),
        }
    })?;
    reader.finish()?;
    Ok(list)
}

/// Keeps what a list says about itself, and nothing else, of the metadata before the cursor.
pub(super) fn keep_metadata(copier: &mut Copier<'_>) -> Result<(), Flaw> {
    const FIELDS: [&str; 4] = [
        "continue",
        "remainingItemCount",
        "resourceVersion",
        "selfLink",
    ];
    let mut walk = copier.enter()?;
    while let Some(member) = copier.member(&mut walk)? {
        if FIELDS
            .iter()
            .any(|known| copier.reader.is(member.key, known))
        {
            copier.keep_scalar(&mut walk, member)?;
        } else {
            copier.omit(member)?;
        }
    }
    Ok(())
}
