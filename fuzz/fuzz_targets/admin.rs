//! Requests of administrators: what is read is written and read back as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie::hub::admin::Request;

fuzz_target!(|line: &str| {
    let Ok(request) = serde_json::from_str::<Request>(line) else {
        return;
    };
    let written = serde_json::to_string(&request).expect("a request is JSON");
    let again: Request = serde_json::from_str(&written).expect("what is written is read");
    assert_eq!(
        serde_json::to_string(&again).expect("a request is JSON"),
        written
    );
});
