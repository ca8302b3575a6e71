//! An object's JSON as it is held: compressed, because most objects are not read most of the time.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use zstd::bulk::{Compressor, Decompressor};

/// JSON that is shorter than this, in bytes, is held as it is: a frame would save nothing.
const COMPRESS_FROM_BYTES: usize = 256;

/// zstd's fastest ordinary level.
const LEVEL: i32 = 1;

thread_local! {
    // To make a context takes longer than to compress an object. Nothing but filtered bytes goes
    // through them.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// JSON, compressed where that makes it smaller; clones share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    held: Arc<[u8]>,
    /// Length of the JSON. What is held is shorter if, and only if, it is compressed.
    length: usize,
}

impl Packed {
    pub(super) fn new(json: &[u8]) -> Self {
        let small = (json.len() >= COMPRESS_FROM_BYTES).then(|| compress(json));
        let held = match &small {
            Some(Ok(small)) if small.len() < json.len() => small,
            _ => json,
        };
        Self {
            held: held.into(),
            length: json.len(),
        }
    }

    /// The JSON.
    pub(super) fn open(&self) -> Cow<'_, [u8]> {
        if self.held.len() == self.length {
            return Cow::Borrowed(&self.held);
        }
        inflate(&self.held, self.length).map_or_else(
            |error| {
                // This process compressed it: there is no memory for it, or the memory is broken.
                tracing::error!(%error, bytes = self.length, "a held object cannot be read");
                Cow::Borrowed(&[][..])
            },
            Cow::Owned,
        )
    }

    /// Length of the JSON, in bytes.
    pub(super) const fn length(&self) -> usize {
        self.length
    }

    /// Bytes that are held for it.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.len()
    }
}

fn compress(json: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let context = match kept {
            Some(context) => context,
            None => kept.insert(Compressor::new(LEVEL)?),
        };
        context.compress(json)
    })
}

fn inflate(held: &[u8], length: usize) -> io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let context = match kept {
            Some(context) => context,
            None => kept.insert(Decompressor::new()?),
        };
        context.decompress(held, length)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_is_held_in_less_than_its_length() {
        let json = r#"{"name":"SETTING","value":"the value of a setting"},"#.repeat(100);
        let packed = Packed::new(json.as_bytes());
        assert!(packed.held_bytes() < json.len() / 10);
        assert_eq!(packed.length(), json.len());
        assert_eq!(&*packed.open(), json.as_bytes());
    }

    proptest! {
        #[test]
        fn whatever_was_packed_is_opened(json in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let packed = Packed::new(&json);
            prop_assert!(packed.held_bytes() <= json.len());
            prop_assert_eq!(&*packed.open(), &json[..]);
        }
    }
}
