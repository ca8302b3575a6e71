//! Filters the answers of tunnelled operations.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::frame::Framer;
use super::json::Flaw;
use super::list::{ListScanner, ListStep};
use super::object::{Plan, Purpose};
use super::shapes::Filtering;
use super::table::Columns;
use super::trail::Sums;
use super::{Refused, Scrubbed, Trail};
use crate::limits;
use crate::policy::ScrubRules;
use crate::resource::{Gvr, Target, Verb};
use crate::secret::Buffer;

/// Bytes that are looked at in one go, so that what is complete leaves before more is buffered.
const PIECE_BYTES: usize = 16 * 1024;

/// An answer about a masked kind that is not JSON.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the API server answered about a masked kind in a format that cannot be filtered")]
pub struct Unfilterable;

/// Filters one answer while its bytes pass. Memory is bounded by
/// [`limits::RAW_OBJECT_BYTES`] per item of a list or event of a watch.
#[derive(Debug)]
pub struct AnswerFilter {
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    /// Nothing is masked.
    Pass,
    Masked(Box<Masked>),
}

/// State of an answer about a masked kind.
#[derive(Debug)]
struct Masked {
    rules: Arc<ScrubRules>,
    gvr: Gvr,
    buffer: Buffer,
    columns: Columns,
    sums: Sums,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Watch(Framer),
    Document(Document),
}

/// One object, list, table or Status.
#[derive(Debug)]
struct Document {
    scanner: ListScanner,
    /// Members before `items`; the whole text if there are none.
    head: Buffer,
    items: Items,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Items {
    /// Not seen.
    None,
    /// The next item is the first.
    First,
    /// The next item needs a comma.
    Next,
    /// The array is closed.
    Closed,
}

impl AnswerFilter {
    /// A filter for the answer to a request for `target`.
    ///
    /// # Errors
    /// A masked kind and a content type that is not JSON.
    pub fn new(
        rules: Arc<ScrubRules>,
        target: &Target,
        status: u16,
        content_type: Option<&str>,
    ) -> Result<Self, Unfilterable> {
        if rules.masked(&target.gvr).is_none() {
            return Ok(Self { mode: Mode::Pass });
        }
        // Without a content type the bytes have to prove themselves: only strict JSON passes.
        let essence = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
        if essence.is_some_and(|essence| !essence.eq_ignore_ascii_case("application/json")) {
            return Err(Unfilterable);
        }
        let body = if target.verb == Verb::Watch && status == 200 {
            Body::Watch(Framer::default())
        } else {
            let mut head = Buffer::new(limits::RAW_OBJECT_BYTES);
            head.push(b"{");
            Body::Document(Document {
                scanner: ListScanner::new(),
                head,
                items: Items::None,
            })
        };
        Ok(Self {
            mode: Mode::Masked(Box::new(Masked {
                rules,
                gvr: target.gvr.clone(),
                buffer: Buffer::new(limits::RAW_OBJECT_BYTES),
                columns: Columns::default(),
                sums: Sums::default(),
                body,
            })),
        })
    }

    /// Takes the next bytes of the answer and appends what may pass to `out`.
    ///
    /// # Errors
    /// Bytes that cannot be filtered; the answer has to be ended there.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Scrubbed>) -> Result<(), Refused> {
        match &mut self.mode {
            Mode::Pass => {
                if !bytes.is_empty() {
                    out.push(Scrubbed(Bytes::copy_from_slice(bytes)));
                }
                Ok(())
            }
            Mode::Masked(masked) => masked.push(bytes, out),
        }
    }

    /// Checks that the answer is complete and says what was removed.
    pub fn finish(self) -> Result<Trail, Refused> {
        match self.mode {
            Mode::Pass => Ok(Trail::default()),
            Mode::Masked(masked) => masked.finish(),
        }
    }
}

impl Masked {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<Scrubbed>) -> Result<(), Refused> {
        for piece in bytes.chunks(PIECE_BYTES) {
            if !self.buffer.push(piece) {
                return Err(Flaw::TooLarge.into());
            }
            // What is passed on is passed on whole: a flaw takes with it what it stands in.
            let mut passed = Vec::new();
            let result = self.drain(&mut passed);
            if !passed.is_empty() {
                out.push(Scrubbed(Bytes::from(passed)));
            }
            if let Err(flaw) = result {
                self.sums.refused();
                return Err(flaw.into());
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Trail, Refused> {
        let is_blank = self.buffer.filled().iter().all(u8::is_ascii_whitespace);
        let is_complete = match &self.body {
            Body::Watch(_) => true,
            // An answer without a body is complete as well.
            Body::Document(document) => {
                document.scanner.is_done() || !document.scanner.is_started()
            }
        };
        if !is_complete || !is_blank {
            return Err(Flaw::Truncated.into());
        }
        Ok(self.sums.trail())
    }

    fn drain(&mut self, out: &mut Vec<u8>) -> Result<(), Flaw> {
        let Some(kind) = self.rules.masked(&self.gvr) else {
            return Err(Flaw::Shape);
        };
        let filtering = Filtering {
            plan: Plan {
                rules: &self.rules,
                masked: Some(kind),
                purpose: Purpose::Answer,
            },
            kind,
            sums: &self.sums,
        };
        match &mut self.body {
            Body::Watch(framer) => {
                while let Some(end) = framer.end(self.buffer.filled()) {
                    let line = self.buffer.filled().get(..end).unwrap_or_default();
                    filtering.event(&mut self.columns, line, out)?;
                    self.buffer.consume(end);
                }
                Ok(())
            }
            Body::Document(document) => {
                document.drain(&filtering, &mut self.columns, &mut self.buffer, out)
            }
        }
    }
}

impl Document {
    fn drain(
        &mut self,
        filtering: &Filtering<'_>,
        columns: &mut Columns,
        buffer: &mut Buffer,
        out: &mut Vec<u8>,
    ) -> Result<(), Flaw> {
        loop {
            let filled = buffer.filled();
            let consume = match self.scanner.next(filled)? {
                ListStep::More => return Ok(()),
                ListStep::Progress { consume } => consume,
                ListStep::ItemsBegin { consume } => {
                    self.items = Items::First;
                    self.head.push(b"}");
                    let mut head = filtering.list_members(self.head.filled())?;
                    self.head.clear();
                    head.pop();
                    if head.len() > 1 {
                        head.push(b',');
                    }
                    out.extend_from_slice(&head);
                    out.extend_from_slice(b"\"items\":[");
                    consume
                }
                ListStep::Item { at, consume } => {
                    if self.items == Items::Next {
                        out.push(b',');
                    }
                    self.items = Items::Next;
                    filtering.object(filled.get(at).unwrap_or_default(), out)?;
                    consume
                }
                ListStep::Member {
                    key,
                    value,
                    consume,
                } => {
                    let key = filled.get(key).unwrap_or_default();
                    let value = filled.get(value).unwrap_or_default();
                    self.member(filtering, key, value, out)?;
                    consume
                }
                ListStep::End { list: _, consume } => {
                    if self.items == Items::None {
                        self.head.push(b"}");
                        filtering.whole(columns, self.head.filled(), out)?;
                        self.head.clear();
                    } else {
                        self.close_items(out);
                        out.push(b'}');
                    }
                    consume
                }
            };
            buffer.consume(consume);
        }
    }

    /// Keeps a member for later, or passes it on if the items are already out.
    fn member(
        &mut self,
        filtering: &Filtering<'_>,
        key: &[u8],
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Flaw> {
        let head = &mut self.head;
        if self.items != Items::None {
            head.push(b"{");
        }
        let comma: &[u8] = if head.len() > 1 { b"," } else { b"" };
        for piece in [comma, key, b":", value] {
            if !head.push(piece) {
                return Err(Flaw::TooLarge);
            }
        }
        if self.items != Items::None {
            head.push(b"}");
            let member = filtering.list_members(head.filled())?;
            head.clear();
            self.close_items(out);
            let inner = member
                .get(1..member.len().saturating_sub(1))
                .unwrap_or_default();
            if !inner.is_empty() {
                out.push(b',');
                out.extend_from_slice(inner);
            }
        }
        Ok(())
    }

    fn close_items(&mut self, out: &mut Vec<u8>) {
        if self.items != Items::Closed {
            out.push(b']');
            self.items = Items::Closed;
        }
    }
}
