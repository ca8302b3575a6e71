//! What was removed: numbers, never values.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one filter has removed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// Objects that were filtered.
    pub objects: u64,
    /// Texts that were refused.
    pub refused: u64,
    /// Values that the mask stands for now.
    pub values_masked: u64,
    /// Annotations that were left out.
    pub annotations_dropped: u64,
    /// Other fields that were left out.
    pub fields_dropped: u64,
    /// Bytes before.
    pub bytes_in: u64,
    /// Bytes after.
    pub bytes_out: u64,
}

/// What was removed from one text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) values_masked: u64,
    pub(super) annotations_dropped: u64,
    pub(super) fields_dropped: u64,
}

impl Counts {
    pub(super) const fn add(&mut self, other: Self) {
        self.values_masked += other.values_masked;
        self.annotations_dropped += other.annotations_dropped;
        self.fields_dropped += other.fields_dropped;
    }
}

/// The running sums of a [`Trail`], shared by whoever uses the filter.
#[derive(Debug, Default)]
pub(super) struct Sums {
    objects: AtomicU64,
    refused: AtomicU64,
    values_masked: AtomicU64,
    annotations_dropped: AtomicU64,
    fields_dropped: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Sums {
    pub(super) fn filtered(&self, counts: Counts, bytes_in: usize, bytes_out: usize) {
        let add = |sum: &AtomicU64, by: u64| {
            sum.fetch_add(by, Ordering::Relaxed);
        };
        add(&self.objects, 1);
        add(&self.values_masked, counts.values_masked);
        add(&self.annotations_dropped, counts.annotations_dropped);
        add(&self.fields_dropped, counts.fields_dropped);
        add(&self.bytes_in, bytes_in as u64);
        add(&self.bytes_out, bytes_out as u64);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn trail(&self) -> Trail {
        let read = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        Trail {
            objects: read(&self.objects),
            refused: read(&self.refused),
            values_masked: read(&self.values_masked),
            annotations_dropped: read(&self.annotations_dropped),
            fields_dropped: read(&self.fields_dropped),
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
        }
    }
}
