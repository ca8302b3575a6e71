//! Batches: numbered events, compressed together.

use std::cell::RefCell;
use std::io;
use std::thread::LocalKey;

use bytes::Bytes;
use prost::Message;
use thiserror::Error;
use zstd::bulk::{Compressor, Decompressor};

use crate::limits;
use crate::wire::v1;

/// Bytes of encoded events that are packed into one batch.
///
/// Below the bound for compressed payloads even if nothing compresses, with room for zstd's
/// framing.
pub(super) const PACK_BYTES: usize = limits::BATCH_COMPRESSED_BYTES - 2 * 1024;

/// Bytes of one part of an object that does not fit into a batch.
pub(super) const PART_BYTES: usize = PACK_BYTES - 2 * 1024;

/// zstd's fastest ordinary level.
const LEVEL: i32 = 1;

/// Payloads below this many bytes are not worth compressing.
const COMPRESS_FROM_BYTES: usize = 512;

/// A batch that cannot be opened.
#[derive(Debug, Error)]
pub enum BatchError {
    /// Larger than both sides have agreed on.
    #[error("batch of {got} bytes is over the limit of {limit}")]
    TooLarge {
        /// Size found or announced, in bytes.
        got: usize,
        /// Size allowed, in bytes.
        limit: usize,
    },
    /// Names a compression we do not know.
    #[error("batch is compressed in an unknown way")]
    Compression,
    /// Does not inflate.
    #[error("batch does not inflate")]
    Inflate(#[source] io::Error),
    /// Does not decode.
    #[error("batch does not decode")]
    Decode(#[source] prost::DecodeError),
    /// Holds another number of events than it says.
    #[error("batch holds {got} events and announces {announced}")]
    Count {
        /// Events found.
        got: usize,
        /// Events announced.
        announced: u32,
    },
}

/// Numbers and packs `events`; `None` if there are none.
pub(super) fn pack(
    stream: u32,
    epoch: u64,
    first_sequence: u64,
    events: Vec<v1::Event>,
    coalesced: u32,
) -> Option<v1::Batch> {
    let count = u32::try_from(events.len())
        .ok()
        .filter(|count| *count > 0)?;
    let resource_version = events.iter().map(version_of).max().unwrap_or(0);
    let plain = v1::Events { events }.encode_to_vec();
    let inflated_bytes = u32::try_from(plain.len()).ok()?;
    let (compression, payload) = compress(plain);
    Some(v1::Batch {
        stream,
        epoch,
        first_sequence,
        count,
        resource_version,
        compression: compression.into(),
        inflated_bytes,
        payload,
        coalesced,
    })
}

thread_local! {
    // To make and wipe a context for each batch took a seventh of the agent's time during a first
    // sync (perf). Nothing but filtered bytes goes through them.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Runs `work` on this thread's context, which is made when it is first needed.
fn with<C, T>(
    kept: &'static LocalKey<RefCell<Option<C>>>,
    make: impl FnOnce() -> io::Result<C>,
    work: impl FnOnce(&mut C) -> io::Result<T>,
) -> io::Result<T> {
    kept.with_borrow_mut(|kept| {
        work(match kept {
            Some(context) => context,
            None => kept.insert(make()?),
        })
    })
}

fn compress(plain: Vec<u8>) -> (v1::Compression, Bytes) {
    let small = (plain.len() >= COMPRESS_FROM_BYTES).then(|| {
        with(
            &COMPRESSOR,
            || Compressor::new(LEVEL),
            |context| context.compress(&plain),
        )
    });
    match small {
        // Copied: what was compressed has room for bytes that do not compress.
        Some(Ok(small)) if small.len() < plain.len() => {
            (v1::Compression::Zstd, Bytes::copy_from_slice(&small))
        }
        _ => (v1::Compression::None, plain.into()),
    }
}

/// The version that a receiver may resume from once it has applied `event`.
fn version_of(event: &v1::Event) -> u64 {
    use v1::event::Event as E;
    let of = |identity: &Option<v1::ObjectIdentity>| {
        identity
            .as_ref()
            .map_or(0, |identity| identity.resource_version)
    };
    match &event.event {
        Some(E::Upsert(upsert)) => of(&upsert.identity),
        Some(E::Touch(touch)) => of(&touch.identity),
        Some(E::Delete(delete)) => of(&delete.identity),
        Some(E::Part(part)) => of(&part.identity),
        Some(E::Bookmark(bookmark)) => bookmark.resource_version,
        Some(E::SnapshotEnd(end)) => end.resource_version,
        Some(E::SnapshotBegin(_) | E::Status(_)) | None => 0,
    }
}

/// Unpacks a batch from a peer; never inflates past the announced and allowed size.
///
/// # Errors
/// Anything that is not a well-formed batch within the limits.
pub fn open(batch: &v1::Batch) -> Result<Vec<v1::Event>, BatchError> {
    let events = v1::Events::decode(inflated(batch)?)
        .map_err(BatchError::Decode)?
        .events;
    if u32::try_from(events.len()) != Ok(batch.count) {
        return Err(BatchError::Count {
            got: events.len(),
            announced: batch.count,
        });
    }
    Ok(events)
}

/// The encoded events of a batch.
///
/// # Errors
/// As [`open`], as far as sizes and compression go.
pub fn inflated(batch: &v1::Batch) -> Result<Bytes, BatchError> {
    let limit = limits::BATCH_COMPRESSED_BYTES;
    if batch.payload.len() > limit {
        return Err(BatchError::TooLarge {
            got: batch.payload.len(),
            limit,
        });
    }
    let announced = usize::try_from(batch.inflated_bytes).unwrap_or(usize::MAX);
    if announced > limits::BATCH_INFLATED_BYTES {
        let limit = limits::BATCH_INFLATED_BYTES;
        return Err(BatchError::TooLarge {
            got: announced,
            limit,
        });
    }
    match batch.compression() {
        v1::Compression::None => Ok(batch.payload.clone()),
        v1::Compression::Zstd => inflate(&batch.payload, announced),
        v1::Compression::Unspecified => Err(BatchError::Compression),
    }
}

fn inflate(payload: &[u8], announced: usize) -> Result<Bytes, BatchError> {
    let plain = with(&DECOMPRESSOR, Decompressor::new, |context| {
        context.decompress(payload, announced)
    });
    let plain = plain.map_err(BatchError::Inflate)?;
    if plain.len() != announced {
        return Err(BatchError::TooLarge {
            got: plain.len(),
            limit: announced,
        });
    }
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bookmark(version: u64) -> v1::Event {
        let bookmark = v1::Bookmark {
            resource_version: version,
        };
        v1::Event {
            event: Some(v1::event::Event::Bookmark(bookmark)),
        }
    }

    #[test]
    fn what_was_packed_is_opened() {
        let events: Vec<_> = (0..500).map(bookmark).collect();
        let batch = pack(3, 9, 17, events.clone(), 0).unwrap();
        assert_eq!(batch.resource_version, 499);
        assert!(batch.payload.len() < batch.inflated_bytes as usize);
        assert_eq!(open(&batch).unwrap(), events);
    }

    #[test]
    fn a_bomb_is_not_inflated() {
        let bomb = zstd::bulk::compress(&vec![0; 64 * 1024 * 1024], 19).unwrap();
        let mut batch = pack(1, 1, 1, vec![bookmark(1)], 0).unwrap();
        batch.compression = v1::Compression::Zstd.into();
        batch.payload = bomb.into();
        assert!(matches!(open(&batch), Err(BatchError::Inflate(_))));
        batch.inflated_bytes = u32::MAX;
        assert!(matches!(open(&batch), Err(BatchError::TooLarge { .. })));
    }

    #[test]
    fn a_wrong_count_is_refused() {
        let mut batch = pack(1, 1, 1, vec![bookmark(1)], 0).unwrap();
        batch.count = 2;
        assert!(matches!(
            open(&batch),
            Err(BatchError::Count {
                got: 1,
                announced: 2
            })
        ));
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_or_a_batch(payload in prop::collection::vec(any::<u8>(), 0..300), compression in 0..4i32, inflated in 0..4096u32, count in 0..4u32) {
            let batch = v1::Batch { payload: payload.into(), compression, inflated_bytes: inflated, count, ..v1::Batch::default() };
            // Whatever comes out, it neither panics nor grows past the announced size.
            let _outcome = open(&batch);
        }
    }
}
