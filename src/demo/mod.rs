//! A small in-memory Kubernetes API and an auditor around a real agent and a real hub.

pub mod audit;
mod canary;
pub mod cluster;
mod seeded;

pub use canary::Canary;
pub use seeded::Seeded;
