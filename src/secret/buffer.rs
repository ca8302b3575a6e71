//! A read buffer that wipes what it has handed out.

use std::fmt;

use zeroize::Zeroize;

/// Bytes read and not yet consumed, in one growing block with a cap.
///
/// Consumed bytes are overwritten at once; a block that is outgrown is overwritten before it is
/// freed. Nothing is allocated before there is something to hold.
pub struct Buffer {
    block: Vec<u8>,
    start: usize,
    end: usize,
    cap: usize,
}

/// A block starts with, and returns to, this many bytes.
const INITIAL: usize = 16 * 1024;

impl Buffer {
    /// An empty buffer that will hold at most `cap` bytes.
    pub const fn new(cap: usize) -> Self {
        Self {
            block: Vec::new(),
            start: 0,
            end: 0,
            cap,
        }
    }

    /// What has been read and not consumed.
    pub fn filled(&self) -> &[u8] {
        self.block.get(self.start..self.end).unwrap_or_default()
    }

    /// Number of bytes read and not consumed.
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether everything that was read has been consumed.
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether nothing more fits: it is filled to its cap.
    pub const fn is_full(&self) -> bool {
        self.len() == self.cap
    }

    /// Gives the block back if nothing is in it: who waits for long needs none.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.block.zeroize();
            self.block = Vec::new();
        }
    }

    /// Space to read into: at least one byte, or empty if the buffer is full to its cap.
    pub fn space(&mut self) -> &mut [u8] {
        if self.end == self.block.len() {
            self.make_space();
        }
        self.block.get_mut(self.end..).unwrap_or_default()
    }

    /// Declares `read` bytes of [`Buffer::space`] as filled.
    pub fn advance(&mut self, read: usize) {
        self.end = (self.end + read).min(self.block.len());
    }

    /// Appends `bytes`; false, and nothing appended, if they do not fit under the cap.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        if self.len() + bytes.len() > self.cap {
            return false;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = self.space();
            let (now, later) = rest.split_at(rest.len().min(space.len()));
            if let Some(target) = space.get_mut(..now.len()) {
                target.copy_from_slice(now);
            }
            let read = now.len();
            self.advance(read);
            rest = later;
        }
        true
    }

    /// Wipes the first `count` filled bytes and forgets them.
    pub fn consume(&mut self, count: usize) {
        let until = (self.start + count).min(self.end);
        if let Some(used) = self.block.get_mut(self.start..until) {
            used.zeroize();
        }
        self.start = until;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.block.len() > INITIAL {
                self.replace(INITIAL.min(self.cap));
            }
        }
    }

    /// Wipes everything.
    pub fn clear(&mut self) {
        self.consume(self.len());
    }

    fn make_space(&mut self) {
        if self.start > 0 {
            self.block.copy_within(self.start..self.end, 0);
            let len = self.len();
            if let Some(old) = self.block.get_mut(len..self.end) {
                old.zeroize();
            }
            (self.start, self.end) = (0, len);
            return;
        }
        let larger = (self.block.len() * 2).max(INITIAL).min(self.cap);
        if larger > self.block.len() {
            self.replace(larger);
        }
    }

    /// Moves what is filled into a new block of `size` bytes and wipes the old one.
    fn replace(&mut self, size: usize) {
        let mut block = vec![0; size];
        let len = self.len();
        if let (Some(to), Some(from)) = (block.get_mut(..len), self.block.get(self.start..self.end))
        {
            to.copy_from_slice(from);
        }
        self.block.zeroize();
        self.block = block;
        (self.start, self.end) = (0, len);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.block.zeroize();
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumed_bytes_are_overwritten() {
        let mut buffer = Buffer::new(1024);
        assert!(buffer.push(b"planted-value and more"));
        buffer.consume(13);
        assert_eq!(buffer.filled(), b" and more");
        assert!(!buffer.block.windows(7).any(|window| window == b"planted"));
    }

    #[test]
    fn growth_keeps_the_content_and_stops_at_the_cap() {
        let mut buffer = Buffer::new(40_000);
        let bytes: Vec<u8> = (0..40_000u32).map(|at| (at % 251) as u8).collect();
        assert!(buffer.push(&bytes));
        assert_eq!(buffer.filled(), bytes);
        assert!(!buffer.push(b"x"));
        assert!(buffer.space().is_empty());
        buffer.clear();
        assert_eq!(buffer.block.len(), INITIAL);
        assert!(buffer.block.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn an_empty_buffer_can_do_without_its_block() {
        let mut buffer = Buffer::new(40_000);
        assert!(buffer.push(b"planted-value"));
        buffer.release();
        assert_eq!(buffer.filled(), b"planted-value", "it is not empty");
        buffer.clear();
        buffer.release();
        assert_eq!(buffer.block.capacity(), 0);
        assert_eq!(buffer.space().len(), INITIAL);
    }

    #[test]
    fn space_is_won_back_from_consumed_bytes() {
        let mut buffer = Buffer::new(INITIAL);
        assert!(buffer.push(&vec![7; INITIAL]));
        buffer.consume(INITIAL - 1);
        assert!(buffer.push(&[8; 100]));
        assert_eq!(buffer.len(), 101);
    }
}
