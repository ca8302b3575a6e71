//! Join strings: the text, and the JSON inside it.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use sortie::identity::join::{Join, PREFIX};

fn check(text: &[u8]) {
    match Join::parse(text) {
        Ok(join) => {
            let shown = format!("{join:?}");
            assert!(shown.contains("REDACTED"), "the secret is shown");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fuzz_target!(|input: &[u8]| {
    check(input);
    check(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(input)).as_bytes());
});
