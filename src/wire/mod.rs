//! Generated protobuf types of `proto/sortie/v1`; no logic.

pub(crate) mod codec;

/// Version 1 of the protocol.
pub mod v1 {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::pedantic,
        clippy::nursery,
        clippy::restriction
    )]
    tonic::include_proto!("sortie.v1");
}

/// Protocol versions this build speaks, best first.
pub const VERSIONS: &[u32] = &[1];
