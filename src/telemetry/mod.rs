//! Logs, metrics, health endpoints and the findings of a check.
//!
//! ```text
//! tracing events ─▶ log (text or JSON, to stderr)      latches ─▶ /readyz   source ─▶ /metrics
//! ```
//! # Invariants
//! - Other crates' events below WARN are never written, whatever level is asked for: some of them
//!   print bodies (enforced by: `log::filter`, test there).
//! - `/livez` depends on nothing; `/readyz` names what it waits for.

pub mod finding;
pub mod health;
pub mod log;
pub mod metrics;

mod accepting;
mod serve;

pub use accepting::Accepting;
