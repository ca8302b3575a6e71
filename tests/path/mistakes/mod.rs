//! The mistakes of the first hour, and what a person sees of each: text and exit code.
//!
//! Each file here plays the mistakes of one theme with the built program and compares what was
//! shown with `tests/golden/mistakes/THEME-NAME.txt`. `SORTIE_GOLDEN=write` writes them anew; read
//! them then as somebody who has never seen the program: what was attempted, on what, why it did
//! not work, what to do. `tests/cli` holds the operator guide against the same files.

mod accounts;
mod configuration;
mod facade;
mod joining;
mod page;
mod start;
