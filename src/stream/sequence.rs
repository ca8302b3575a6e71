//! Which events of a batch are still to be applied.

/// The receiving side of one stream: an epoch, and the last sequence applied within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// The incarnation of the stream; never zero.
    pub epoch: u64,
    /// Sequence of the last event applied; zero if none was.
    pub applied: u64,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Skip this many events, apply the others.
    Apply {
        /// Events that were applied before.
        skip: usize,
    },
    /// Nothing in it is new.
    Duplicate,
    /// Something before it is missing; the sender has to go back to `applied + 1`.
    Gap,
    /// It belongs to another incarnation of the stream.
    OtherEpoch,
}

impl Receiver {
    /// A stream that starts at sequence 1.
    pub const fn new(epoch: u64) -> Self {
        Self { epoch, applied: 0 }
    }

    /// Judges a batch of `count` events that starts at `first`; changes nothing.
    pub fn judge(&self, epoch: u64, first: u64, count: u32) -> Verdict {
        if epoch != self.epoch {
            return Verdict::OtherEpoch;
        }
        if first > self.applied.saturating_add(1) {
            return Verdict::Gap;
        }
        let last = first.saturating_add(u64::from(count)).saturating_sub(1);
        if count == 0 || last <= self.applied {
            return Verdict::Duplicate;
        }
        let skip = self.applied.saturating_add(1).saturating_sub(first);
        Verdict::Apply {
            skip: usize::try_from(skip).unwrap_or(usize::MAX),
        }
    }

    /// Whether a sender that can still send from `first` on can go on in `epoch`.
    pub const fn continues(&self, epoch: u64, first: u64) -> bool {
        epoch == self.epoch && first <= self.applied.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn overlap_is_skipped_and_gaps_are_named() {
        let receiver = Receiver {
            epoch: 7,
            applied: 10,
        };
        assert_eq!(receiver.judge(7, 11, 3), Verdict::Apply { skip: 0 });
        assert_eq!(receiver.judge(7, 9, 5), Verdict::Apply { skip: 2 });
        assert_eq!(receiver.judge(7, 8, 3), Verdict::Duplicate);
        assert_eq!(receiver.judge(7, 12, 1), Verdict::Gap);
        assert_eq!(receiver.judge(8, 11, 1), Verdict::OtherEpoch);
    }

    proptest! {
        /// Batches cut anywhere, sent again from anywhere, arrive as each event once and in order.
        #[test]
        fn every_event_is_applied_once(cuts in prop::collection::vec((1u64..40, 1u32..9), 1..80)) {
            let mut receiver = Receiver::new(1);
            let mut applied = Vec::new();
            for (first, count) in cuts {
                if let Verdict::Apply { skip } = receiver.judge(1, first, count) {
                    let events = first..first + u64::from(count);
                    applied.extend(events.skip(skip));
                    receiver.applied = first + u64::from(count) - 1;
                }
            }
            let expected: Vec<u64> = (1..=receiver.applied).collect();
            prop_assert_eq!(applied, expected);
        }
    }
}
