//! Finds the mask in a text, however it is encoded.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use memchr::memmem::Finder;
use zeroize::Zeroizing;

use super::text;

/// JSON texts in JSON texts that are looked into, in levels.
const ESCAPE_LEVELS: usize = 8;

/// Everything that the mask can look like inside another text.
#[derive(Debug)]
pub(super) struct Needles {
    /// The mask, and its base64, and the base64 of that, at every alignment and in both alphabets.
    exact: Vec<Finder<'static>>,
    /// Its hexadecimal digits, in lower case.
    hex: Finder<'static>,
    /// Length of the shortest of them, in bytes.
    shortest: usize,
}

impl Needles {
    /// Prepares the search for `mask`.
    pub(super) fn new(mask: &str) -> Self {
        let once = interiors(mask.as_bytes());
        let twice = once.iter().flat_map(|needle| interiors(needle));
        let mut exact: Vec<Vec<u8>> = vec![mask.as_bytes().to_vec()];
        exact.extend(twice);
        exact.extend(once);
        exact.sort();
        exact.dedup();
        Self {
            shortest: exact.iter().map(Vec::len).min().unwrap_or(0),
            exact: exact
                .iter()
                .map(|needle| Finder::new(needle).into_owned())
                .collect(),
            hex: Finder::new(&hex::encode(mask)).into_owned(),
        }
    }

    /// Whether `text` contains the mask: plainly, in base64 or hexadecimal (with or without line
    /// breaks), or inside escaped text.
    pub(super) fn are_in(&self, text: &[u8]) -> bool {
        if text.len() < self.shortest {
            return false;
        }
        if self.are_on_the_surface(text) {
            return true;
        }
        let mut level = Zeroizing::new(Vec::new());
        for _ in 0..ESCAPE_LEVELS {
            let source = if level.is_empty() { text } else { &level };
            if !source.contains(&b'\\') {
                return false;
            }
            let mut next = Zeroizing::new(Vec::with_capacity(source.len()));
            text::unescape(source, &mut next);
            if self.are_on_the_surface(&next) {
                return true;
            }
            if next.len() == source.len() {
                return false;
            }
            level = next;
        }
        // Deeper than anybody nests by accident, so what is there cannot be told.
        level.contains(&b'\\')
    }

    fn are_on_the_surface(&self, text: &[u8]) -> bool {
        let mut spaceless = Zeroizing::new(Vec::with_capacity(text.len()));
        spaceless.extend(text.iter().filter(|byte| !byte.is_ascii_whitespace()));
        let found = |text: &[u8]| self.exact.iter().any(|needle| needle.find(text).is_some());
        if found(text) || (spaceless.len() < text.len() && found(&spaceless)) {
            return true;
        }
        spaceless.make_ascii_lowercase();
        self.hex.find(&spaceless).is_some()
    }
}

/// The characters of base64 that `bytes` alone decide, whatever stands before and behind them.
fn interiors(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for shift in 0..3 {
        let mut padded = vec![0; shift];
        padded.extend_from_slice(bytes);
        padded.resize(padded.len().next_multiple_of(3), 0);
        let first = (shift * 8).div_ceil(6);
        let last = (shift + bytes.len()) * 8 / 6;
        for encoded in [STANDARD.encode(&padded), URL_SAFE.encode(&padded)] {
            found.extend(encoded.as_bytes().get(first..last).map(<[u8]>::to_vec));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MASK: &str = "sortie.dev/secret-masked:v1";

    proptest! {
        #[test]
        fn no_encoding_hides_the_mask(
            before in proptest::collection::vec(any::<u8>(), 0..20),
            after in proptest::collection::vec(any::<u8>(), 0..20),
            width in 20usize..90,
        ) {
            let needles = Needles::new(MASK);
            let text = [&before[..], MASK.as_bytes(), &after].concat();
            prop_assert!(needles.are_in(&text));
            let once = STANDARD.encode(&text);
            prop_assert!(needles.are_in(once.as_bytes()));
            prop_assert!(needles.are_in(URL_SAFE.encode(&text).as_bytes()));
            prop_assert!(needles.are_in(STANDARD.encode(&once).as_bytes()));
            prop_assert!(needles.are_in(hex::encode(&text).as_bytes()));
            prop_assert!(needles.are_in(hex::encode_upper(&text).as_bytes()));
            let lines: Vec<&[u8]> = once.as_bytes().chunks(width).collect();
            prop_assert!(needles.are_in(&lines.join(&b'\n')));
        }

        #[test]
        fn what_lacks_the_mask_passes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!Needles::new(MASK).are_in(&text));
        }
    }

    #[test]
    fn escapes_do_not_hide_the_mask() {
        let mut text: String = MASK
            .chars()
            .flat_map(|c| format!("\\u{:04x}", u32::from(c)).into_bytes())
            .map(char::from)
            .collect();
        for _ in 0..4 {
            assert!(Needles::new(MASK).are_in(text.as_bytes()), "{text}");
            text = serde_json::to_string(&text).unwrap();
        }
    }
}
