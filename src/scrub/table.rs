//! Filters printed tables of a masked kind.

use super::copier::Copier;
use super::json::{Flaw, Reader};
use super::list;
use super::object::{Facts, Plan};
use super::trail::Counts;
use crate::policy::MaskedKind;

/// Which columns of a table are known, by position. Kept over the events of one watch, of which
/// only the first names the columns.
#[derive(Debug, Default)]
pub(super) struct Columns {
    known: Vec<bool>,
}

impl Columns {
    /// Learns the columns that `json` defines, if it defines any.
    fn learn(&mut self, json: &[u8], kind: &MaskedKind) -> Result<(), Flaw> {
        let mut reader = Reader::new(json)?;
        let known = &mut self.known;
        super::filter::each(&mut reader, &mut |reader, key| {
            if key != b"columnDefinitions" || reader.peek()? != b'[' {
                return reader.skip();
            }
            known.clear();
            reader.enter(b'[')?;
            let mut count = 0;
            while reader.element(&mut count)?.is_some() {
                let mut is_known = None;
                super::filter::each(reader, &mut |reader, key| {
                    if key != b"name" || reader.peek()? != b'"' {
                        return reader.skip();
                    }
                    let name = reader.string()?;
                    match is_known.replace(reader.is_any(name, &kind.columns)) {
                        Some(_) => Err(Flaw::Duplicate),
                        None => Ok(()),
                    }
                })?;
                known.push(is_known.unwrap_or(false));
            }
            Ok(())
        })
    }

    fn is_known(&self, index: usize) -> bool {
        self.known.get(index).copied().unwrap_or(false)
    }
}

/// Filters a table: the objects of its rows like any object, its cells by column.
pub(super) fn filter(
    plan: &Plan<'_>,
    kind: &MaskedKind,
    columns: &mut Columns,
    json: &[u8],
) -> Result<(Vec<u8>, Counts), Flaw> {
    columns.learn(json, kind)?;
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
            (b"columnDefinitions", b'[' | b'n') => {
                copier.keep(&mut walk, member);
                copier.reader.skip()?;
            }
            (b"rows", b'[') => {
                copier.keep(&mut walk, member);
                copier.reader.enter(b'[')?;
                let mut count = 0;
                while copier.reader.element(&mut count)?.is_some() {
                    row(plan, columns, &mut copier)?;
                }
            }
            _ => copier.omit(member)?,
        }
    }
    copier.finish()
}

fn row(plan: &Plan<'_>, columns: &Columns, copier: &mut Copier<'_>) -> Result<(), Flaw> {
    let mut walk = copier.enter()?;
    while let Some(member) = copier.member(&mut walk)? {
        let key = copier.reader.decoded_key(member.key);
        match (key.as_ref(), copier.reader.peek()?) {
            (b"cells", b'[') => {
                copier.keep(&mut walk, member);
                cells(plan, columns, copier)?;
            }
            (b"object", b'{') => {
                copier.keep(&mut walk, member);
                plan.object(copier, &mut Facts::default())?;
            }
            _ => copier.omit(member)?,
        }
    }
    Ok(())
}

fn cells(plan: &Plan<'_>, columns: &Columns, copier: &mut Copier<'_>) -> Result<(), Flaw> {
    copier.reader.enter(b'[')?;
    let mut count = 0;
    while let Some(index) = copier.reader.element(&mut count)? {
        let is_scalar = !matches!(copier.reader.peek()?, b'{' | b'[');
        if is_scalar && columns.is_known(index) {
            copier.reader.skip()?;
        } else {
            copier.replace(format!("\"{}\"", plan.rules.mask()).as_bytes())?;
            copier.counts.values_masked += 1;
        }
    }
    Ok(())
}
