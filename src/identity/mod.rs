//! Keys, certificates and the checks on them: who a peer is, and how it gets and renews its proof.
//!
//! ```text
//!  agent                                                     hub
//!  KeyPair ─▶ csr, proof ──▶ client::enrol ══TLS══▶ csr::public_key ─▶ Order ─▶ Issuer
//!     │                          │ Certificate  ◀══════════════════════════════ Issued
//!     ▼                          ▼
//!  tls::Material ──▶ channel::connect ════mutual TLS════▶ accept ─▶ VerifiedPeer
//! ```
//! # Invariants
//! - A [`VerifiedPeer`] exists only for a chain that passed every check (enforced by: type).
//! - A private key never leaves its [`KeyPair`], a state folder that was asked for excepted
//!   (enforced by: type).
//! - Nothing but the public key of a request reaches a certificate (test: `authority::tests`).
//! - No connection is resumed (test: `tls::tests`).
//! # Failure
//! - A refused peer → [`AcceptError::Refused`] with a label from a closed set → the hub audits it.
//! - A refused agent → [`client::EnrolError`] that says whether to try again → the agent.
//! # Sources
//! RFC 5280, RFC 8446, SPIFFE X509-SVID and SPIFFE-ID, RFC 7519; `certs/profiles.yaml`.
#![deny(clippy::wildcard_enum_match_arm)]

mod accept;
mod authority;
pub mod channel;
pub mod client;
pub mod csr;
mod files;
#[cfg(test)]
mod fixtures;
mod id;
mod issue;
pub mod join;
pub mod keep;
mod key;
mod pem;
pub mod profile;
pub mod proof;
mod public_key;
pub mod renewal;
pub mod service_account;
pub mod tls;
mod trust;
pub mod verify;

pub use accept::{AcceptError, Accepted, Protocol, accept};
pub use authority::{Authority, AuthorityError, Ends};
pub use files::FileError;
pub use id::{IdError, NAME_BYTES, Name, Role, SpiffeId, TrustDomain};
pub use issue::{IssueError, Issued, Issuer, NAMES_PER_CERTIFICATE, Order};
pub use key::{KeyError, KeyPair};
pub use public_key::{PublicKey, SpkiSha256, UnsupportedKey};
pub use trust::{ROOTS, TrustBundle, TrustError};
pub use verify::{PeerError, Refusal, VerifiedPeer};
