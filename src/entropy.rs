//! Randomness as a parameter.

use std::fmt::Debug;
use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// Gives random bytes.
pub trait Entropy: Debug + Send + Sync {
    /// Fills `bytes`; a source that cannot is a broken machine, and the bytes stay zero.
    fn fill(&self, bytes: &mut [u8]);
}

/// A shared source of randomness.
pub type SharedEntropy = Arc<dyn Entropy>;

/// Draws the same byte for ever.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Fixed(pub(crate) u8);

#[cfg(test)]
impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

/// The operating system's generator, through the crypto provider.
#[derive(Debug, Default)]
pub struct SystemEntropy(SystemRandom);

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        if self.0.fill(bytes).is_err() {
            tracing::error!("the system's random number generator failed");
        }
    }
}

/// The operating system's generator, ready to share.
pub fn system() -> SharedEntropy {
    Arc::new(SystemEntropy::default())
}

/// `N` random bytes.
pub fn bytes<const N: usize>(source: &dyn Entropy) -> [u8; N] {
    let mut out = [0; N];
    source.fill(&mut out);
    out
}

/// A uniform number in `[0, 1)`.
pub fn unit(source: &dyn Entropy) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    let drawn = (u64::from_le_bytes(bytes(source)) >> 11) as f64;
    drawn / 9_007_199_254_740_992.0 // 2^53
}
