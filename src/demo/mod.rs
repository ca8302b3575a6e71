//! A small in-memory Kubernetes API and an auditor around a real agent and a real hub, and a board
//! that shows them.
//!
//! ```text
//! cluster (workload, planted values) ══▶ agent ══▶ hub ══▶ facade
//!    │                                                        │
//!    └──────────────▶ audit (reader of its own) ◀─────────────┘──▶ Report
//!                          all of them ──figures──▶ board
//! ```
//! # Invariants
//! - What is judged is not used: neither the cluster nor the auditor touches `scrub`, `stream`,
//!   `view` or `identity` (enforced by: `tests/architecture.rs`).
//! - Everything runs as [`Tasks`](crate::tasks::Tasks) that are handed in, and ends with them.

pub mod audit;
pub mod board;
mod canary;
pub mod cluster;
mod logs;
mod run;
mod seeded;

pub use audit::Report;
pub use canary::Canary;
pub use logs::Logs;
pub use run::{AGENT_TTL, Progress, RunError, Settings, Source, run};
pub use seeded::Seeded;
