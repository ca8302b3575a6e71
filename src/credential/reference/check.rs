//! What the pieces of a reference may be: what a server could read in another way is refused.

use super::ReferenceError;
use super::error::expected;
use super::parameters::Piece;

/// Longest name of a project, secret, bucket, region or version, in bytes.
const NAME_BYTES: usize = 255;

/// Longest label of a DNS name, in bytes: RFC 1123 §2.1.
const LABEL_BYTES: usize = 63;

/// Longest name or ARN of a secret of AWS, in bytes.
const AWS_NAME_BYTES: usize = 2048;

/// Whether a path may have empty segments.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    /// They count, as in the name of an object.
    Kept,
    Refused,
}

/// A path without dot segments.
pub(super) fn path(piece: Piece, empty: Empty) -> Result<String, ReferenceError> {
    no_dots(&piece)?;
    let is_empty = piece.text.split('/').any(str::is_empty);
    if piece.text.is_empty() || (is_empty && empty == Empty::Refused) {
        return Err(expected(piece.at, "a path without empty segments"));
    }
    Ok(piece.text)
}

fn no_dots(piece: &Piece) -> Result<(), ReferenceError> {
    let is_dot = |segment: &str| matches!(segment, "." | "..");
    if piece.text.split('/').any(is_dot) {
        return Err(expected(piece.at, "a path without `.` and `..` segments"));
    }
    Ok(())
}

/// The name of a bucket; it may become part of a host's name.
pub(super) fn bucket(piece: Piece) -> Result<String, ReferenceError> {
    let what = "a bucket: letters, digits, `-`, `_` and `.`";
    word(piece, NAME_BYTES, b"-_.", what)
}

/// A region of AWS; it becomes part of a host's name.
pub(super) fn region(piece: Piece) -> Result<String, ReferenceError> {
    let what = "a region: letters, digits and `-`";
    word(piece, LABEL_BYTES, b"-", what)
}

/// Number or id of a project, perhaps with its domain.
pub(super) fn project(piece: Piece) -> Result<String, ReferenceError> {
    let what = "a project: letters, digits, `-`, `.` and `:`";
    word(piece, NAME_BYTES, b"-.:", what)
}

/// Id or version of a secret.
pub(super) fn id(piece: Piece) -> Result<String, ReferenceError> {
    let what = "letters, digits, `-` and `_`";
    word(piece, NAME_BYTES, b"-_", what)
}

/// A stage of a secret of AWS.
pub(super) fn stage(piece: Piece) -> Result<String, ReferenceError> {
    let what = "a stage: letters, digits and `/_+=.@-`";
    word(piece, NAME_BYTES, b"/_+=.@-", what)
}

/// Name or ARN of a secret of AWS.
pub(super) fn aws_name(piece: Piece) -> Result<String, ReferenceError> {
    let what = "a name or ARN: letters, digits and `/_+=.@!:-`";
    no_dots(&piece)?;
    word(piece, AWS_NAME_BYTES, b"/_+=.@!:-", what)
}

/// The name of a namespace.
pub(super) fn namespace(piece: Piece) -> Result<String, ReferenceError> {
    if is_label(&piece.text) {
        return Ok(piece.text);
    }
    Err(expected(piece.at, "the name of a namespace"))
}

/// The name of a Secret.
pub(super) fn secret_name(piece: Piece) -> Result<String, ReferenceError> {
    if piece.text.len() <= NAME_BYTES && piece.text.split('.').all(is_label) {
        return Ok(piece.text);
    }
    Err(expected(
        piece.at,
        "the name of a Secret: lower-case letters, digits, `-` and `.`",
    ))
}

/// A version of a key-value store.
pub(super) fn number(piece: &Piece) -> Result<u64, ReferenceError> {
    let digits = piece.text.bytes().all(|byte| byte.is_ascii_digit());
    let number = piece.text.parse().ok();
    number
        .filter(|number| digits && *number > 0)
        .ok_or_else(|| expected(piece.at, "a positive number"))
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=LABEL_BYTES).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn word(
    piece: Piece,
    max: usize,
    also: &[u8],
    what: &'static str,
) -> Result<String, ReferenceError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || also.contains(&byte);
    let is_dots = matches!(piece.text.as_str(), "." | "..");
    let good = (1..=max).contains(&piece.text.len()) && piece.text.bytes().all(fits) && !is_dots;
    if good {
        return Ok(piece.text);
    }
    Err(expected(piece.at, what))
}
