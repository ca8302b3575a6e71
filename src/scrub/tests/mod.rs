//! Tests of the whole room: shapes, adversarial input, and agreement with a slow filter.

mod adversarial;
mod answers;
mod feeds;
mod generate;
mod slow;

use std::hash::RandomState;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::policy::{ScrubRules, load};
use crate::resource::{Gvr, Target};

pub(super) const PLANTED: &str = "planted-value-1";
pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub(super) fn rules() -> Arc<ScrubRules> {
    static RULES: LazyLock<Arc<ScrubRules>> = LazyLock::new(|| load().unwrap().scrub);
    Arc::clone(&RULES)
}

pub(super) fn secrets() -> Filter {
    Filter::feed(
        rules(),
        Gvr::new("", "v1", "secrets"),
        "Secret",
        RandomState::new(),
    )
}

pub(super) fn pods() -> Filter {
    Filter::feed(
        rules(),
        Gvr::new("", "v1", "pods"),
        "Pod",
        RandomState::new(),
    )
}

pub(super) fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Runs an answer through its filter, in pieces of `step` bytes.
pub(super) fn answer(
    path: &str,
    status: u16,
    body: &[u8],
    step: usize,
) -> Result<Vec<u8>, Refused> {
    let mut filter = json_filter(path, status);
    let mut out = Vec::new();
    for piece in body.chunks(step.max(1)) {
        filter.push(piece, &mut out)?;
    }
    filter.finish()?;
    let pieces: Vec<&[u8]> = out.iter().map(Scrubbed::as_bytes).collect();
    Ok(pieces.concat())
}

fn json_filter(path: &str, status: u16) -> AnswerFilter {
    let target = Target::parse("GET", path).unwrap();
    AnswerFilter::new(rules(), &target, status, Some("application/json")).unwrap()
}

/// Whether the planted value is in `bytes`: raw, in base64 at any alignment, or in hexadecimal.
pub(super) fn leaks(bytes: &[u8]) -> bool {
    static NEEDLES: LazyLock<needles::Needles> = LazyLock::new(|| needles::Needles::new(PLANTED));
    NEEDLES.are_in(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn it_agrees_with_the_slow_filter(seed in any::<u64>()) {
        let mut random = generate::Random::new(seed);
        let secret = random.secret();
        let text = random.write(&secret);
        let object = secrets().object(text.as_bytes()).unwrap();
        prop_assert_eq!(slow::opened(parse(object.bytes.as_bytes())), slow::secret(&secret, true), "{}", text);
        let again = secrets().object(object.bytes.as_bytes()).unwrap();
        prop_assert_eq!(&again.bytes, &object.bytes);
        let answered = answer("/api/v1/namespaces/n/secrets/s", 200, text.as_bytes(), 64).unwrap();
        prop_assert_eq!(slow::opened(parse(&answered)), slow::secret(&secret, false), "{}", text);
        let again = answer("/api/v1/namespaces/n/secrets/s", 200, &answered, 64).unwrap();
        prop_assert_eq!(again, answered);

        let pod = random.pod();
        let text = random.write(&pod);
        let object = pods().object(text.as_bytes()).unwrap();
        prop_assert_eq!(parse(object.bytes.as_bytes()), slow::pod(&pod), "{}", text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_planted_value_never_leaves(seed in any::<u64>()) {
        let mut random = generate::Random::new(seed);
        let secret = random.secret();
        let text = random.write(&secret);
        let object = secrets().object(text.as_bytes()).unwrap();
        prop_assert!(!leaks(object.bytes.as_bytes()), "{}", text);
        let list = format!(r#"{{"kind":"SecretList","items":[{text},{text}],"metadata":{{}}}}"#);
        let answered = answer("/api/v1/secrets", 200, list.as_bytes(), 1 + usize::try_from(seed % 4096).unwrap());
        prop_assert!(!leaks(&answered.unwrap()), "{}", text);
        let line = format!(r#"{{"type":"ADDED","object":{text}}}"#);
        let answered = answer("/api/v1/secrets?watch=1", 200, line.as_bytes(), 512).unwrap();
        prop_assert!(!leaks(&answered), "{}", text);
        let shown = format!("{:?}", secrets().watch_event(line.as_bytes()));
        prop_assert!(!shown.contains(PLANTED));
    }

    #[test]
    fn other_kinds_lose_only_managed_fields(seed in any::<u64>()) {
        let mut random = generate::Random::new(seed);
        let mut pod = random.pod();
        let with = serde_json::to_string(&pod).unwrap();
        let filtered = pods().object(with.as_bytes()).unwrap();
        pod["metadata"].as_object_mut().unwrap().remove("managedFields");
        let without = serde_json::to_string(&pod).unwrap();
        prop_assert_eq!(filtered.bytes.as_bytes(), without.as_bytes());
        let text = random.write(&pod);
        let unchanged = pods().object(text.as_bytes()).unwrap();
        prop_assert_eq!(unchanged.bytes.as_bytes(), text.trim_ascii().as_bytes());
    }
}
