//! A small in-memory Kubernetes API over real TCP and TLS, with workloads that keep changing.
//!
//! ```text
//! socket ─▶ TLS ─▶ token ─▶ route ─▶ list · get · write · watch ─▶ store ─▶ watchers
//!                                                                    ▲
//!                                               workload (ticks, controllers)
//! ```
//! # Invariants
//! - One version counts all changes; a watcher is told every change of its collection in order,
//!   or its watch ends (enforced by: `store`, which queues under the lock that counts).
//! - What a reader sees is what kube-apiserver would show for the same requests, for the kinds in
//!   `kinds`. Left out: custom resources, field ownership (an apply merges), protobuf bodies
//!   (415) and printed tables (a plain list, which kubectl prints as name and age).
//! - Every planted value is known to [`Cluster::planted`].
//! # Failure
//! - A request that is not understood → a `Status` with the reason kube-apiserver gives.
//! # Sources
//! - Kubernetes API concepts ("Efficient detection of changes", "Retrieving large results sets in
//!   chunks", "Resource versions"), API conventions ("Response Status Kind").

mod answers;
mod api;
mod controllers;
mod discovery;
mod fields;
mod kinds;
mod lists;
mod objects;
mod parts;
mod patch;
mod refusal;
mod route;
mod seed;
mod selector;
mod serve;
mod start;
mod store;
mod watching;
mod workload;

pub use start::{Cluster, Running, Settings, StartError};

#[cfg(test)]
mod tests;
