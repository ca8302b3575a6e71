//! Sortie: certified agents beside private Kubernetes clusters, and the hub they dial.
//!
//! ```text
//!  secret engines            target cluster(s)                              Spinnaker side
//!      │ fetch                 ▲ ▲ list/watch bytes                              │ HTTPS, mTLS
//!      ▼                       │ │                                               ▼
//!  ┌─────────────── agent ─────┼─┼─────────────┐   outbound mTLS    ┌─────── hub ─────────┐
//!  │ credential ─▶ cluster ────┘ └▶ scrub ─▶ stream ═════════════▶ session ─▶ view ─▶ facade
//!  └────────────────────────────────────────────┘                  └─────────────────────┘
//! ```
//! Each folder is a room with one job; `tests/architecture.rs` holds which room may use which,
//! and `docs/architecture.md` walks through them.

pub mod agent;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod credential;
pub mod demo;
pub mod entropy;
pub mod facade;
pub mod fault;
pub mod hub;
pub mod identity;
pub mod limits;
pub mod ops;
pub mod policy;
pub mod resource;
pub mod retry;
pub mod scrub;
pub mod secret;
pub mod stream;
pub mod tasks;
pub mod telemetry;
pub mod view;
pub mod wire;
pub mod yaml;
