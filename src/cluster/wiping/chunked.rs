//! The chunked transfer coding, decoded as the bytes come.
//!
//! Strict: sizes are 1 to 15 hexadecimal digits, lines end with CR LF, extensions and trailers are
//! skipped and bounded. RFC 9112 §7.1.

use crate::cluster::ClusterError;

/// Longest extension of one chunk, in bytes. Go's server sends none.
const EXTENSION_BYTES: usize = 256;

/// All trailers together, in bytes.
const TRAILER_BYTES: usize = 8 * 1024;

/// Most digits of a size: 60 bits.
const SIZE_DIGITS: u8 = 15;

/// Where in the coding the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In a size, of which this much has been read.
    Size {
        value: u64,
        digits: u8,
    },
    /// In an extension, of which this many bytes are still allowed.
    Extension {
        value: u64,
        left: usize,
    },
    /// Before the LF that ends a size.
    SizeLf {
        value: u64,
    },
    /// In a chunk.
    Data {
        left: u64,
    },
    /// Before the CR, then the LF, that end a chunk.
    DataCr,
    DataLf,
    /// At the start of a line after the last chunk.
    TrailerStart {
        left: usize,
    },
    /// In a trailer.
    Trailer {
        left: usize,
    },
    /// Before the LF that ends a trailer.
    TrailerLf {
        left: usize,
    },
    /// Before the LF that ends everything.
    LastLf,
    End,
}

/// A chunked body, as far as it has been read.
#[derive(Debug)]
pub struct Chunked(At);

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Framing, then data.
    Data {
        /// Bytes of framing.
        skip: usize,
        /// Bytes of data behind it, at least one.
        length: usize,
    },
    /// The body is complete.
    End,
    /// Framing, and then more is needed.
    More {
        /// Bytes of framing.
        skip: usize,
    },
}

impl Chunked {
    /// A body of which nothing has been read.
    #[expect(clippy::new_without_default, reason = "a body is never one by default")]
    pub const fn new() -> Self {
        Self(At::Size {
            value: 0,
            digits: 0,
        })
    }

    /// Reads framing from the start of `input` up to data, the end of the body or of `input`.
    ///
    /// The caller drops the `skip` bytes that it is told, takes any number of the data bytes that
    /// follow, and tells that number to [`Chunked::taken`].
    pub fn step(&mut self, input: &[u8]) -> Result<Step, ClusterError> {
        for (skip, byte) in input.iter().enumerate() {
            match self.0 {
                At::Data { left } => {
                    let here = input.len() - skip;
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(here);
                    return Ok(Step::Data { skip, length });
                }
                At::End => return Ok(Step::End),
                at => self.0 = next(at, *byte)?,
            }
        }
        match self.0 {
            At::End => Ok(Step::End),
            _ => Ok(Step::More { skip: input.len() }),
        }
    }

    /// `count` bytes of data have been taken.
    pub fn taken(&mut self, count: usize) {
        if let At::Data { left } = self.0 {
            let left = left.saturating_sub(count as u64);
            self.0 = if left == 0 {
                At::DataCr
            } else {
                At::Data { left }
            };
        }
    }
}

/// Where a byte of framing leads.
fn next(at: At, byte: u8) -> Result<At, ClusterError> {
    let broken = ClusterError::Protocol("broke the chunked coding");
    Ok(match (at, byte) {
        (At::Size { value, digits }, _) if byte.is_ascii_hexdigit() && digits < SIZE_DIGITS => {
            let digit = char::from(byte).to_digit(16).unwrap_or_default();
            At::Size {
                value: value * 16 + u64::from(digit),
                digits: digits + 1,
            }
        }
        (At::Size { value, digits: 1.. } | At::Extension { value, .. }, b'\r') => {
            At::SizeLf { value }
        }
        (At::Size { value, digits: 1.. }, b';' | b' ' | b'\t') => At::Extension {
            value,
            left: EXTENSION_BYTES,
        },
        (
            At::Extension {
                value,
                left: left @ 1..,
            },
            b'\t' | b' '..=b'~' | 0x80..,
        ) => At::Extension {
            value,
            left: left - 1,
        },
        (At::SizeLf { value: 0 }, b'\n') => At::TrailerStart {
            left: TRAILER_BYTES,
        },
        (At::SizeLf { value }, b'\n') => At::Data { left: value },
        (At::DataCr, b'\r') => At::DataLf,
        (At::DataLf, b'\n') => At::Size {
            value: 0,
            digits: 0,
        },
        (At::TrailerStart { .. }, b'\r') => At::LastLf,
        (At::Trailer { left }, b'\r') => At::TrailerLf { left },
        (
            At::TrailerStart { left: left @ 1.. } | At::Trailer { left: left @ 1.. },
            b'\t' | b' '..=b'~' | 0x80..,
        ) => At::Trailer { left: left - 1 },
        (At::TrailerLf { left }, b'\n') => At::TrailerStart { left },
        (At::LastLf, b'\n') => At::End,
        _ => return Err(broken),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes `input`, given in pieces of the sizes that `cuts` repeats, taking at most `take`
    /// bytes of data at once; tells the data and whether the end was seen.
    fn decode(input: &[u8], cuts: &[usize], take: usize) -> Result<(Vec<u8>, bool), ClusterError> {
        let mut chunked = Chunked::new();
        let (mut data, mut raw, mut rest) = (Vec::new(), Vec::new(), input);
        let mut cuts = cuts.iter().cycle();
        loop {
            match chunked.step(&raw)? {
                Step::End => return Ok((data, true)),
                Step::Data { skip, length } => {
                    assert!(length > 0);
                    let taken = length.min(take);
                    data.extend_from_slice(&raw[skip..skip + taken]);
                    raw.drain(..skip + taken);
                    chunked.taken(taken);
                }
                Step::More { skip } => {
                    raw.drain(..skip);
                    if rest.is_empty() {
                        return Ok((data, false));
                    }
                    let (now, later) = rest.split_at((*cuts.next().unwrap()).clamp(1, rest.len()));
                    raw.extend_from_slice(now);
                    rest = later;
                }
            }
        }
    }

    fn encode(chunks: &[Vec<u8>], extension: &str, trailers: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            out.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("0{extension}\r\n{trailers}\r\n").as_bytes());
        out
    }

    proptest! {
        #[test]
        fn any_body_comes_back_however_it_is_cut(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            extension in "(;[a-z=\" ]{0,20})?",
            trailers in "([a-z]{1,5}: [a-z]{0,9}\r\n){0,3}",
            cuts in proptest::collection::vec(1_usize..50, 1..8),
            take in 1_usize..64,
        ) {
            let input = encode(&chunks, &extension, &trailers);
            let expected = chunks.concat();
            prop_assert_eq!(decode(&input, &cuts, take).unwrap(), (expected.clone(), true));
            prop_assert_eq!(decode(&input, &[1], 1).unwrap(), (expected.clone(), true));
            for length in 0..input.len() {
                let (data, ended) = decode(&input[..length], &cuts, take).unwrap();
                prop_assert!(!ended && expected.starts_with(&data));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(input in proptest::collection::vec(any::<u8>(), 0..200), cut in 1_usize..50) {
            drop(decode(&input, &[cut], 7));
        }
    }

    #[test]
    fn what_is_not_exactly_the_coding_is_refused() {
        let long = format!("1;{}\r\n", "x".repeat(EXTENSION_BYTES + 1));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(TRAILER_BYTES));
        for input in [
            "\r\n",
            ";x\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1\n",
            "1\rx",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1000000000000000\r\n",
            "ffffffffffffffffff\r\n",
            "1;a\nb\r\n",
            "1;\0\r\n",
            "0\r\na\n\r\n",
            "0\r\n\n",
            "0\r\n\rx",
            &long,
            &trailers,
        ] {
            assert!(decode(input.as_bytes(), &[3], 9).is_err(), "{input:?}");
        }
        assert_eq!(
            decode(b"1 \r\na\r\n0\r\n\r\nrest", &[2], 9).unwrap(),
            (b"a".to_vec(), true)
        );
    }
}
