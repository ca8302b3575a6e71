//! The check of request bodies: whatever the type, a body whose strings hold the mask is not sent
//! on as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sortie::resource::Target;
use sortie::scrub::{RequestPlan, check_request};
use sortie_fuzz::{control, rules};

const TYPES: [&str; 7] = [
    "application/json",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/yaml",
    "application/apply-patch+yaml",
    "application/vnd.kubernetes.protobuf",
];

fn holds(value: &Value, mask: &str) -> bool {
    match value {
        Value::String(text) => text.contains(mask),
        Value::Array(values) => values.iter().any(|value| holds(value, mask)),
        Value::Object(members) => members.values().any(|value| holds(value, mask)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, body)) = control(input) else {
        return;
    };
    let content_type = choice
        .first()
        .map(|at| TYPES[usize::from(*at) % TYPES.len()]);
    let rules = rules();
    let parsed = serde_json::from_slice::<Value>(body);
    let masked = parsed.is_ok_and(|value| holds(&value, rules.mask()));
    for (method, path) in [
        ("PATCH", "/api/v1/namespaces/shop/secrets/db"),
        ("PATCH", "/api/v1/namespaces/shop/pods/web"),
    ] {
        let target = Target::parse(method, path).expect("a sound path");
        let checked = check_request(&rules, &target, "", content_type, body);
        assert!(
            !(masked && checked == Ok(RequestPlan::SendOn)),
            "the mask is sent on"
        );
        if let Err(refused) = checked {
            assert!(!refused.to_string().is_empty());
        }
    }
});
