//! References to secrets: the canonical form of what is read reads back as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie::credential::Reference;

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(Reference::parse(&reference.canonical()), Ok(reference));
    }
});
