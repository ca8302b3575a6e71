//! A sound token of each algorithm, and a corpus of tokens that each break one rule.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::*;
use crate::clock::from_unix_seconds;
use crate::identity::{KeyPair, TrustDomain};

const ISSUER: &str = "https://oidc.example/id/cluster-1";
const NOW: u64 = 1_800_000_000;

struct Cluster {
    key: KeyPair,
    issuer: TokenIssuer,
}

fn domain() -> TrustDomain {
    "spinnaker.example".parse().unwrap()
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The JWK of a P-256 key.
fn jwk(key: &KeyPair, id: &str) -> Value {
    let point = rcgen::PublicKeyData::der_bytes(key);
    json!({
        "kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "alg": "ES256",
        "x": b64(&point[1..33]), "y": b64(&point[33..65]),
    })
}

impl Cluster {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let set = json!({ "keys": [jwk(&key, "one"), jwk(&KeyPair::generate().unwrap(), "two")] });
        let issuer = TokenIssuer::new(ISSUER, set.to_string().as_bytes(), &domain()).unwrap();
        Self { key, issuer }
    }

    /// A token with this header and these claims, signed with ES256 by `key`.
    fn token(key: &KeyPair, header: &Value, claims: &Value) -> String {
        Self::signed(key, &header.to_string(), &claims.to_string())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the tests sign with the library's own signer"
    )]
    fn signed(key: &KeyPair, header: &str, claims: &str) -> String {
        use secrecy::ExposeSecret as _;

        let message = format!("{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()));
        let pkcs8 = key.to_pkcs8().unwrap();
        let signer = EncodingKey::from_ec_der(pkcs8.expose_secret());
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &signer, Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    }

    fn verify(&self, token: &str) -> Result<Attested, TokenError> {
        self.issuer.verify(token, from_unix_seconds(NOW))
    }

    /// What becomes of the sound token after `change`.
    fn after(&self, change: impl FnOnce(&mut Value, &mut Value)) -> Result<Attested, TokenError> {
        let (mut header, mut claims) = (header(), claims());
        change(&mut header, &mut claims);
        self.verify(&Self::token(&self.key, &header, &claims))
    }
}

fn header() -> Value {
    json!({ "alg": "ES256", "kid": "one" })
}

fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "aud": ["spiffe://spinnaker.example/hub"],
        "sub": "system:serviceaccount:sortie:agent",
        "jti": "0c3c1a8a",
        "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 3590,
        "kubernetes.io": {
            "namespace": "sortie",
            "serviceaccount": { "name": "agent", "uid": "sa-uid" },
            "pod": { "name": "agent-0", "uid": "pod-uid" },
            "node": { "name": "node-1", "uid": "node-uid" },
        },
    })
}

#[test]
fn a_sound_token_attests_its_pod() {
    let attested = Cluster::new().after(|_header, _claims| {}).unwrap();
    assert_eq!(attested.namespace, "sortie");
    assert_eq!(attested.service_account, "agent");
    assert_eq!(
        (attested.pod.as_str(), attested.pod_uid.as_str()),
        ("agent-0", "pod-uid")
    );
    assert_eq!(attested.expires_at, from_unix_seconds(NOW + 3590));
}

#[test]
fn the_edges_of_time_are_where_they_should_be() {
    let cluster = Cluster::new();
    let with = |iat: u64, nbf: u64, exp: u64| {
        cluster.after(|_header, claims| {
            claims["iat"] = iat.into();
            claims["nbf"] = nbf.into();
            claims["exp"] = exp.into();
        })
    };
    assert!(with(NOW - 3600, NOW - 3600, NOW - 59).is_ok());
    assert!(with(NOW + 60, NOW + 60, NOW + 600).is_ok());
    assert!(with(NOW - 10, NOW - 10, NOW + 3600).is_ok());
    assert_eq!(
        with(NOW - 3600, NOW - 3600, NOW - 60),
        Err(TokenError::Expired)
    );
    assert_eq!(with(NOW + 61, NOW, NOW + 600), Err(TokenError::NotYetValid));
    assert_eq!(with(NOW, NOW + 61, NOW + 600), Err(TokenError::NotYetValid));
    assert_eq!(
        with(NOW - 10, NOW - 10, NOW + 3601),
        Err(TokenError::Lifetime)
    );
}

type Change = fn(&mut Value, &mut Value);

/// The claim with what the token is bound to.
const CLAIMS: &str = "kubernetes.io";

/// What is changed in a sound token (header, claims), and how it is then refused.
const CORPUS: &[(&str, TokenError, Change)] = &[
    ("other issuer", TokenError::Issuer, |_, c| {
        c["iss"] = "https://elsewhere".into();
    }),
    ("issuer with slash", TokenError::Issuer, |_, c| {
        c["iss"] = format!("{ISSUER}/").into();
    }),
    ("issuer in upper case", TokenError::Issuer, |_, c| {
        c["iss"] = ISSUER.to_uppercase().into();
    }),
    ("issuers as a list", TokenError::Malformed, |_, c| {
        c["iss"] = json!([ISSUER]);
    }),
    ("no issuer", TokenError::Malformed, |_, c| {
        drop(c["iss"].take());
    }),
    ("other audience", TokenError::Audience, |_, c| {
        c["aud"] = json!(["vault"]);
    }),
    ("audience of the API", TokenError::Audience, |_, c| {
        c["aud"] = json!(["https://kubernetes.default.svc"]);
    }),
    ("two audiences", TokenError::Audience, |_, c| {
        c["aud"] = json!(["spiffe://spinnaker.example/hub", "vault"]);
    }),
    ("the audience twice", TokenError::Audience, |_, c| {
        c["aud"] = json!([
            "spiffe://spinnaker.example/hub",
            "spiffe://spinnaker.example/hub"
        ]);
    }),
    ("no audience in the list", TokenError::Audience, |_, c| {
        c["aud"] = json!([]);
    }),
    ("null audience", TokenError::Malformed, |_, c| {
        c["aud"] = Value::Null;
    }),
    ("audience below ours", TokenError::Audience, |_, c| {
        c["aud"] = json!(["spiffe://spinnaker.example/hub/hub-1"]);
    }),
    ("hub of another domain", TokenError::Audience, |_, c| {
        c["aud"] = json!(["spiffe://elsewhere.example/hub"]);
    }),
    ("expired", TokenError::Expired, |_, c| {
        c["exp"] = (NOW - 61).into();
    }),
    ("no end", TokenError::Malformed, |_, c| {
        drop(c["exp"].take());
    }),
    ("end as text", TokenError::Malformed, |_, c| {
        c["exp"] = "1800003590".into();
    }),
    ("negative end", TokenError::Malformed, |_, c| {
        c["exp"] = json!(-1);
    }),
    ("fractional end", TokenError::Malformed, |_, c| {
        c["exp"] = json!(1.9e9);
    }),
    ("end before start", TokenError::Malformed, |_, c| {
        c["exp"] = (NOW + 5).into();
        c["iat"] = (NOW + 30).into();
    }),
    ("from the future", TokenError::NotYetValid, |_, c| {
        c["iat"] = (NOW + 90).into();
    }),
    ("not begun", TokenError::NotYetValid, |_, c| {
        c["nbf"] = (NOW + 90).into();
    }),
    ("no issue time", TokenError::Malformed, |_, c| {
        drop(c["iat"].take());
    }),
    ("no start", TokenError::Malformed, |_, c| {
        drop(c["nbf"].take());
    }),
    ("lives a year", TokenError::Lifetime, |_, c| {
        c["exp"] = (NOW + 31_536_000).into();
    }),
    ("lives for ever", TokenError::Lifetime, |_, c| {
        c["exp"] = u64::MAX.into();
    }),
    ("a legacy token", TokenError::Claims, |_, c| {
        c.as_object_mut().unwrap().remove(CLAIMS).unwrap();
    }),
    ("not bound to a pod", TokenError::Claims, |_, c| {
        c[CLAIMS].as_object_mut().unwrap().remove("pod").unwrap();
    }),
    ("no namespace", TokenError::Malformed, |_, c| {
        drop(c[CLAIMS]["namespace"].take());
    }),
    ("empty namespace", TokenError::Claims, |_, c| {
        c[CLAIMS]["namespace"] = "".into();
    }),
    ("no account name", TokenError::Malformed, |_, c| {
        drop(c[CLAIMS]["serviceaccount"]["name"].take());
    }),
    ("empty account uid", TokenError::Claims, |_, c| {
        c[CLAIMS]["serviceaccount"]["uid"] = "".into();
    }),
    ("empty pod uid", TokenError::Claims, |_, c| {
        c[CLAIMS]["pod"]["uid"] = "".into();
    }),
    ("subject of another account", TokenError::Claims, |_, c| {
        c["sub"] = "system:serviceaccount:kube-system:admin".into();
    }),
    ("subject of a person", TokenError::Claims, |_, c| {
        c["sub"] = "alice".into();
    }),
    ("no algorithm", TokenError::Malformed, |h, _| {
        h["alg"] = "none".into();
    }),
    ("None", TokenError::Malformed, |h, _| {
        h["alg"] = "None".into();
    }),
    ("HMAC", TokenError::Signature, |h, _| {
        h["alg"] = "HS256".into();
    }),
    ("another curve", TokenError::Signature, |h, _| {
        h["alg"] = "ES384".into();
    }),
    ("RSA", TokenError::Signature, |h, _| {
        h["alg"] = "RS256".into();
    }),
    ("RSA-PSS", TokenError::Signature, |h, _| {
        h["alg"] = "PS256".into();
    }),
    ("unknown key", TokenError::Key, |h, _| {
        h["kid"] = "three".into();
    }),
    ("no key id", TokenError::Key, |h, _| drop(h["kid"].take())),
    ("key id as a path", TokenError::Key, |h, _| {
        h["kid"] = "../../one".into();
    }),
    ("the other key's id", TokenError::Signature, |h, _| {
        h["kid"] = "two".into();
    }),
    ("a critical extension", TokenError::Malformed, |h, _| {
        h["crit"] = json!(["exp"]);
    }),
];

#[test]
fn no_token_that_breaks_a_rule_is_accepted() {
    assert!(CORPUS.len() >= 30);
    let cluster = Cluster::new();
    for (what, error, change) in CORPUS {
        assert_eq!(cluster.after(change).unwrap_err(), *error, "{what}");
    }
}

#[test]
fn no_token_whose_text_was_changed_is_accepted() {
    let cluster = Cluster::new();
    let sound = Cluster::token(&cluster.key, &header(), &claims());
    let parts: Vec<&str> = sound.split('.').collect();
    let stranger = KeyPair::generate().unwrap();
    let with_own_key = json!({ "alg": "ES256", "kid": "one", "jwk": jwk(&stranger, "one") });
    let twice = r#"{"alg":"ES256","kid":"one","alg":"none"}"#;
    for (what, token) in [
        ("empty", String::new()),
        ("dots", "..".to_owned()),
        ("two parts", parts[..2].join(".")),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        (
            "half a signature",
            sound.split_at(sound.len() - 43).0.to_owned(),
        ),
        ("four parts", format!("{sound}.{}", parts[2])),
        ("white space", format!("{sound}\n")),
        ("padding", format!("{sound}==")),
        ("too long", format!("{sound}{}", "A".repeat(TOKEN_BYTES))),
        (
            "zero signature",
            format!("{}.{}.{}", parts[0], parts[1], b64(&[0; 64])),
        ),
        (
            "signed by a stranger",
            Cluster::token(&stranger, &header(), &claims()),
        ),
        (
            "with the stranger's key",
            Cluster::token(&stranger, &with_own_key, &claims()),
        ),
        (
            "doubled header field",
            format!("{}.{}.{}", b64(twice.as_bytes()), parts[1], parts[2]),
        ),
        (
            "another payload",
            format!("{}.{}.{}", parts[0], b64(b"{}"), parts[2]),
        ),
    ] {
        assert!(cluster.verify(&token).is_err(), "{what}");
    }
    assert!(cluster.verify(&sound).is_ok());
}

#[test]
fn a_claim_that_is_given_twice_is_refused() {
    let cluster = Cluster::new();
    let sign = |claims: &str| Cluster::signed(&cluster.key, &header().to_string(), claims);
    let sound = claims().to_string();
    assert!(cluster.verify(&sign(&sound)).is_ok());
    let doubled = sound.replacen('{', r#"{"iss":"https://elsewhere","#, 1);
    assert_eq!(cluster.verify(&sign(&doubled)), Err(TokenError::Malformed));
}

#[test]
fn key_sets_with_a_key_that_is_not_used_are_refused() {
    let read = |set: Value| TokenIssuer::new(ISSUER, set.to_string().as_bytes(), &domain());
    let sound = jwk(&KeyPair::generate().unwrap(), "one");
    let with = |change: fn(&mut Value)| {
        let mut key = sound.clone();
        change(&mut key);
        read(json!({ "keys": [key] }))
    };
    assert!(with(|_key| {}).is_ok());
    assert!(with(|key| drop(key["alg"].take())).is_ok());
    for change in [
        (|key| key["alg"] = "ES384".into()) as fn(&mut Value),
        |key| key["use"] = "enc".into(),
        |key| key["crv"] = "P-521".into(),
        |key| key["kty"] = "XX".into(),
        |key| *key = json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "one" }),
        |key| *key = json!({ "kty": "RSA", "n": b64(&[0xff; 128]), "e": "AQAB", "kid": "one" }),
        |key| *key = json!({ "kty": "OKP", "crv": "X25519", "x": b64(&[1; 32]), "kid": "one" }),
        |key| *key = json!("one"),
    ] {
        let refused = with(change).unwrap_err();
        assert!(matches!(refused, JwksError::Key { .. }), "{refused:?}");
    }
    assert!(matches!(
        read(json!({ "keys": [] })),
        Err(JwksError::Count { keys: 0 })
    ));
    let many = vec![sound.clone(); JWKS_KEYS + 1];
    assert!(matches!(
        read(json!({ "keys": many })),
        Err(JwksError::Count { keys: 17 })
    ));
    assert!(matches!(read(json!([])), Err(JwksError::Malformed)));
    let long = vec![b' '; JWKS_BYTES + 1];
    assert!(matches!(
        TokenIssuer::new(ISSUER, &long, &domain()),
        Err(JwksError::TooLong)
    ));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(header in "\\PC{0,60}", claims in "\\PC{0,60}", raw in "\\PC{0,120}") {
        let cluster = Cluster::new();
        let token = format!("{}.{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()), b64(b"x"));
        proptest::prop_assert!(cluster.verify(&token).is_err());
        proptest::prop_assert!(cluster.verify(&raw).is_err());
    }
}
