//! The filter of answers: however an answer is cut, the same passes; what passes of a document is
//! JSON; planted values never pass, not even before a flaw.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sortie::resource::Target;
use sortie::scrub::{AnswerFilter, Scrubbed};
use sortie_fuzz::{assert_masked, control, leaks, pieces, rules, with_planted};

/// Path and status of the requests whose answer the input could be.
const REQUESTS: [(&str, u16); 4] = [
    ("/api/v1/namespaces/shop/secrets/db", 200),
    ("/api/v1/secrets", 200),
    ("/api/v1/secrets?watch=1", 200),
    ("/api/v1/namespaces/shop/secrets/db", 404),
];

/// What passes, and whether the answer was sound to its end.
fn answer(request: (&str, u16), body: &[u8], cuts: &[u8]) -> (Vec<u8>, bool) {
    let target = Target::parse("GET", request.0).expect("a sound path");
    let mut filter = AnswerFilter::new(rules(), &target, request.1, Some("application/json"))
        .expect("JSON can be filtered");
    let mut out = Vec::new();
    let mut sound = true;
    for piece in pieces(body, cuts) {
        sound = sound && filter.push(piece, &mut out).is_ok();
    }
    let passed: Vec<u8> = out.iter().flat_map(Scrubbed::as_bytes).copied().collect();
    (passed, sound && filter.finish().is_ok())
}

fuzz_target!(|input: &[u8]| {
    let Some((cuts, body)) = control(input) else {
        return;
    };
    for request in REQUESTS {
        let (whole, sound) = answer(request, body, &[]);
        let (parts, parts_sound) = answer(request, body, cuts);
        assert_eq!(sound, parts_sound, "soundness depends on the cuts");
        if sound {
            assert_eq!(whole, parts, "what passes depends on the cuts");
        }
        if sound && !request.0.ends_with("watch=1") && !whole.is_empty() {
            let passed: Value = serde_json::from_slice(&whole).expect("what passes is JSON");
            if passed["kind"] == "Secret" {
                assert_masked(&passed);
            }
            for item in passed["items"].as_array().into_iter().flatten() {
                assert_masked(item);
            }
            let (again, sound) = answer(request, &whole, cuts);
            assert!(sound && again == whole, "the filter is idempotent");
        }
        let Some(object) = with_planted(body) else {
            continue;
        };
        let (list, event) = (br#"{"items":["#, br#"{"type":"MODIFIED","object":"#);
        let list = [&list[..], &object, b"]}"].concat();
        let event = [&event[..], &object, b"}\n"].concat();
        for text in [&object, &list, &event] {
            let (passed, _sound) = answer(request, text, cuts);
            assert!(!leaks(&passed), "a planted value passes");
        }
    }
});
