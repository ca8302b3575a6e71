//! ServiceAccount tokens: nothing that the fuzzer can write was signed by the cluster's key.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use sortie::identity::service_account::TokenIssuer;

const ISSUER: &str = "https://oidc.example/id/cluster-1";

/// The generator of P-256 as a public key; its private key is 1, so no seed is signed with it.
const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"one","use":"sig","alg":"ES256",
"x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;

fn issuer(jwks: &[u8]) -> Option<TokenIssuer> {
    TokenIssuer::new(ISSUER, jwks, &"spinnaker.example".parse().ok()?).ok()
}

fn check(token: &str) {
    static KNOWN: LazyLock<Option<TokenIssuer>> = LazyLock::new(|| issuer(JWKS.as_bytes()));
    let known = KNOWN.as_ref().expect("the key set is sound");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let verdict = known.verify(token, now);
    assert!(
        verdict.is_err(),
        "an unsigned token is accepted: {verdict:?}"
    );
}

fuzz_target!(|text: &str| {
    check(text);
    // Header and claims on two lines, as JSON.
    let (header, claims) = text.split_once('\n').unwrap_or((text, ""));
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    check(&format!(
        "{}.{}.{}",
        part(header),
        part(claims),
        part("signature")
    ));
    check(&format!("{}.{}.", part(header), part(claims)));
    drop(issuer(text.as_bytes()));
});
