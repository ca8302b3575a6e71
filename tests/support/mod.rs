//! Real servers, real protocols and the tools to disturb them, shared by the test targets.
//!
//! ```text
//!  test ── testbed · openbao · kubectl · sortie ──▶ server ──▶ supervise.py ──▶ the process
//!     ├─── relay (delay, cut, throttle, silence) ──▶ any of them
//!     ├─── double: a Kubernetes API at scale and at fault, in this process
//!     └─── pki · capture · scan · eventually
//! ```
//! # Invariants
//! - Everything listens on 127.0.0.1 at a port the system chose.
//! - A server ends with its handle; with the test process at the latest, even by `kill -9`.
//! - What is prepared once per machine is prepared under a file lock, in `$SORTIE_CACHE`.
//! - A tool that is missing fails the test, with one message; nothing is skipped.
#![allow(
    dead_code,
    reason = "every target that includes this module uses a part of it"
)]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a failure here is the failure of the test that asked"
)]

pub(crate) mod between;
pub(crate) mod cache;
pub(crate) mod capture;
pub(crate) mod cut_over;
pub(crate) mod door;
pub(crate) mod double;
pub(crate) mod eventually;
pub(crate) mod facade;
pub(crate) mod fake;
pub(crate) mod flights;
pub(crate) mod foreign_tls;
pub(crate) mod golden;
pub(crate) mod google;
pub(crate) mod hand_over;
pub(crate) mod https;
pub(crate) mod issuer;
pub(crate) mod kube;
pub(crate) mod kubectl;
pub(crate) mod latency;
pub(crate) mod load;
pub(crate) mod matrix;
pub(crate) mod moto;
pub(crate) mod openbao;
pub(crate) mod pki;
pub(crate) mod planted;
pub(crate) mod playback;
pub(crate) mod pod;
pub(crate) mod process;
pub(crate) mod recording;
pub(crate) mod relay;
pub(crate) mod rolling;
pub(crate) mod scan;
pub(crate) mod server;
pub(crate) mod slow_hub;
pub(crate) mod socks;
pub(crate) mod sortie;
pub(crate) mod stand;
pub(crate) mod testbed;
