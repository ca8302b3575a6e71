//! Chains that must and must not pass.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose as Eku, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints,
    SerialNumber,
};
use rustls::pki_types::CertificateDer;

use super::*;
use crate::identity::fixtures::{Forge, House, domain, start, uri};
use crate::identity::{KeyPair, TrustError};
use crate::limits::CHAIN_BYTES;

fn check(forge: &Forge, chain: &[CertificateDer<'_>]) -> Result<VerifiedPeer, PeerError> {
    let domain = domain();
    let wanted = Wanted {
        usage: Usage::Client,
        roles: &[Role::Agent],
        trust_domain: Some(&domain),
    };
    peer(chain, &forge.trust(), wanted, forge.now)
}

fn label(forge: &Forge, change: impl FnOnce(&mut CertificateParams)) -> &'static str {
    check(forge, &[forge.leaf(change)]).map_or_else(|error| error.label(), |_peer| "accepted")
}

/// An extension by its object identifier, content in DER.
fn extension(oid: &[u64], critical: bool, der: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, der.to_vec());
    extension.set_criticality(critical);
    extension
}

const SAN: &[u64] = &[2, 5, 29, 17];
const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];

/// Content of a SAN extension with these names, each a tag and its bytes.
fn san(names: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (tag, bytes) in names {
        body.extend([*tag, u8::try_from(bytes.len()).unwrap()]);
        body.extend_from_slice(bytes);
    }
    let mut out = vec![0x30, 0x81, u8::try_from(body.len()).unwrap()];
    if body.len() < 0x80 {
        out.remove(1);
    }
    out.append(&mut body);
    out
}

const GOOD: &[u8] = b"spiffe://spinnaker.example/agent/prod";
const URI: u8 = 0x86;
const DNS: u8 = 0x82;
const EMAIL: u8 = 0x81;

#[test]
fn a_sound_chain_yields_who_it_is_and_when_it_ends() {
    let forge = Forge::new();
    let key = KeyPair::generate().unwrap();
    let peer = check(&forge, &[forge.leaf_for(&key, |_params| {})]).unwrap();
    assert_eq!(peer.id().to_string().as_bytes(), GOOD);
    assert_eq!(peer.spki_sha256(), key.spki_sha256());
    assert_eq!(peer.not_after(), forge.now + Duration::from_hours(24));
    let short = |params: &mut CertificateParams| {
        params.not_after = (forge.now + Duration::from_hours(2)).into();
    };
    let peer = check(&forge, &forge.below(short)).unwrap();
    assert_eq!(
        peer.not_after(),
        forge.now + Duration::from_hours(2),
        "its issuer ends first"
    );
}

type Change = fn(&mut CertificateParams);

/// What is changed in a sound leaf, and how it is then refused.
const CORPUS: &[(&str, &str, Change)] = &[
    ("as it should be", "accepted", |_| {}),
    ("no usage", "leaf", |p| p.key_usages.clear()),
    ("another usage", "leaf", |p| {
        p.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    }),
    ("may sign certificates", "leaf", |p| {
        p.key_usages.push(KeyUsagePurpose::KeyCertSign);
    }),
    ("may sign revocation lists", "leaf", |p| {
        p.key_usages.push(KeyUsagePurpose::CrlSign);
    }),
    ("no extended usage", "leaf", |p| {
        p.extended_key_usages.clear();
    }),
    ("any extended usage", "usage", |p| {
        p.extended_key_usages = vec![Eku::Any];
    }),
    ("client and any", "leaf", |p| {
        p.extended_key_usages.push(Eku::Any);
    }),
    ("server", "usage", |p| {
        p.extended_key_usages = vec![Eku::ServerAuth];
    }),
    ("client and server", "leaf", |p| {
        p.extended_key_usages.push(Eku::ServerAuth);
    }),
    ("client and code", "leaf", |p| {
        p.extended_key_usages.push(Eku::CodeSigning);
    }),
    ("client and another", "leaf", |p| {
        p.extended_key_usages
            .push(Eku::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 99]));
    }),
    ("a CA", "unacceptable", |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }),
    ("serial zero", "leaf", |p| {
        p.serial_number = Some(SerialNumber::from(vec![0]));
    }),
    ("serial too long", "leaf", |p| {
        p.serial_number = Some(SerialNumber::from(vec![1; 21]));
    }),
    ("critical and unknown", "unacceptable", |p| {
        p.custom_extensions = vec![extension(&[1, 2, 3, 4], true, &[5, 0])];
    }),
    ("name constraints", "leaf", |p| {
        p.custom_extensions = vec![extension(
            NAME_CONSTRAINTS,
            false,
            &[0x30, 5, 0xa0, 3, 0x30, 1, 0x82],
        )];
    }),
    ("expired", "expired", |p| {
        p.not_after = (start() - Duration::from_secs(1)).into();
    }),
    ("not yet valid", "not_yet_valid", |p| {
        p.not_before = (start() + Duration::from_secs(1)).into();
    }),
    ("another trust domain", "trust_domain", |p| {
        p.subject_alt_names = vec![uri("spiffe://elsewhere.example/agent/prod")];
    }),
    ("another role", "role", |p| {
        p.subject_alt_names = vec![uri("spiffe://spinnaker.example/hub/prod")];
    }),
];

#[test]
fn leaves_that_break_a_rule_are_refused() {
    let forge = Forge::new();
    for (what, wanted, change) in CORPUS {
        assert_eq!(label(&forge, change), *wanted, "{what}");
    }
}

#[test]
fn a_subject_is_never_read() {
    let forge = Forge::new();
    let named = |params: &mut CertificateParams| {
        params
            .distinguished_name
            .push(DnType::CommonName, "spiffe://spinnaker.example/hub/x");
    };
    let peer = check(&forge, &[forge.leaf(named)]).unwrap();
    assert_eq!(peer.id().to_string().as_bytes(), GOOD);
}

#[test]
fn names_other_than_one_clean_uri_are_refused() {
    let forge = Forge::new();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("none", san(&[])),
        ("no URI", san(&[(DNS, b"prod")])),
        (
            "two URIs",
            san(&[(URI, GOOD), (URI, b"spiffe://spinnaker.example/agent/x")]),
        ),
        ("the same URI twice", san(&[(URI, GOOD), (URI, GOOD)])),
        (
            "a URI of another scheme too",
            san(&[(URI, GOOD), (URI, b"https://a/")]),
        ),
        (
            "an invalid name beside",
            san(&[(URI, GOOD), (DNS, b"\xff\xfe")]),
        ),
        (
            "an unreadable URI beside",
            san(&[(URI, GOOD), (URI, b"\xff")]),
        ),
        ("an e-mail beside", san(&[(URI, GOOD), (EMAIL, b"a@b")])),
        ("a registered id beside", san(&[(URI, GOOD), (0x88, &[42])])),
        (
            "upper case",
            san(&[(URI, b"spiffe://Spinnaker.example/agent/prod")]),
        ),
        (
            "percent",
            san(&[(URI, b"spiffe://spinnaker.example/agent/pr%6fd")]),
        ),
        (
            "NUL",
            san(&[(URI, b"spiffe://spinnaker.example/agent/prod\0")]),
        ),
        (
            "trailing slash",
            san(&[(URI, b"spiffe://spinnaker.example/agent/prod/")]),
        ),
        (
            "dot segment",
            san(&[(URI, b"spiffe://spinnaker.example/agent/../hub")]),
        ),
        ("no role", san(&[(URI, b"spiffe://spinnaker.example/prod")])),
        (
            "other alphabet",
            san(&[(
                URI,
                "spiffe://spinnaker.example/agent/pr\u{43e}d".as_bytes(),
            )]),
        ),
        ("not DER", vec![0x30, 0x20, 0x86]),
        (
            "followed by other bytes",
            [san(&[(URI, GOOD)]), vec![0]].concat(),
        ),
    ];
    let with = |der: &[u8], critical| {
        let der = der.to_vec();
        label(&forge, move |params| {
            params.subject_alt_names.clear();
            params.custom_extensions = vec![extension(SAN, critical, &der)];
        })
    };
    assert_eq!(with(&san(&[(URI, GOOD)]), true), "accepted");
    assert_eq!(with(&san(&[(URI, GOOD), (DNS, b"prod")]), true), "accepted");
    assert_eq!(with(&san(&[(URI, GOOD)]), false), "leaf", "empty subject");
    for (what, der) in cases {
        assert_ne!(with(&der, true), "accepted", "{what}");
    }
}

#[test]
fn ca_certificates_that_break_a_rule_are_refused() {
    let forge = Forge::new();
    let judge = |change: fn(&mut CertificateParams)| {
        check(&forge, &forge.below(change)).map_or_else(|error| error.label(), |_peer| "accepted")
    };
    assert_eq!(judge(|_params| {}), "accepted");
    assert_eq!(
        judge(|params| params.is_ca = IsCa::ExplicitNoCa),
        "unacceptable"
    );
    assert_eq!(
        judge(|params| params.distinguished_name = DistinguishedName::new()),
        "issuer"
    );
    assert_eq!(
        judge(|params| params.serial_number = Some(SerialNumber::from(vec![0]))),
        "issuer"
    );
    assert_eq!(
        judge(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
        "issuer"
    );
    assert_ne!(
        judge(|params| {
            params.custom_extensions = vec![extension(
                NAME_CONSTRAINTS,
                false,
                &[0x30, 7, 0xa0, 5, 0x30, 3, 0x82, 1, b'a'],
            )];
        }),
        "accepted"
    );
    assert_ne!(
        judge(|params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName("elsewhere".to_owned())],
                excluded_subtrees: Vec::new(),
            });
            params.custom_extensions = vec![extension(&[1, 2, 3, 4], true, &[5, 0])];
        }),
        "accepted"
    );
}

#[test]
fn certificates_that_cannot_be_roots_are_not_trusted() {
    let judge = |change: fn(&mut CertificateParams)| {
        TrustBundle::new(1, &[Forge::with_root(change).root]).map(|_bundle| ())
    };
    let refused = |result: Result<(), TrustError>| matches!(result, Err(TrustError::Root { .. }));
    assert_eq!(judge(|_params| {}), Ok(()));
    assert!(refused(judge(|params| params.is_ca = IsCa::NoCa)));
    assert!(refused(judge(|params| params.is_ca = IsCa::ExplicitNoCa)));
    assert!(refused(judge(
        |params| params.distinguished_name = DistinguishedName::new()
    )));
    assert!(refused(judge(|params| {
        params.custom_extensions = vec![extension(&[1, 2, 3, 4], true, &[5, 0])];
    })));
    assert!(refused(judge(
        |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]
    )));
    let forge = Forge::new();
    assert!(refused(
        TrustBundle::new(1, &[forge.leaf(|_params| {})]).map(|_bundle| ())
    ));
    let [_, intermediate] = forge.below(|_params| {}).try_into().unwrap();
    assert!(
        refused(TrustBundle::new(1, &[intermediate]).map(|_bundle| ())),
        "not self-signed"
    );
    let mut forged = forge.root.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert!(
        refused(TrustBundle::new(1, &[forged.into()]).map(|_bundle| ())),
        "bad signature"
    );
}

#[test]
fn an_expired_root_ends_the_trust_in_it() {
    let end = |params: &mut CertificateParams| {
        params.not_after =
            (crate::clock::from_unix_seconds(1_800_000_000) - Duration::from_secs(1)).into();
    };
    let forge = Forge::with_root(end);
    assert_eq!(label(&forge, |_params| {}), "untrusted_root");
}

#[test]
fn another_ca_of_the_same_name_is_not_trusted() {
    let (ours, theirs) = (Forge::new(), Forge::new());
    let refused = check(&ours, &[theirs.leaf(|_params| {})]).unwrap_err();
    assert_eq!(refused.label(), "signature");
    let with_their_root = [theirs.leaf(|_params| {}), theirs.root.clone()];
    assert!(check(&ours, &with_their_root).is_err());
}

#[test]
fn long_and_large_chains_are_refused_before_they_are_parsed() {
    let forge = Forge::new();
    let junk = CertificateDer::from(vec![0; 16]);
    let refused = check(&forge, &vec![junk; 5]).unwrap_err();
    assert_eq!(refused, PeerError::ChainLength { certificates: 5 });
    let large = CertificateDer::from(vec![0; CHAIN_BYTES + 1]);
    assert_eq!(check(&forge, &[large]).unwrap_err().label(), "chain_bytes");
    assert_eq!(check(&forge, &[]).unwrap_err().label(), "malformed");
    assert_eq!(
        check(&forge, std::slice::from_ref(&forge.root))
            .unwrap_err()
            .label(),
        "unacceptable"
    );
    let mut longer = forge.leaf(|_params| {}).to_vec();
    longer.push(0);
    assert!(check(&forge, &[longer.into()]).is_err());
}

#[test]
fn keys_of_other_kinds_are_refused_in_leaves() {
    let forge = Forge::new();
    for (algorithm, welcome) in [
        (&rcgen::PKCS_ECDSA_P384_SHA384, true),
        (&rcgen::PKCS_ED25519, true),
        (&rcgen::PKCS_ECDSA_P521_SHA512, false),
    ] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let outcome = check(&forge, &[forge.leaf_for(&key, |_params| {})]);
        assert_eq!(outcome.is_ok(), welcome, "{algorithm:?}");
    }
    for (modulus_bytes, welcome) in [(128, false), (255, false), (256, true)] {
        let outcome = check(&forge, &[forge.leaf_for(&rsa(modulus_bytes), |_params| {})]);
        assert_eq!(
            outcome.is_ok(),
            welcome,
            "RSA with {modulus_bytes} bytes: {outcome:?}"
        );
    }
}

/// An RSA key that nobody signs with: the DER of its `RSAPublicKey`.
struct Rsa(Vec<u8>);

fn rsa(modulus_bytes: u16) -> Rsa {
    let tagged = |tag: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], body].concat()
    };
    let modulus = [vec![0], vec![0xff; usize::from(modulus_bytes)]].concat();
    Rsa(tagged(
        0x30,
        &[tagged(2, &modulus), vec![2, 3, 1, 0, 1]].concat(),
    ))
}

impl rcgen::PublicKeyData for Rsa {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_RSA_SHA256
    }
}

#[test]
fn our_own_leaves_pass_in_their_role_and_in_no_other() {
    let house = House::new();
    let all = [Role::Admin, Role::Agent, Role::Client, Role::Hub];
    for role in all {
        let (_, issued) = house.issue(role, "somebody");
        for wanted in all {
            let usage = crate::identity::profile::profile(wanted).usage;
            let wanted = Wanted {
                usage,
                roles: &[wanted],
                trust_domain: None,
            };
            let outcome = peer(&issued.chain, &house.trust(), wanted, house.now());
            assert_eq!(
                outcome.is_ok(),
                wanted.roles == [role],
                "{role} as {wanted:?}"
            );
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_check_panic(der in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let forge = Forge::new();
        proptest::prop_assert!(check(&forge, &[der.into()]).is_err());
    }

    #[test]
    fn a_changed_leaf_is_refused(at in 0usize..400, flip in 1u8..) {
        let forge = Forge::new();
        let mut leaf = forge.leaf(|_params| {}).to_vec();
        let at = at % leaf.len();
        leaf[at] ^= flip;
        proptest::prop_assert!(check(&forge, &[leaf.into()]).is_err());
    }
}
