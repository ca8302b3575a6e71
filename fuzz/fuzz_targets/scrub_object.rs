//! The filter of a feed, over one object: what passes is JSON, masked, and passes again unchanged.
#![no_main]

use std::hash::RandomState;

use libfuzzer_sys::fuzz_target;
use sortie::scrub::Filter;
use sortie_fuzz::{assert_masked, leaks, rules, secrets, with_planted};

fn check(filter: &Filter, text: &[u8]) -> Option<Vec<u8>> {
    let object = filter.object(text).ok()?;
    let bytes = object.bytes.as_bytes();
    assert_masked(&serde_json::from_slice(bytes).expect("what passes is JSON"));
    let again = filter.object(bytes).expect("what passes, passes again");
    assert_eq!(again, object, "the filter is idempotent");
    let (at, length) = (object.version_at as usize, object.version_length as usize);
    let digits = &bytes[at..at + length];
    assert_eq!(
        digits,
        object.identity.resource_version.to_string().as_bytes()
    );
    Some(bytes.to_vec())
}

fuzz_target!(|input: &[u8]| {
    let filter = Filter::feed(rules(), secrets(), "Secret", RandomState::new());
    check(&filter, input);
    if let Some(text) = with_planted(input) {
        let passed = check(&filter, &text).unwrap_or_default();
        assert!(!leaks(&passed), "a planted value passes");
        let item = filter.item(&text);
        assert!(
            !leaks(format!("{item:?}").as_bytes()),
            "a planted value is shown"
        );
        if let Ok(item) = item {
            assert!(!leaks(item.bytes.as_bytes()), "a planted value passes");
        }
    }
});
