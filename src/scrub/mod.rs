//! Removes Secret values from Kubernetes JSON while the bytes pass; the only maker of `Scrubbed`.
//!
//! ```text
//! list bytes  ──ListScanner──▶ item ─┐
//! watch bytes ──Framer───────▶ line ─┴─Filter──▶ Object / WatchEvent ──▶ Scrubbed
//! answer bytes ──AnswerFilter──────────────────────────────────────────▶ Scrubbed
//! request body ──check_request──▶ RequestPlan, or refused: it holds the mask
//! ```
//! # Invariants
//! - Only this room makes a [`Scrubbed`] (enforced by: private field).
//! - What is masked is decided by the resource that was asked for, never by a body (enforced by:
//!   constructors take a [`Gvr`](crate::resource::Gvr) or a [`Target`](crate::resource::Target)).
//! - A masked kind passes by allow-lists: unknown fields, annotations and columns go (test:
//!   `tests::a_planted_value_never_leaves`).
//! - What is not masked is copied byte for byte (test: `tests::other_kinds_lose_only_managed_fields`).
//! - The filter agrees with a slow one over a parsed tree (test:
//!   `tests::it_agrees_with_the_slow_filter`).
//! # Failure
//! - What is not strict JSON, too deep, too large, or does not say who it is → [`Refused`], with
//!   the identity where it was read before the flaw; nothing of the text passes. The caller
//!   counts it and sends the identity.
//! - An answer that cannot be filtered → [`Unfilterable`]; the caller answers 502, or an error with
//!   its code alone ([`bare_status`]).
//! # Sources
//! - RFC 8259 (JSON), RFC 6901 (JSON pointer), RFC 6902 (JSON patch); Kubernetes API concepts,
//!   "Efficient detection of changes", "Receiving resources as Tables", "Server-side apply".

#![deny(clippy::wildcard_enum_match_arm)]

mod answer;
mod copier;
mod filter;
mod frame;
mod json;
mod list;
mod needles;
mod object;
mod patch;
mod request;
mod restore;
mod shapes;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod trail;

use bytes::Bytes;
use thiserror::Error;

pub use answer::{AnswerFilter, Unfilterable};
pub use filter::{Filter, Object, WatchEvent};
pub use frame::Framer;
pub use list::{ListEnd, ListScanner, ListStep};
pub use request::{BodyRefused, RequestPlan, check_request};
pub use restore::{RestoreError, restore_last_applied};
pub use status::bare_status;
pub use trail::Trail;

use crate::resource::Identity;
use json::Flaw;

/// Bytes that have been through the filter. There is no other constructor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrubbed(Bytes);

impl Scrubbed {
    /// The filtered bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The filtered bytes, without copying them.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// A text that is not filtered, so nothing of it passes.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("filtering an object or answer: {label}")]
pub struct Refused {
    /// Closed name of the reason, for logs and metrics.
    pub label: &'static str,
    /// Whose text it was, if that was read before the flaw.
    pub identity: Option<Identity>,
    /// Whether the text told that the object is gone.
    pub deleted: bool,
}

impl From<Flaw> for Refused {
    fn from(flaw: Flaw) -> Self {
        Self {
            label: flaw.label(),
            identity: None,
            deleted: false,
        }
    }
}
