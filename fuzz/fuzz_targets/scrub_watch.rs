//! The filter of a feed, over one line of a watch.
#![no_main]

use std::hash::RandomState;

use libfuzzer_sys::fuzz_target;
use sortie::scrub::{Filter, WatchEvent};
use sortie_fuzz::{assert_masked, leaks, rules, secrets, with_planted};

fuzz_target!(|input: &[u8]| {
    let filter = Filter::feed(rules(), secrets(), "Secret", RandomState::new());
    if let Ok(WatchEvent::Upsert(object)) = filter.watch_event(input) {
        let bytes = object.bytes.as_bytes();
        assert_masked(&serde_json::from_slice(bytes).expect("what passes is JSON"));
    }
    let Some(object) = with_planted(input) else {
        return;
    };
    for kind in ["ADDED", "DELETED", "BOOKMARK", "ERROR"] {
        let mut line = format!(r#"{{"type":"{kind}","object":"#).into_bytes();
        line.extend_from_slice(&object);
        line.push(b'}');
        let event = filter.watch_event(&line);
        assert!(
            !leaks(format!("{event:?}").as_bytes()),
            "a planted value is shown"
        );
        if let Ok(WatchEvent::Upsert(object)) = event {
            assert!(!leaks(object.bytes.as_bytes()), "a planted value passes");
        }
    }
});
