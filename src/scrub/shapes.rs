//! Filters one part of an answer about a masked kind, by its shape.

use super::copier::Copier;
use super::filter::each;
use super::json::{Flaw, Reader};
use super::object::{Facts, Plan};
use super::table::{self, Columns};
use super::trail::{Counts, Sums};
use super::{list, status};
use crate::policy::MaskedKind;

/// What every part of an answer is filtered with.
pub(super) struct Filtering<'r> {
    pub(super) plan: Plan<'r>,
    pub(super) kind: &'r MaskedKind,
    pub(super) sums: &'r Sums,
}

impl Filtering<'_> {
    pub(super) fn object(&self, json: &[u8], out: &mut Vec<u8>) -> Result<(), Flaw> {
        let mut copier = Copier::new(json)?;
        self.plan.object(&mut copier, &mut Facts::default())?;
        let (filtered, counts) = copier.finish()?;
        self.append(json, &filtered, counts, out);
        Ok(())
    }

    /// Filters a text that is no list with items: an object, a table or a Status.
    ///
    /// The body may say which of them it is, since each passes by an allow-list of its own.
    pub(super) fn whole(
        &self,
        columns: &mut Columns,
        json: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Flaw> {
        let (filtered, counts) = match shape(json)? {
            Shape::Object => return self.object(json, out),
            Shape::Status => (status::filter(json)?, Counts::default()),
            Shape::Table => table::filter(&self.plan, self.kind, columns, json)?,
        };
        self.append(json, &filtered, counts, out);
        Ok(())
    }

    /// Filters an object of members that a list has beside its items.
    pub(super) fn list_members(&self, json: &[u8]) -> Result<Vec<u8>, Flaw> {
        let mut copier = Copier::new(json)?;
        let mut walk = copier.enter()?;
        while let Some(member) = copier.member(&mut walk)? {
            let key = copier.reader.decoded_key(member.key);
            match (key.as_ref(), copier.reader.peek()?) {
                (b"kind" | b"apiVersion", _) => copier.keep_scalar(&mut walk, member)?,
                (b"metadata", b'{') => {
                    copier.keep(&mut walk, member);
                    list::keep_metadata(&mut copier)?;
                }
                _ => copier.omit(member)?,
            }
        }
        let (filtered, counts) = copier.finish()?;
        self.sums.filtered(counts, json.len(), filtered.len());
        Ok(filtered)
    }

    /// Filters one event of a watch; the envelope is written anew.
    pub(super) fn event(
        &self,
        columns: &mut Columns,
        line: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Flaw> {
        const TYPES: [&str; 5] = ["ADDED", "BOOKMARK", "DELETED", "ERROR", "MODIFIED"];
        let mut kind = None;
        let mut object = None;
        let mut reader = Reader::new(line)?;
        each(&mut reader, &mut |reader, key| {
            let start = reader.at();
            let is_second = match key {
                b"type" => {
                    let text = reader.string()?;
                    let known = TYPES.into_iter().find(|known| reader.is(text, known));
                    kind.replace(known.ok_or(Flaw::Shape)?).is_some()
                }
                b"object" => {
                    reader.skip()?;
                    object.replace(start..reader.at()).is_some()
                }
                _ => reader.skip().map(|()| false)?,
            };
            if is_second {
                Err(Flaw::Duplicate)
            } else {
                Ok(())
            }
        })?;
        reader.finish()?;
        let (Some(kind), Some(object)) = (kind, object) else {
            return Err(Flaw::Shape);
        };
        let mut filtered = Vec::new();
        self.whole(columns, line.get(object).unwrap_or_default(), &mut filtered)?;
        out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
        out.extend_from_slice(&filtered);
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    fn append(&self, json: &[u8], filtered: &[u8], counts: Counts, out: &mut Vec<u8>) {
        self.sums.filtered(counts, json.len(), filtered.len());
        out.extend_from_slice(filtered);
    }
}

enum Shape {
    Object,
    Status,
    Table,
}

/// Which shape the text says it has.
fn shape(json: &[u8]) -> Result<Shape, Flaw> {
    let mut shape = None;
    let mut reader = Reader::new(json)?;
    each(&mut reader, &mut |reader, key| {
        if key != b"kind" || reader.peek()? != b'"' {
            return reader.skip();
        }
        let text = reader.string()?;
        let found = match reader.decoded_key(text).as_ref() {
            b"Status" => Shape::Status,
            b"Table" => Shape::Table,
            _ => Shape::Object,
        };
        match shape.replace(found) {
            Some(_) => Err(Flaw::Duplicate),
            None => Ok(()),
        }
    })?;
    Ok(shape.unwrap_or(Shape::Object))
}
