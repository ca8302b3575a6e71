//! The built program as an operator meets it: help, exit codes, output, files.

#[path = "../support/mod.rs"]
mod support;

mod agent;
mod board;
mod guide;
mod help;
mod hub;
mod rbac;
mod reference;
mod references;
#[cfg(test)]
mod watch;
