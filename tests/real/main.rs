//! Proves that the servers the other tests rely on are real, reachable and gone afterwards.

#[path = "../support/mod.rs"]
mod support;

mod capture;
mod double;
mod foreign_tls;
mod openbao;
mod pki;
mod relay;
mod scan;
mod supervisor;
mod testbed;
