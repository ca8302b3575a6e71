//! The whole path on real servers: API server, agent, hub, kubectl.

#[path = "../support/mod.rs"]
mod support;

mod aws;
mod backup;
#[cfg(test)]
mod check;
mod crowded;
mod cut_over;
#[cfg(test)]
mod demo;
mod disk;
mod engine_file;
mod engine_k8s;
mod engines;
mod google;
#[cfg(test)]
mod half_open;
mod kubeconfig_users;
mod kubeconfigs;
mod kubectl;
#[cfg(test)]
mod leaks;
mod matrix;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod neighbours;
mod rbac;
mod references;
mod refusals;
mod reload;
mod returns;
mod revocation;
mod rolling;
mod rotation;
mod session;
#[cfg(test)]
mod slow_hub;
#[cfg(test)]
mod slow_link;
mod smoke;
mod stopping;
#[cfg(test)]
mod vault;
#[cfg(test)]
mod watch;
