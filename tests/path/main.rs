//! The whole path on real servers: API server, agent, hub, kubectl.

#[path = "../support/mod.rs"]
mod support;

#[cfg(test)]
mod aws;
mod backup;
#[cfg(test)]
mod check;
#[cfg(all(feature = "aws", feature = "google"))]
#[cfg(test)]
mod cold;
#[cfg(test)]
mod creation;
mod crowded;
#[cfg(test)]
mod cut_over;
#[cfg(test)]
mod demo;
mod disk;
#[cfg(test)]
mod engine_file;
#[cfg(test)]
mod engine_k8s;
mod engines;
#[cfg(test)]
mod google;
#[cfg(test)]
mod half_open;
#[cfg(test)]
mod helm;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod killed_amid;
#[cfg(test)]
mod kinds;
#[cfg(test)]
mod kubeconfig_users;
#[cfg(test)]
mod kubeconfigs;
mod kubectl;
#[cfg(test)]
mod ladder;
#[cfg(test)]
mod leaks;
#[cfg(test)]
mod let_go;
mod matrix;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod neighbours;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod own_certificate;
mod rbac;
#[cfg(test)]
mod references;
mod refusals;
mod refused_again;
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
mod taken_away;
#[cfg(test)]
mod vault;
#[cfg(test)]
mod watch;
