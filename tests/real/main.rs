//! Proves that the servers the other tests rely on are real, reachable and gone afterwards.

#[path = "../support/mod.rs"]
mod support;

mod double;
mod openbao;
mod relay;
mod scan;
mod testbed;
