//! The whole path on real servers: API server, agent, hub, kubectl.

#[path = "../support/mod.rs"]
mod support;

mod memory;
mod rotation;
mod smoke;
