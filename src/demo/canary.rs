//! A secret value that was planted so that it can be looked for.

use std::fmt;

/// A planted value and where it was put.
#[derive(Clone, PartialEq, Eq)]
pub struct Canary {
    /// `namespace/name/key` of its Secret, or its number where values are drawn beforehand.
    pub place: String,
    /// The value itself, before any encoding.
    pub value: Vec<u8>,
}

impl fmt::Debug for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Canary").field(&self.place).finish()
    }
}
