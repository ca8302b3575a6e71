//! Types and process settings that keep secret bytes from being printed, copied or left behind.
//!
//! ```text
//! engine ──bytes──▶ SecretBytes ──exposed in one annotated statement──▶ TLS, header
//! API server ──bytes──▶ Buffer ──filtered──▶ wiped
//! ```
//! # Invariants
//! - A [`SecretBytes`] cannot be printed, cloned, compared or serialized (enforced by: type).
//! - A [`Buffer`] is wiped when it is consumed, grown or dropped (test: `buffer::tests`).
//! - A thread of the runtime that waits has nothing in the registers that copies go through
//!   ([`clear_registers`]; seen in a core dump: `.ci/soak leaks`).
//! - Every heap block of the binary is wiped when it is freed ([`WipingAllocator`], installed by
//!   `main.rs`).
//! # Failure
//! - A process that cannot be hardened says so and goes on ([`harden`] returns what failed).

mod alloc;
mod buffer;
mod harden;
mod traces;

use std::fmt;

use secrecy::{ExposeSecret, SecretSlice};

pub use alloc::{WipingAllocator, return_free_pages, share_heaps, sparsely};
pub use buffer::Buffer;
pub use harden::{HardenError, harden};
pub use traces::{clear_registers, clear_traces};

/// Secret bytes: wiped when dropped, printed as `[REDACTED]`.
///
/// Read through [`ExposeSecret`], which the house's lints allow only statement by statement.
pub struct SecretBytes(SecretSlice<u8>);

impl SecretBytes {
    /// Takes ownership of `bytes`.
    ///
    /// Spare capacity is cut off first, so that no second copy is left behind.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(SecretSlice::from(bytes))
    }

    /// Whether there are no bytes.
    #[expect(clippy::disallowed_methods, reason = "only whether there is anything")]
    pub fn is_empty(&self) -> bool {
        self.0.expose_secret().is_empty()
    }
}

impl ExposeSecret<[u8]> for SecretBytes {
    fn expose_secret(&self) -> &[u8] {
        #[expect(clippy::disallowed_methods, reason = "forwards the audited method")]
        self.0.expose_secret()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_bytes_never_print_their_content() {
        let secret = SecretBytes::new(b"planted-value".to_vec());
        assert_eq!(format!("{secret:?}"), "[REDACTED]");
    }
}
