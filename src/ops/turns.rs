//! How much one answer may put in front of the others on their connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits;

/// Counts the operations that answer over the same connection.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<AtomicUsize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Turn(Turns);

impl Turns {
    /// Takes part from now on.
    pub fn begin(&self) -> Turn {
        self.0.fetch_add(1, Ordering::Relaxed);
        Turn(self.clone())
    }
}

impl Turn {
    /// Bytes of a body that may go in one message now.
    ///
    /// HTTP/2 takes one message of each stream in turn. What a small answer waits for is a whole
    /// round, so that is what is bounded, and divided.
    pub(crate) fn bytes(&self) -> usize {
        let running = self.0.0.load(Ordering::Relaxed).max(1);
        (limits::ROUND_BYTES / running).clamp(limits::LEAST_CHUNK_BYTES, limits::BODY_CHUNK_BYTES)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_answers_share_a_round() {
        let turns = Turns::default();
        let alone = turns.begin();
        assert_eq!(alone.bytes(), limits::BODY_CHUNK_BYTES);

        let others: Vec<Turn> = (1..64).map(|_| turns.begin()).collect();
        assert_eq!(alone.bytes(), 1024);

        let crowd: Vec<Turn> = (0..1_000).map(|_| turns.begin()).collect();
        assert_eq!(alone.bytes(), limits::LEAST_CHUNK_BYTES);

        drop((others, crowd));
        assert_eq!(alone.bytes(), limits::BODY_CHUNK_BYTES);
    }
}
