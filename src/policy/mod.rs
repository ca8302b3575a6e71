//! What may be read, done and seen: levels of kinds, operations, client bindings, scrub rules.
//!
//! ```text
//! policies/*.yaml ──load──▶ Rules{levels, scrub} ─┐
//! account settings ───────────────────────────────┴─▶ AccountPolicy
//! discovery's Kind ──AccountPolicy::allow──▶ AllowedKind
//! Target, AllowedKind ──AccountPolicy::permits──▶ Decision
//! client, account ──authorize──▶ Decision
//! AccountPolicy, known kinds ──rights──▶ Rights: what the agent needs in the cluster
//! ```
//! # Invariants
//! - What no rule names is denied (tests: `account::tests`, `bindings::tests`).
//! - Only [`AccountPolicy::allow`] makes an [`AllowedKind`] (enforced by: private fields).
//! - A masked kind is allowed only where it is named, never by `*` (test:
//!   `a_masked_kind_must_be_named`).
//! - The rules that ship always mask the core group's `secrets` (enforced by: [`load`]).
//! # Failure
//! - Rules that cannot be read stop the start: [`LoadError`].
//! # Sources
//! - Kubernetes API concepts, "API verbs"; Authorization overview, "Request verbs".

#![deny(clippy::wildcard_enum_match_arm)]

mod account;
mod bindings;
mod decision;
mod kinds;
mod known;
mod load;
mod name;
mod rights;
mod rules;

pub use account::{
    AccountPolicy, AccountSettings, AllowedKind, CREATED_BY_UPDATE, Level, NamespacePattern,
    OperationRule,
};
pub use bindings::{Bindings, Question, authorize};
pub use decision::{Decision, Denial};
pub use kinds::{KindPattern, PatternError};
pub use known::known_kinds;
pub use load::{LoadError, Rules, load};
pub use name::is_account_name;
pub use rights::{PolicyRule, Rights, UnknownKinds};
pub use rules::{Levels, MaskedKind, ScrubRules};

/// Version of what the byte filter does with its rules; part of every policy digest.
///
/// Raised whenever the filter's output for some object changes, so that stored state that an
/// older filter made is read again.
pub const FILTER_VERSION: u32 = 1;
