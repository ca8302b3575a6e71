//! Puts the live last-applied annotation in place of the masked one.
//!
//! After a server-side apply kubectl writes back the last-applied annotation that it was shown,
//! under the field manager `kubectl-last-applied`; what it was shown is masked.

use std::ops::Range;

use thiserror::Error;

use super::filter::each;
use super::json::{Flaw, Reader};
use crate::policy::ScrubRules;
use crate::resource::Gvr;
use crate::secret::SecretBytes;

/// Why an annotation is not restored.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RestoreError {
    /// The body is not the patch it was taken for.
    #[error("request is not a patch of the last-applied annotation alone")]
    NotThatPatch,
    /// The live object cannot be read, or has no such annotation.
    #[error("the live object has no last-applied annotation")]
    NotThere,
}

/// The body of `kubectl-last-applied` with the annotation of `live_object` in it.
pub fn restore_last_applied(
    rules: &ScrubRules,
    gvr: &Gvr,
    body: &[u8],
    live_object: &[u8],
) -> Result<SecretBytes, RestoreError> {
    let kind = rules.masked(gvr).ok_or(RestoreError::NotThatPatch)?;
    let place = annotation_patch(&kind.last_applied, body).ok_or(RestoreError::NotThatPatch)?;
    let live = live_annotation(&kind.last_applied, live_object);
    let live = live.ok().flatten().ok_or(RestoreError::NotThere)?;
    let pieces = [
        body.get(..place.start).unwrap_or_default(),
        live_object.get(live).unwrap_or_default(),
        body.get(place.end..).unwrap_or_default(),
    ];
    let mut restored = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    for piece in pieces {
        restored.extend_from_slice(piece);
    }
    Ok(SecretBytes::new(restored))
}

/// Where the value of the annotation stands (with quotes) in a JSON body that holds nothing
/// besides it but the object's type and name.
pub(super) fn annotation_patch(annotation: &str, body: &[u8]) -> Option<Range<usize>> {
    let mut place = None;
    let mut is_alone = true;
    let mut reader = Reader::new(body).ok()?;
    let read = each(&mut reader, &mut |reader, key| match key {
        b"apiVersion" | b"kind" => reader.string().map(drop),
        b"metadata" => each(reader, &mut |reader, key| match key {
            b"name" | b"namespace" => reader.string().map(drop),
            b"annotations" => each(reader, &mut |reader, key| {
                let start = reader.at();
                reader.string()?;
                is_alone &= key == annotation.as_bytes();
                is_alone &= place.replace(start..reader.at()).is_none();
                Ok(())
            }),
            _ => Err(Flaw::Shape),
        }),
        _ => Err(Flaw::Shape),
    });
    read.and_then(|()| reader.finish()).ok()?;
    place.filter(|_| is_alone)
}

fn live_annotation(annotation: &str, object: &[u8]) -> Result<Option<Range<usize>>, Flaw> {
    let mut place = None;
    let mut reader = Reader::new(object)?;
    each(&mut reader, &mut |reader, key| {
        if key != b"metadata" {
            return reader.skip();
        }
        each(reader, &mut |reader, key| {
            if key != b"annotations" || reader.peek()? != b'{' {
                return reader.skip();
            }
            each(reader, &mut |reader, key| {
                let start = reader.at();
                if key != annotation.as_bytes() {
                    return reader.skip();
                }
                reader.string()?;
                match place.replace(start..reader.at()) {
                    Some(_) => Err(Flaw::Duplicate),
                    None => Ok(()),
                }
            })
        })
    })?;
    reader.finish()?;
    Ok(place)
}
