//! What strings of a JSON text are made of: escapes, quotes and everything between.

use super::json::Flaw;

/// Decodes the escapes of `raw`; what is not a valid escape stays as it is.
///
/// The output is never longer than `raw`, so `out` does not grow if it has that capacity.
pub(super) fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let (character, length) = one_escape(tail);
        if let Some(character) = character {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            out.extend_from_slice(tail.get(..length).unwrap_or_default());
        }
        rest = tail.get(length..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// The character of the escape at the start of `tail`, if it is one, and how long it is.
fn one_escape(tail: &[u8]) -> (Option<char>, usize) {
    let simple = match tail.get(1) {
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(tail),
        Some(_) | None => return (None, 1),
    };
    (Some(simple), 2)
}

fn unicode_escape(tail: &[u8]) -> (Option<char>, usize) {
    let Ok(unit) = hex_unit(tail.get(2..6)) else {
        return (None, 1);
    };
    if let Some(character) = char::from_u32(unit) {
        return (Some(character), 6);
    }
    let low = match tail.get(6..8) {
        Some(b"\\u") => hex_unit(tail.get(8..12)).unwrap_or_default(),
        Some(_) | None => 0,
    };
    if (0xD800..0xDC00).contains(&unit) && (0xDC00..0xE000).contains(&low) {
        let code = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        return (char::from_u32(code), 12);
    }
    (None, 1)
}

/// Reads four hexadecimal digits.
pub(super) fn hex_unit(digits: Option<&[u8]>) -> Result<u32, Flaw> {
    let digits = digits.ok_or(Flaw::Truncated)?;
    digits.iter().try_fold(0, |unit, digit| {
        let value = char::from(*digit).to_digit(16).ok_or(Flaw::Syntax)?;
        Ok(unit * 16 + value)
    })
}

/// Appends `text` as a JSON string with its quotes.
pub(super) fn quote(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text;
    loop {
        let plain = plain_prefix(rest);
        out.extend_from_slice(rest.get(..plain).unwrap_or_default());
        let Some(byte) = rest.get(plain).copied() else {
            break;
        };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => {
                out.extend_from_slice(b"\\u00");
                for nibble in [byte >> 4, byte & 15] {
                    out.push(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
                }
            }
        }
        rest = rest.get(plain + 1..).unwrap_or_default();
    }
    out.push(b'"');
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Bytes before the first quote, backslash or control character.
///
/// Short strings are decided eight bytes at a time, long ones are passed over by larger blocks.
#[inline]
pub(super) fn plain_prefix(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut at = 0;
    for _ in 0..4 {
        let Some((chunk, tail)) = rest.split_first_chunk::<8>() else {
            return at + slow_prefix(rest);
        };
        let hits = special_bytes(u64::from_le_bytes(*chunk));
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
        rest = tail;
    }
    at + long_prefix(rest)
}

/// As [`plain_prefix`], for what is probably long.
fn long_prefix(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut at = 0;
    while let Some((block, tail)) = rest.split_first_chunk::<64>() {
        // Without branches, so that the compiler can use vectors.
        let special = |found: bool, byte: &u8| found | is_special(*byte);
        if block.iter().fold(false, special) {
            break;
        }
        at += block.len();
        rest = tail;
    }
    while let Some((chunk, tail)) = rest.split_first_chunk::<8>() {
        let hits = special_bytes(u64::from_le_bytes(*chunk));
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
        rest = tail;
    }
    at + slow_prefix(rest)
}

fn slow_prefix(bytes: &[u8]) -> usize {
    let mut found = bytes.iter();
    found
        .position(|byte| is_special(*byte))
        .unwrap_or(bytes.len())
}

#[expect(
    clippy::needless_bitwise_bool,
    reason = "branches would keep the compiler from looking at many bytes at once"
)]
const fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// Marks the quotes, backslashes and control characters among eight bytes.
///
/// The classic zero-byte tests: a borrow can only mark bytes above a real hit, so the lowest mark
/// is right.
const fn special_bytes(word: u64) -> u64 {
    let quote = word ^ (ONES * 0x22);
    let backslash = word ^ (ONES * 0x5C);
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (quote | backslash | control) & HIGHS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::json::Reader;
    use super::*;

    /// Mostly plain bytes, so that every kind of step is taken.
    fn scannable() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![199 => 0x20u8..0x22, 1 => any::<u8>()];
        proptest::collection::vec(byte, 0..300)
    }

    proptest! {
        #[test]
        fn the_fast_scan_agrees_with_the_slow_one(bytes in scannable()) {
            let slow = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1F));
            prop_assert_eq!(plain_prefix(&bytes), slow.unwrap_or(bytes.len()));
        }

        #[test]
        fn quoting_and_decoding_are_inverse(text in any::<String>()) {
            let mut quoted = Vec::new();
            quote(text.as_bytes(), &mut quoted);
            let mut reader = Reader::new(&quoted).unwrap();
            let found = reader.string().unwrap();
            prop_assert_eq!(&*reader.decoded(found), text.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&quoted).unwrap(), text);
        }
    }
}
