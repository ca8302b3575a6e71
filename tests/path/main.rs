//! The whole path on real servers: API server, agent, hub, kubectl.

#[path = "../support/mod.rs"]
mod support;

mod demo;
mod engines;
mod kubectl;
mod memory;
mod refusals;
mod returns;
mod revocation;
mod rotation;
mod slow_link;
mod smoke;
