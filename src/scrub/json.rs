//! A strict cursor over one JSON text: it skips what nobody asked for and builds nothing.
//!
//! RFC 8259 without leniency: valid UTF-8, valid escapes (no lone surrogates), valid numbers, no
//! control characters in strings, nothing after the value, bounded depth.

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::text::{hex_unit, plain_prefix, unescape};
use crate::limits;

/// Why a text is not filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Nested deeper than [`limits::JSON_DEPTH`].
    Depth,
    /// A field that decides what the object is occurs twice.
    Duplicate,
    /// A field that identifies the object is missing or not text.
    Identity,
    /// Valid JSON of a shape that is not expected here.
    Shape,
    /// Not JSON.
    Syntax,
    /// Larger than [`limits::RAW_OBJECT_BYTES`].
    TooLarge,
    /// Ends too early.
    Truncated,
    /// Not UTF-8.
    Utf8,
    /// A resourceVersion that is not a decimal number.
    Version,
}

impl Flaw {
    /// Closed name for logs and metrics.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Depth => "depth",
            Self::Duplicate => "duplicate",
            Self::Identity => "identity",
            Self::Shape => "shape",
            Self::Syntax => "syntax",
            Self::TooLarge => "too_large",
            Self::Truncated => "truncated",
            Self::Utf8 => "utf8",
            Self::Version => "version",
        }
    }
}

/// Where the content of a string stands, without its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    pub(super) start: usize,
    pub(super) end: usize,
    escaped: bool,
}

/// A member of an object, up to its colon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// Where the comma before it stands, or the place after the opening brace.
    pub(super) separator: usize,
    /// Whether it is the object's first.
    pub(super) first: bool,
    pub(super) key: Text,
}

/// A position in one JSON text.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `input`.
    pub(super) fn new(input: &'a [u8]) -> Result<Self, Flaw> {
        if std::str::from_utf8(input).is_err() {
            return Err(Flaw::Utf8);
        }
        Ok(Self {
            input,
            at: 0,
            depth: 0,
        })
    }

    /// The whole text.
    pub(super) const fn input(&self) -> &'a [u8] {
        self.input
    }

    /// Where the cursor stands.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// The next byte that is not white space; the cursor stands on it.
    #[inline]
    pub(super) fn peek(&mut self) -> Result<u8, Flaw> {
        match self.input.get(self.at) {
            Some(byte) if *byte > b' ' => Ok(*byte),
            Some(_) | None => self.peek_behind_space(),
        }
    }

    #[cold]
    fn peek_behind_space(&mut self) -> Result<u8, Flaw> {
        loop {
            match self.input.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(Flaw::Truncated),
            }
        }
    }

    #[inline]
    fn expect(&mut self, wanted: u8) -> Result<(), Flaw> {
        if self.peek()? != wanted {
            return Err(Flaw::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    /// Checks that nothing but white space is left.
    pub(super) fn finish(&mut self) -> Result<(), Flaw> {
        match self.peek() {
            Ok(_) => Err(Flaw::Syntax),
            Err(_end) => Ok(()),
        }
    }

    /// Enters the object (`{`) or array (`[`) that the cursor stands before.
    #[inline]
    pub(super) fn enter(&mut self, bracket: u8) -> Result<(), Flaw> {
        match self.peek()? {
            byte if byte == bracket => {}
            _ => return Err(Flaw::Shape),
        }
        if self.depth == limits::JSON_DEPTH {
            return Err(Flaw::Depth);
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Goes to the next member's value, or leaves the object. `first` starts as true.
    #[inline]
    pub(super) fn member(&mut self, first: &mut bool) -> Result<Option<Member>, Flaw> {
        let mut separator = self.at;
        let is_first = *first;
        let next = self.peek()?;
        if next == b'}' {
            self.at += 1;
            self.depth -= 1;
            return Ok(None);
        }
        if !is_first {
            separator = self.at;
            self.expect(b',')?;
        }
        *first = false;
        let key = self.string()?;
        self.expect(b':')?;
        self.peek()?;
        Ok(Some(Member {
            separator,
            first: is_first,
            key,
        }))
    }

    /// Goes to the next element and returns its index, or leaves the array. `count` starts at 0.
    pub(super) fn element(&mut self, count: &mut usize) -> Result<Option<usize>, Flaw> {
        if self.peek()? == b']' {
            self.at += 1;
            self.depth -= 1;
            return Ok(None);
        }
        if *count > 0 {
            self.expect(b',')?;
            self.peek()?;
        }
        let index = *count;
        *count += 1;
        Ok(Some(index))
    }

    /// Reads the string that the cursor stands before.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Text, Flaw> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = self.input.get(self.at..).unwrap_or_default();
            self.at += plain_prefix(rest);
            match self.input.get(self.at) {
                Some(b'"') => {
                    let end = self.at;
                    self.at += 1;
                    return Ok(Text {
                        start,
                        end,
                        escaped,
                    });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(Flaw::Syntax),
                None => return Err(Flaw::Truncated),
            }
        }
    }

    /// Checks the escape that the cursor stands on and goes behind it.
    fn escape(&mut self) -> Result<(), Flaw> {
        let rest = self.input.get(self.at + 1..).unwrap_or_default();
        match rest.first() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let unit = hex_unit(rest.get(1..5))?;
                self.at += 6;
                if (0xDC00..0xE000).contains(&unit) {
                    return Err(Flaw::Syntax);
                }
                if (0xD800..0xDC00).contains(&unit) {
                    let low = match rest.get(5..7) {
                        Some(b"\\u") => hex_unit(rest.get(7..11))?,
                        Some(_) | None => return Err(Flaw::Syntax),
                    };
                    if !(0xDC00..0xE000).contains(&low) {
                        return Err(Flaw::Syntax);
                    }
                    self.at += 6;
                }
            }
            Some(_) => return Err(Flaw::Syntax),
            None => return Err(Flaw::Truncated),
        }
        Ok(())
    }

    /// Checks one value of any type and goes behind it.
    pub(super) fn skip(&mut self) -> Result<(), Flaw> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' => self.skip_object(),
            b'[' => self.skip_array(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(Flaw::Syntax),
        }
    }

    fn skip_object(&mut self) -> Result<(), Flaw> {
        self.enter(b'{')?;
        if self.peek()? != b'}' {
            loop {
                self.string()?;
                self.expect(b':')?;
                self.skip()?;
                match self.peek()? {
                    b',' => self.at += 1,
                    b'}' => break,
                    _ => return Err(Flaw::Syntax),
                }
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    fn skip_array(&mut self) -> Result<(), Flaw> {
        self.enter(b'[')?;
        if self.peek()? != b']' {
            loop {
                self.skip()?;
                match self.peek()? {
                    b',' => self.at += 1,
                    b']' => break,
                    _ => return Err(Flaw::Syntax),
                }
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Flaw> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(Flaw::Syntax);
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Flaw> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            Some(_) => return Err(Flaw::Syntax),
            None => return Err(Flaw::Truncated),
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn byte(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    fn digits(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            return Err(Flaw::Syntax);
        }
        Ok(())
    }

    /// The bytes of a string as they stand in the text.
    pub(super) fn raw(&self, text: Text) -> &'a [u8] {
        self.input.get(text.start..text.end).unwrap_or_default()
    }

    /// Whether a string, decoded, is `wanted`.
    #[inline]
    pub(super) fn is(&self, text: Text, wanted: &str) -> bool {
        if text.escaped {
            *self.decoded(text) == wanted.as_bytes()
        } else {
            self.raw(text) == wanted.as_bytes()
        }
    }

    /// Whether a string, decoded, is one of `wanted`.
    pub(super) fn is_any(&self, text: Text, wanted: &[String]) -> bool {
        if text.escaped {
            let decoded = self.decoded(text);
            wanted.iter().any(|known| *decoded == known.as_bytes())
        } else {
            let raw = self.raw(text);
            wanted.iter().any(|known| raw == known.as_bytes())
        }
    }

    /// The decoded bytes of a key; keys are not secret.
    pub(super) fn decoded_key(&self, text: Text) -> Cow<'a, [u8]> {
        if text.escaped {
            Cow::Owned(self.decoded(text).to_vec())
        } else {
            Cow::Borrowed(self.raw(text))
        }
    }

    /// The decoded bytes of a string.
    pub(super) fn decoded(&self, text: Text) -> Zeroizing<Vec<u8>> {
        let mut decoded = Zeroizing::new(Vec::with_capacity(text.end - text.start));
        unescape(self.raw(text), &mut decoded);
        decoded
    }

    /// A string that is not secret, decoded.
    pub(super) fn owned(&self, text: Text) -> String {
        if text.escaped {
            String::from_utf8_lossy(&self.decoded(text)).into_owned()
        } else {
            String::from_utf8_lossy(self.raw(text)).into_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &[u8]) -> bool {
        let Ok(mut reader) = Reader::new(text) else {
            return false;
        };
        reader.skip().is_ok() && reader.finish().is_ok()
    }

    #[test]
    fn only_strict_json_is_accepted() {
        for good in [
            "{}",
            " [1,-0.5e+9,\"\\ud83d\\ude00\\/\"] ",
            "null",
            "1e999999",
            "\"\u{e9}\"",
        ] {
            assert!(accepts(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "{",
            "{}x",
            "{}{}",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "nul",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud800\\u0041\"",
            "\"a\nb\"",
            "'a'",
            "NaN",
            "[1 2]",
            "{\"a\" 1}",
            "\u{feff}{}",
            "\"abc",
            "//x\n1",
        ] {
            assert!(!accepts(bad.as_bytes()), "{bad}");
        }
        assert!(!accepts(b"\"\xff\""));
    }

    #[test]
    fn depth_is_bounded_exactly() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(accepts(&nested(limits::JSON_DEPTH)));
        assert!(!accepts(&nested(limits::JSON_DEPTH + 1)));
        assert!(!accepts(&vec![b'['; 1_000_000]));
    }

    proptest! {
        #[test]
        fn it_accepts_what_serde_accepts(text in "[\\[\\]{}:,\"a1\\\\u0-9.eE+\\- tn]{0,12}") {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            let is_range = theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
            prop_assert!(is_range || accepts(text.as_bytes()) == theirs.is_ok(), "{}", text);
        }
    }
}
