//! Certificate signing requests: a request yields the key that signed it, or nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie::identity::csr::public_key;

fuzz_target!(|der: &[u8]| {
    if let Ok(key) = public_key(der) {
        let spki = key.spki_der();
        assert!(
            der.windows(spki.len()).any(|window| window == spki),
            "the key is not of this request"
        );
    }
});
