//! References to secrets: the canonical form of what is read reads back as the same, and a mistake
//! lies within the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie::credential::Reference;

fuzz_target!(|text: &str| {
    match Reference::parse(text) {
        Ok(reference) => {
            assert_eq!(Reference::parse(&reference.canonical()), Ok(reference));
        }
        Err(error) => assert!(error.at <= text.len(), "{error}"),
    }
});
