//! Randomness that can be repeated: the same seed draws the same workload.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};

use crate::entropy::Entropy;

/// SHA-256 of a seed and a counter. For workloads and tests, never for keys.
#[derive(Debug)]
pub struct Seeded {
    seed: u64,
    drawn: AtomicU64,
}

impl Seeded {
    /// A source that is determined by `seed`.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            drawn: AtomicU64::new(0),
        }
    }
}

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let counter = self.drawn.fetch_add(1, Ordering::Relaxed);
            let input = [self.seed.to_le_bytes(), counter.to_le_bytes()].concat();
            for (to, from) in chunk.iter_mut().zip(digest(&SHA256, &input).as_ref()) {
                *to = *from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy;

    #[test]
    fn the_same_seed_draws_the_same_bytes() {
        let (one, two, other) = (Seeded::new(7), Seeded::new(7), Seeded::new(8));
        let draw = |source: &Seeded| entropy::bytes::<40>(source);
        let first = draw(&one);
        assert_eq!(first, draw(&two));
        assert_ne!(first, draw(&other));
        assert_ne!(first, draw(&one));
    }
}
