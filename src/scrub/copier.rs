//! Copies one JSON text while leaving out, or replacing, parts of it.
//!
//! Everything that is neither left out nor replaced is copied byte for byte, in as few pieces as
//! possible.

use super::json::{Flaw, Member, Reader, Text};
use super::trail::Counts;

/// The output starts with room for this many bytes: most objects; of a large Secret little is left.
const INITIAL: usize = 8 * 1024;

/// A reader, and the output up to where it has been decided what to do.
#[derive(Debug)]
pub(super) struct Copier<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) counts: Counts,
    out: Vec<u8>,
    copied: usize,
}

/// Position within an object of which some members are left out.
#[derive(Debug)]
pub(super) struct Walk {
    first: bool,
    kept: bool,
}

impl<'a> Copier<'a> {
    /// Starts on `input`.
    pub(super) fn new(input: &'a [u8]) -> Result<Self, Flaw> {
        Ok(Self {
            reader: Reader::new(input)?,
            counts: Counts::default(),
            out: Vec::with_capacity(input.len().min(INITIAL)),
            copied: 0,
        })
    }

    /// Enters an object.
    pub(super) fn enter(&mut self) -> Result<Walk, Flaw> {
        self.reader.enter(b'{')?;
        Ok(Walk {
            first: true,
            kept: false,
        })
    }

    /// The next member. Its value must then be passed by [`Copier::keep`] and reading it, or by
    /// [`Copier::omit`].
    pub(super) fn member(&mut self, walk: &mut Walk) -> Result<Option<Member>, Flaw> {
        self.reader.member(&mut walk.first)
    }

    /// Decides that the member stays.
    pub(super) fn keep(&mut self, walk: &mut Walk, member: Member) {
        if !walk.kept && !member.first {
            // Everything before it was left out, and its comma has to go as well.
            self.flush(member.separator);
            self.copied = member.separator + 1;
        }
        walk.kept = true;
    }

    /// Leaves the member out, with its value, which the cursor stands before or behind.
    pub(super) fn cut(&mut self, member: Member) {
        self.flush(member.separator);
        self.copied = self.reader.at();
    }

    /// Leaves the member out; the cursor stands before its value.
    pub(super) fn omit(&mut self, member: Member) -> Result<(), Flaw> {
        self.reader.skip()?;
        self.cut(member);
        self.counts.fields_dropped += 1;
        Ok(())
    }

    /// Keeps the member if its value is not an object or an array, or else leaves it out.
    pub(super) fn keep_scalar(&mut self, walk: &mut Walk, member: Member) -> Result<(), Flaw> {
        if matches!(self.reader.peek()?, b'{' | b'[') {
            return self.omit(member);
        }
        self.keep(walk, member);
        self.reader.skip()
    }

    /// Puts `json` in place of the value that the cursor stands before.
    pub(super) fn replace(&mut self, json: &[u8]) -> Result<(), Flaw> {
        self.flush(self.reader.at());
        self.reader.skip()?;
        self.put(json);
        Ok(())
    }

    /// Puts `json` in place of the input between the last flush and the cursor.
    pub(super) fn put(&mut self, json: &[u8]) {
        self.out.extend_from_slice(json);
        self.copied = self.reader.at();
    }

    /// Copies the input up to `until` and returns the length of the output.
    pub(super) fn flush(&mut self, until: usize) -> usize {
        if let Some(piece) = self.reader.input().get(self.copied..until) {
            self.out.extend_from_slice(piece);
            self.copied = until;
        }
        self.out.len()
    }

    /// Copies a string's content and returns where it stands in the output.
    pub(super) fn place(&mut self, text: Text) -> (usize, usize) {
        let start = self.flush(text.start);
        let end = self.flush(text.end);
        (start, end - start)
    }

    /// Copies the rest, which has to be white space, and returns the output.
    pub(super) fn finish(mut self) -> Result<(Vec<u8>, Counts), Flaw> {
        self.reader.finish()?;
        self.flush(self.reader.input().len());
        Ok((self.out, self.counts))
    }

    /// Forgets what came before the cursor: the output starts there.
    pub(super) fn start(&mut self) -> Result<(), Flaw> {
        self.reader.peek()?;
        self.copied = self.reader.at();
        Ok(())
    }

    /// Copies up to the cursor and takes the output; the rest can still be read.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.flush(self.reader.at());
        std::mem::take(&mut self.out)
    }
}
