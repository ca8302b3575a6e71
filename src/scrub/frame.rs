//! Finds where a JSON value ends in bytes that are still arriving.

use super::text::plain_prefix;

/// Finds the end of one object or array, going over each byte once however it arrives.
///
/// It only counts brackets outside strings; whether the value is valid is the filter's to judge.
#[derive(Clone, Debug, Default)]
pub struct Framer {
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Framer {
    /// The length of the value at the start of `filled`, once all of it is there.
    ///
    /// Leading white space counts as part of the value. Call it again with the same bytes and
    /// more behind them; after an end was found it starts anew, at what follows.
    pub fn end(&mut self, filled: &[u8]) -> Option<usize> {
        while let Some(byte) = filled.get(self.scanned) {
            if self.escaped {
                self.escaped = false;
            } else if self.in_string {
                let rest = filled.get(self.scanned..).unwrap_or_default();
                let plain = plain_prefix(rest);
                if plain > 0 {
                    self.scanned += plain;
                    continue;
                }
                match byte {
                    b'"' => self.in_string = false,
                    b'\\' => self.escaped = true,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            let end = self.scanned + 1;
                            *self = Self::default();
                            return Some(end);
                        }
                    }
                    _ => {}
                }
            }
            self.scanned += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_at_whatever_place_it_is_cut() {
        let text = br#" {"a":"}\"]\\","b":[{"c":"\\\""}]}{"next":1}"#;
        let end = text.len() - br#"{"next":1}"#.len();
        for cut in 0..text.len() {
            let mut framer = Framer::default();
            let early = framer.end(&text[..cut]);
            assert_eq!(early, (cut >= end).then_some(end), "{cut}");
            if early.is_none() {
                assert_eq!(framer.end(text), Some(end), "{cut}");
            }
            assert_eq!(framer.end(&text[end..]), Some(text.len() - end));
        }
    }
}
