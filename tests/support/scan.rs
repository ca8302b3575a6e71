//! Looks for planted values in the memory of another process.
//!
//! Reads `/proc/PID/mem` from outside: every readable mapping, stacks included. That needs the
//! same user and a process that may be dumped, or root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Length of a fragment: so much of a value is not there by chance.
const FRAGMENT_BYTES: usize = 16;

/// In which form a value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// Base64, standard or for URLs, at any of the three alignments.
    Base64,
    /// Sixteen bytes of the value, or sixteen characters of its base64.
    Fragment,
    /// Hexadecimal, in either case.
    Hex,
    /// As it is.
    Raw,
}

/// What to look for.
#[derive(Debug)]
pub(crate) struct Needles {
    automaton: AhoCorasick,
    /// What each pattern stands for.
    meaning: Vec<Pattern>,
    longest: usize,
}

/// What a pattern stands for.
#[derive(Debug)]
struct Pattern {
    form: Form,
    /// The number of the value.
    value: usize,
    /// Patterns of one value that one copy shows together: raw, hexadecimal, each alignment.
    family: usize,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// How often, by form.
    pub(crate) forms: BTreeMap<Form, usize>,
    /// Which values, by their number.
    pub(crate) values: BTreeSet<usize>,
    /// Where, by the name of the mapping.
    pub(crate) places: BTreeMap<String, usize>,
    /// Bytes that were looked through.
    pub(crate) scanned: u64,
    /// How often each pattern was met, by value and family.
    met: BTreeMap<(usize, usize), BTreeMap<usize, usize>>,
}

impl Found {
    /// How often anything was found.
    pub(crate) fn total(&self) -> usize {
        self.forms.values().sum()
    }

    /// How many copies of a value these were, whole ones and pieces: in each way to write it, as
    /// many as the pattern that was met most often.
    pub(crate) fn copies(&self, value: usize) -> usize {
        let families = self.met.range((value, 0)..(value + 1, 0));
        families
            .filter_map(|(_, patterns)| patterns.values().max())
            .sum()
    }
}

impl Needles {
    /// Looks for each of `values`, which have sixteen bytes at least.
    pub(crate) fn new<V: AsRef<[u8]>>(values: &[V]) -> Self {
        let mut patterns = Vec::new();
        let mut meaning = Vec::new();
        for (number, value) in values.iter().enumerate() {
            let value = value.as_ref();
            assert!(
                value.len() >= FRAGMENT_BYTES,
                "value {number} is too short to be found"
            );
            for (pattern, (form, family)) in patterns_of(value) {
                patterns.push(pattern);
                meaning.push(Pattern {
                    form,
                    value: number,
                    family,
                });
            }
        }
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(&patterns)
            .expect("the patterns fit");
        Self {
            automaton,
            meaning,
            longest,
        }
    }

    /// Looks through bytes: a log, a file, an answer.
    pub(crate) fn look(&self, bytes: &[u8]) -> Found {
        let mut found = Found::default();
        self.count(bytes, 0, "bytes", &mut found);
        found.scanned = bytes.len() as u64;
        found
    }

    /// Looks through all readable memory of a process.
    pub(crate) fn scan(&self, pid: i32) -> Found {
        let mut found = Found::default();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("a running process");
        let memory = File::open(format!("/proc/{pid}/mem"))
            .expect("reading memory needs the same user and a dumpable process, or root");
        for mapping in maps.lines().filter_map(Mapping::parse) {
            self.scan_mapping(&memory, &mapping, &mut found);
        }
        assert!(
            found.scanned > 0,
            "no memory of process {pid} could be read"
        );
        found
    }

    fn scan_mapping(&self, memory: &File, mapping: &Mapping<'_>, found: &mut Found) {
        let overlap = self.longest.saturating_sub(1);
        let mut buffer = vec![0; CHUNK_BYTES + overlap];
        let mut at = mapping.start;
        // Bytes at the front of the buffer that were looked through with the chunk before.
        let mut seen = 0;
        while at < mapping.end {
            let wanted =
                usize::try_from(mapping.end - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            let Ok(read) = memory.read_at(&mut buffer[seen..seen + wanted], at) else {
                return; // gone since, or a device
            };
            if read == 0 {
                return;
            }
            self.count(&buffer[..seen + read], seen, mapping.name, found);
            at += read as u64;
            found.scanned += read as u64;
            let keep = overlap.min(seen + read);
            buffer.copy_within(seen + read - keep..seen + read, 0);
            seen = keep;
        }
    }

    /// Counts what ends behind the first `seen` bytes.
    fn count(&self, bytes: &[u8], seen: usize, place: &str, found: &mut Found) {
        for hit in self
            .automaton
            .find_overlapping_iter(bytes)
            .filter(|hit| hit.end() > seen)
        {
            let number = hit.pattern().as_usize();
            let pattern = &self.meaning[number];
            *found.forms.entry(pattern.form).or_default() += 1;
            *found.places.entry(place.to_owned()).or_default() += 1;
            found.values.insert(pattern.value);
            let family = found.met.entry((pattern.value, pattern.family));
            *family.or_default().entry(number).or_default() += 1;
        }
    }
}

/// One readable line of `/proc/PID/maps`.
struct Mapping<'a> {
    start: u64,
    end: u64,
    name: &'a str,
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let readable = words.next()?.starts_with('r');
        let name = words.nth(3).unwrap_or("[anonymous]");
        // The kernel's own pages: the same for every process, partly unreadable.
        let kernel = matches!(name, "[vvar]" | "[vvar_vclock]" | "[vsyscall]");
        (readable && !kernel).then_some(())?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Self {
            start: number(start)?,
            end: number(end)?,
            name,
        })
    }
}

/// The ways a value may lie in memory: each with its form, and the family of those that one copy
/// shows together.
fn patterns_of(value: &[u8]) -> BTreeMap<Vec<u8>, (Form, usize)> {
    const RAW: usize = 0;
    const HEX: usize = 1;
    const BASE64: usize = 2;
    let mut patterns = BTreeMap::new();
    if value.len() > FRAGMENT_BYTES {
        let last = &value[value.len() - FRAGMENT_BYTES..];
        for fragment in value.chunks_exact(FRAGMENT_BYTES).chain([last]) {
            patterns.insert(fragment.to_vec(), (Form::Fragment, RAW));
        }
    }
    for skip in 0..3 {
        // Whole groups of three bytes: their characters do not depend on the neighbours.
        let rest = &value[skip..];
        let groups = &rest[..rest.len() / 3 * 3];
        let text = STANDARD_NO_PAD.encode(groups);
        for fragment in text.as_bytes().chunks_exact(FRAGMENT_BYTES) {
            patterns.insert(fragment.to_vec(), (Form::Fragment, BASE64 + skip));
        }
        let url = URL_SAFE_NO_PAD.encode(groups);
        for text in [text, url] {
            patterns.insert(text.into_bytes(), (Form::Base64, BASE64 + skip));
        }
    }
    for hex in [hex::encode(value), hex::encode_upper(value)] {
        patterns.insert(hex.into_bytes(), (Form::Hex, HEX));
    }
    patterns.insert(value.to_vec(), (Form::Raw, RAW));
    patterns
}
