//! The rules that ship with the program, as types.

use super::KindPattern;
use crate::resource::Gvr;

/// Levels of kinds where the configuration does not say otherwise.
#[derive(Clone, Debug)]
pub struct Levels {
    pub(super) cached: Vec<KindPattern>,
    pub(super) live: Vec<KindPattern>,
    pub(super) reviews: Vec<KindPattern>,
}

/// What the byte filter removes.
#[derive(Debug)]
pub struct ScrubRules {
    pub(super) mask: String,
    pub(super) mask_base64: String,
    pub(super) feed_drops: Vec<String>,
    pub(super) masked: Vec<MaskedKind>,
    pub(super) digest: [u8; 32],
}

impl ScrubRules {
    /// The constant in place of a masked value.
    pub fn mask(&self) -> &str {
        &self.mask
    }

    /// Base64 of [`ScrubRules::mask`], without padding by its length.
    pub fn mask_base64(&self) -> &str {
        &self.mask_base64
    }

    /// Fields of `metadata` that feeds leave out.
    pub fn feed_drops(&self) -> &[String] {
        &self.feed_drops
    }

    /// How objects at `gvr` are masked; `None` if they are not. The version does not matter.
    pub fn masked(&self, gvr: &Gvr) -> Option<&MaskedKind> {
        let mut kinds = self.masked.iter();
        kinds.find(|kind| kind.group == gvr.group && kind.resource == gvr.resource)
    }

    /// SHA-256 of the rules' text.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// How objects of one kind are masked. Every list names what is masked or kept; the rest goes.
#[derive(Debug)]
pub struct MaskedKind {
    /// E.g. `Secret`.
    pub kind: String,
    /// Empty for the core group.
    pub group: String,
    /// E.g. `secrets`.
    pub resource: String,
    /// Fields whose values are masked by the constant's base64.
    pub base64_values: Vec<String>,
    /// Fields whose values are masked by the constant.
    pub plain_values: Vec<String>,
    /// Fields that are kept if they hold a single value.
    pub fields: Vec<String>,
    /// Fields of `metadata` that are kept.
    pub metadata: Vec<String>,
    /// Table columns whose cells are kept.
    pub columns: Vec<String>,
    /// The annotation that holds a whole object as JSON text.
    pub last_applied: String,
    /// Annotations that are kept.
    pub annotations: Vec<String>,
}
