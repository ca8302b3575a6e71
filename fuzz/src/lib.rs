//! What the targets share: how an input is cut, and what a filtered Secret may look like.
//!
//! The checks here go over parsed trees and share no code with the filter.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sortie::policy::{MaskedKind, Rules, ScrubRules, load};
use sortie::resource::Gvr;

/// A value that the targets put where it has to be masked.
pub const PLANTED: &str = "planted-value-1";

/// The rules that ship with the program.
pub fn rules() -> Arc<ScrubRules> {
    static RULES: LazyLock<Rules> = LazyLock::new(|| load().expect("the shipped rules are sound"));
    Arc::clone(&RULES.scrub)
}

/// The resource of Secrets.
pub fn secrets() -> Gvr {
    Gvr::new("", "v1", "secrets")
}

/// The first line of an input (how to cut) and the rest of it (what to read).
pub fn control(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = input.iter().position(|byte| *byte == b'\n')?;
    Some((&input[..at], &input[at + 1..]))
}

/// `bytes` in pieces, whose lengths are the bytes of `cuts`, repeated; in one piece without any.
pub fn pieces<'a>(bytes: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    if cuts.is_empty() {
        return vec![bytes];
    }
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    let mut lengths = cuts.iter().cycle();
    while !rest.is_empty() {
        let length = lengths.next().map_or(1, |cut| usize::from(*cut).max(1));
        let (piece, later) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        rest = later;
    }
    pieces
}

/// Whether the planted value is in `bytes`, plainly or in base64 at any alignment.
pub fn leaks(bytes: &[u8]) -> bool {
    static NEEDLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let mut needles = vec![PLANTED.as_bytes().to_vec()];
        for shift in 0..3 {
            let shifted = [&vec![b'x'; shift][..], PLANTED.as_bytes(), b"xx"].concat();
            let text = STANDARD.encode(shifted);
            // The characters that the planted value alone decides.
            let first = (shift * 8).div_ceil(6);
            let last = (shift + PLANTED.len()) * 8 / 6;
            needles.push(text.as_bytes()[first..last].to_vec());
        }
        needles
    });
    NEEDLES
        .iter()
        .any(|needle| bytes.windows(needle.len()).any(|window| window == needle))
}

/// The text of a Secret with planted values behind `members`, which are the fuzzer's. None if
/// the fuzzer has made a planted value itself.
pub fn with_planted(members: &[u8]) -> Option<Vec<u8>> {
    if leaks(members) {
        return None;
    }
    let mut text = b"{".to_vec();
    text.extend_from_slice(members);
    if !members.iter().all(u8::is_ascii_whitespace) {
        text.push(b',');
    }
    let encoded = STANDARD.encode(PLANTED);
    let planted = format!(
        r#""data":{{"password":"{encoded}"}},"stringData":{{"user":"{PLANTED}"}},"other":["{PLANTED}"]}}"#
    );
    text.extend_from_slice(planted.as_bytes());
    Some(text)
}

/// Checks that `object` holds nothing but what a Secret may show.
pub fn assert_masked(object: &Value) {
    let rules = rules();
    let kind = rules.masked(&secrets()).expect("Secrets are masked");
    assert_object(object, &rules, kind);
}

fn assert_object(object: &Value, rules: &ScrubRules, kind: &MaskedKind) {
    let has = |known: &[String], key: &String| known.contains(key);
    for (key, value) in object.as_object().expect("a filtered object is one") {
        if has(&kind.base64_values, key) {
            assert_values(value, rules.mask_base64());
        } else if has(&kind.plain_values, key) {
            assert_values(value, rules.mask());
        } else if key == "metadata" {
            assert_metadata(value, rules, kind);
        } else {
            assert!(has(&kind.fields, key), "`{key}` passes");
            assert!(!value.is_object() && !value.is_array(), "`{key}` nests");
        }
    }
}

fn assert_values(values: &Value, mask: &str) {
    match values {
        Value::Null => {}
        Value::Object(values) => {
            for (key, value) in values {
                assert_eq!(value.as_str(), Some(mask), "the value of `{key}` passes");
            }
        }
        other => panic!("values in another shape pass: {other}"),
    }
}

fn assert_metadata(metadata: &Value, rules: &ScrubRules, kind: &MaskedKind) {
    let Value::Object(metadata) = metadata else {
        assert!(metadata.is_null(), "metadata in another shape passes");
        return;
    };
    for (key, value) in metadata {
        assert!(kind.metadata.contains(key), "`metadata.{key}` passes");
        if key != "annotations" {
            continue;
        }
        let Value::Object(annotations) = value else {
            assert!(value.is_null(), "annotations in another shape pass");
            continue;
        };
        for (key, value) in annotations {
            if *key == kind.last_applied {
                let text = value.as_str().expect("an annotation is a text");
                let applied = serde_json::from_str(text).expect("the filter wrote it");
                assert_object(&applied, rules, kind);
            } else {
                assert!(kind.annotations.contains(key), "annotation `{key}` passes");
            }
        }
    }
}
