//! Percent-encoding, RFC 3986 §2.1.

use std::fmt::Write as _;

use super::ReferenceError;
use super::error::expected;

/// Undoes it in `text`, which starts at byte `at`; what comes out is text in one line.
pub(super) fn decode(text: &str, at: usize) -> Result<String, ReferenceError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes().enumerate();
    while let Some((index, byte)) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?.1).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(expected(at + index, "two hexadecimal digits after `%`"));
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    let decoded = String::from_utf8(bytes);
    decoded
        .ok()
        .filter(|text| !text.contains(char::is_control))
        .ok_or_else(|| expected(at, "percent-encoded text in UTF-8, in one line"))
}

/// Percent-encodes everything but the unreserved characters of RFC 3986 §2.3.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else if write!(out, "%{byte:02X}").is_err() {
            break; // a String takes everything
        }
    }
    out
}
