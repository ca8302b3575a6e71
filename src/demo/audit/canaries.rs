//! Looks for planted values in byte streams, in every form they could leave in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::report::CanaryFigures;
use crate::demo::canary::Canary;

/// Bytes of a planted value, in any form, that count as found.
///
/// Sixteen random bytes are not met by chance; twelve bytes of the value are enough for sixteen
/// characters of base64.
pub const FRAGMENT: usize = 16;

/// Bits of the first look at a window: eight per window keeps most bytes out of the map.
const FIRST_LOOK_BITS: usize = 1 << 22;

/// What cannot be looked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanaryError {
    /// A value shorter than a fragment would never be found.
    #[error("planted value at `{place}` has fewer than {FRAGMENT} bytes")]
    TooShort {
        /// Where it was planted.
        place: String,
    },
}

/// Everything that is looked for, and what was found so far. A clone shares both.
#[derive(Clone)]
pub struct Canaries(Arc<Shared>);

struct Shared {
    first_look: Vec<u64>,
    /// Window of [`FRAGMENT`] bytes → canary.
    windows: HashMap<[u8; FRAGMENT], usize>,
    marker: [u8; FRAGMENT],
    found: Vec<(String, AtomicBool)>,
    scanned: AtomicU64,
    /// Source → whether the plain marker was seen in it.
    sources: Mutex<BTreeMap<&'static str, bool>>,
    /// Sources in which a planted value was seen.
    leaking: Mutex<BTreeSet<&'static str>>,
}

impl fmt::Debug for Canaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canaries")
            .field("planted", &self.0.found.len())
            .finish_non_exhaustive()
    }
}

impl Canaries {
    /// Looks for `planted`, and for the plain `marker` that every source has to show.
    pub fn new(planted: &[Canary], marker: [u8; FRAGMENT]) -> Result<Self, CanaryError> {
        let mut shared = Shared {
            first_look: vec![0; FIRST_LOOK_BITS / 64],
            windows: HashMap::new(),
            marker,
            found: Vec::with_capacity(planted.len()),
            scanned: AtomicU64::new(0),
            sources: Mutex::new(BTreeMap::new()),
            leaking: Mutex::default(),
        };
        shared.note(&marker);
        for (number, canary) in planted.iter().enumerate() {
            if canary.value.len() < FRAGMENT {
                let place = canary.place.clone();
                return Err(CanaryError::TooShort { place });
            }
            for form in forms(&canary.value) {
                for window in form.windows(FRAGMENT).filter_map(|w| w.try_into().ok()) {
                    shared.note(&window);
                    shared.windows.insert(window, number);
                }
            }
            let place = canary.place.clone();
            shared.found.push((place, AtomicBool::new(false)));
        }
        Ok(Self(Arc::new(shared)))
    }

    /// Starts to look through one stream of `source`; the marker has to appear in each source.
    pub fn scan(&self, source: &'static str) -> Scan {
        self.sources().entry(source).or_insert(false);
        Scan {
            canaries: self.clone(),
            source,
            carry: Vec::new(),
        }
    }

    fn sources(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, bool>> {
        let sources = self.0.sources.lock();
        sources.unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the values that were found had been planted.
    pub fn found(&self) -> Vec<String> {
        let found = self.0.found.iter();
        found
            .filter(|(_, found)| found.load(Ordering::Relaxed))
            .map(|(place, _)| place.clone())
            .collect()
    }

    /// Sources in which planted values were found.
    pub fn leaking(&self) -> Vec<&'static str> {
        let leaking = self.0.leaking.lock();
        let leaking = leaking.unwrap_or_else(PoisonError::into_inner);
        leaking.iter().copied().collect()
    }

    /// Sources in which the marker has not been seen.
    pub fn unproven(&self) -> Vec<&'static str> {
        let sources = self.sources();
        let unproven = sources.iter().filter(|(_, seen)| !**seen);
        unproven.map(|(source, _)| *source).collect()
    }

    /// The figures so far.
    pub fn figures(&self) -> CanaryFigures {
        CanaryFigures {
            planted: self.0.found.len() as u64,
            found: self.found().len() as u64,
            scanned_bytes: self.0.scanned.load(Ordering::Relaxed),
            control_found: !self.sources().is_empty() && self.unproven().is_empty(),
        }
    }
}

impl Shared {
    fn note(&mut self, window: &[u8; FRAGMENT]) {
        let bit = first_look(window);
        if let Some(word) = self.first_look.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }

    fn may_hold(&self, window: &[u8; FRAGMENT]) -> bool {
        let bit = first_look(window);
        let word = self.first_look.get(bit / 64).copied().unwrap_or(0);
        word & (1 << (bit % 64)) != 0
    }
}

/// A bit for a window, from its first eight bytes (Fibonacci hashing).
fn first_look(window: &[u8; FRAGMENT]) -> usize {
    let first = window.first_chunk::<8>().copied().unwrap_or_default();
    let mixed = u64::from_le_bytes(first).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> 42).unwrap_or(0) % FIRST_LOOK_BITS
}

/// One stream that is looked through, in pieces as they come.
#[derive(Debug)]
pub struct Scan {
    canaries: Canaries,
    source: &'static str,
    /// The end of the last piece, shorter than a window.
    carry: Vec<u8>,
}

impl Scan {
    /// Looks through the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        let shared = Arc::clone(&self.canaries.0);
        shared
            .scanned
            .fetch_add(piece.len() as u64, Ordering::Relaxed);
        // Windows that span two pieces: at most FRAGMENT - 1 bytes of each.
        let carried = self.carry.len();
        let head = piece
            .get(..piece.len().min(FRAGMENT - 1))
            .unwrap_or_default();
        self.carry.extend_from_slice(head);
        let spanning = std::mem::take(&mut self.carry);
        self.look(&shared, &spanning);
        self.look(&shared, piece);
        let rest = if piece.len() >= FRAGMENT {
            piece
        } else {
            &spanning
        };
        let keep = rest.len().min(FRAGMENT - 1);
        debug_assert!(carried < FRAGMENT, "the carry is shorter than a window");
        self.carry = rest.get(rest.len() - keep..).unwrap_or_default().to_vec();
    }

    fn look(&self, shared: &Shared, bytes: &[u8]) {
        for window in bytes.windows(FRAGMENT) {
            let Ok(window) = <&[u8; FRAGMENT]>::try_from(window) else {
                continue;
            };
            if !shared.may_hold(window) {
                continue;
            }
            if *window == shared.marker {
                self.canaries.sources().insert(self.source, true);
            }
            let canary = shared.windows.get(window);
            if let Some((_, found)) = canary.and_then(|number| shared.found.get(*number)) {
                found.store(true, Ordering::Relaxed);
                let leaking = shared.leaking.lock();
                leaking
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(self.source);
            }
        }
    }
}

/// The value itself, its base64 at each alignment and in both alphabets, its hex in both cases.
fn forms(value: &[u8]) -> Vec<Vec<u8>> {
    let lower = hex::encode(value);
    let mut forms = vec![
        value.to_vec(),
        lower.to_ascii_uppercase().into_bytes(),
        lower.into_bytes(),
    ];
    // Bytes before the value shift it by 0, 6·2-8 or 6·3-16 bits; the characters that they
    // share with the value, and the last one if it is shared with what follows, are left out.
    for (before, shared) in [(0, 0), (1, 2), (2, 3)] {
        let shifted = [vec![0; before], value.to_vec()].concat();
        let ends_shared = usize::from(shifted.len() % 3 != 0);
        for text in [
            STANDARD_NO_PAD.encode(&shifted),
            URL_SAFE_NO_PAD.encode(&shifted),
        ] {
            let end = text.len() - ends_shared;
            let own = text.as_bytes().get(shared..end).unwrap_or_default();
            forms.push(own.to_vec());
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Seeded;
    use crate::entropy;
    use proptest::prelude::*;

    const MARKER: [u8; 16] = *b"marker-0123456-x";

    fn planted() -> Canary {
        Canary {
            place: "shop/a/token".into(),
            value: entropy::bytes::<32>(&Seeded::new(1)).to_vec(),
        }
    }

    fn found_in(bytes: &[u8], piece: usize) -> bool {
        let canaries = Canaries::new(&[planted()], MARKER).expect("long enough");
        let mut scan = canaries.scan("test");
        bytes
            .chunks(piece.max(1))
            .for_each(|piece| scan.feed(piece));
        assert_eq!(canaries.figures().scanned_bytes, bytes.len() as u64);
        canaries.figures().found == 1
    }

    proptest! {
        #[test]
        fn a_value_is_found_in_every_form_at_every_place(
            before in proptest::collection::vec(any::<u8>(), 0..50),
            after in proptest::collection::vec(any::<u8>(), 0..20),
            form in 0..5,
            piece in 1_usize..40,
        ) {
            let value = planted().value;
            let plain = [before.clone(), value.clone(), after.clone()].concat();
            let bytes = match form {
                0 => plain,
                1 => STANDARD_NO_PAD.encode(&plain).into_bytes(),
                2 => URL_SAFE_NO_PAD.encode(&plain).into_bytes(),
                3 => hex::encode(&plain).into_bytes(),
                _ => [before, value[8..24].to_vec(), after].concat(),
            };
            prop_assert!(found_in(&bytes, piece));
        }
    }

    #[test]
    fn other_bytes_are_not_taken_for_a_planted_value() {
        let other = entropy::bytes::<4096>(&Seeded::new(2));
        assert!(!found_in(&other, 100));
        assert!(!found_in(&planted().value[..15], 100));
    }

    #[test]
    fn every_source_has_to_show_the_marker() {
        let canaries = Canaries::new(&[planted()], MARKER).expect("long enough");
        assert!(!canaries.figures().control_found, "nothing was looked at");
        let (mut logs, mut frames) = (canaries.scan("logs"), canaries.scan("frames"));
        logs.feed(b"a line with marker-01");
        logs.feed(b"23456-x in it");
        frames.feed(b"no such thing here at all");
        assert_eq!(canaries.unproven(), ["frames"]);
        assert!(!canaries.figures().control_found);
        frames.feed(&MARKER);
        assert!(canaries.figures().control_found);
    }

    #[test]
    fn a_value_that_could_not_be_found_is_refused() {
        let short = Canary {
            place: "a".into(),
            value: vec![1; 15],
        };
        assert!(Canaries::new(&[short], MARKER).is_err());
    }
}
