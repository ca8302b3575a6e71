//! The YAML reader, over any text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie::yaml;

fuzz_target!(|text: &str| {
    let read = yaml::parse(text);
    if let Err(error) = &read {
        assert!(!error.to_string().is_empty());
    }
    // What serde_json takes for an object of strings is read as the same, or refused.
    if let Ok(serde_json::Value::Object(members)) = serde_json::from_str(text)
        && let Ok(node) = read
    {
        for (key, value) in &members {
            if let (Some(value), Some(node)) = (value.as_str(), node.get(key)) {
                assert_eq!(node.as_str(), Some(value));
            }
        }
    }
});
