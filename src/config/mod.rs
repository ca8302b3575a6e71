//! Reads a configuration file into checked settings, and tells every problem at once.
//!
//! ```text
//! file ──load──▶ text ──yaml──▶ Node ──Reader──▶ hub::Settings │ agent::Settings
//!                                        └──▶ ConfigError: FILE:LINE: KEY: what to change
//! ```
//! # Invariants
//! - What a caller gets is complete and within its ranges; no key is ignored (test:
//!   `tests::all_mistakes_are_told_at_once`).
//! - The environment is read in [`source`] only, and only three variables of it (enforced by:
//!   `tests/architecture.rs`).
//! - What is printed holds no secret: a join string's secret and tokens are not part of it (test:
//!   `tests::a_join_secret_is_never_printed`).
//! # Failure
//! - A file that cannot be read or used → [`ConfigError`] → exit code 64.

pub mod agent;
mod error;
pub mod hub;
mod migrate;
mod print;
mod reader;
pub mod source;
#[cfg(test)]
mod tests;
pub mod text;

pub use error::{ConfigError, Problem};
pub use migrate::{Migrated, migrate};
