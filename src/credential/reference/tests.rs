use proptest::option;
use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    Reference::parse(text).unwrap().canonical()
}

fn mistake(text: &str) -> String {
    Reference::parse(text).unwrap_err().to_string()
}

#[test]
fn the_forms_of_spinnaker_name_the_same_secret_as_ours() {
    for (text, expected) in [
        (
            "encrypted:vault!e:secret!p:spinnaker/shop!k:kubeconfig",
            "sec+vault:///secret/spinnaker/shop#kubeconfig",
        ),
        (
            "encryptedFile:vault!e:secret!n:kubernetes!k:a:b!b:true",
            "sec+vault:///secret/kubernetes?encoding=base64#a%3Ab",
        ),
        (
            "encryptedFile:s3!r:eu-west-1!b:kc!f:a/b.yaml",
            "sec+s3:///kc/a/b.yaml?region=eu-west-1",
        ),
        (
            "encrypted:gcs!b:kc!f:/a//b.yaml!k:x.y",
            "sec+gcs:///kc//a//b.yaml#x.y",
        ),
        (
            "secret://secrets-manager?r=eu-west-1&s=team%2Fshop&k=kubeconfig",
            "sec+secrets-manager:///team/shop?region=eu-west-1#kubeconfig",
        ),
        (
            "boot-secret://google-secrets-manager?p=123&s=shop&v=latest",
            "sec+google-secrets-manager:///123/shop",
        ),
        (
            "encryptedFile:k8s!n:Shop!k:config!ns:spinnaker",
            "sec+k8s:///spinnaker/shop#config",
        ),
        ("encrypted:noop!v:a/b%2F", "sec+noop:///a%2Fb%252F"),
    ] {
        assert_eq!(canonical(text), expected);
    }
}

#[test]
fn the_canonical_form_stays_as_it_is() {
    for text in [
        "sec+file://mounted/",
        "sec+file://mounted/a/b.yaml",
        "sec+file://mounted/#*",
        "sec+gcs://p/bucket/a%20b/c#x.y",
        "sec+google-secrets-manager://p/example.com%3Ashop/kc?version=7",
        "sec+k8s://p/shop#*",
        "sec+k8s://p/team/shop#config",
        "sec+noop:///value",
        "sec+s3:///bucket/a?region=eu-west-1&encoding=base64#%2A",
        "sec+secrets-manager://p/arn%3Aaws%3Asecretsmanager%3Aeu-west-1%3A1%3Asecret%3Ashop#k",
        "sec+secrets-manager://p//shop?version=a-b&stage=AWSPREVIOUS",
        "sec+vault://p/team%2Fkv/a%20b?version=3#k",
        "sec+vault://prod-vault/secret/spinnaker/shop#kubeconfig",
    ] {
        assert_eq!(canonical(text), text);
    }
}

#[test]
fn a_mistake_has_a_place_and_says_what_belongs_there() {
    // `tests/golden/references` has all of them.
    for (text, expected) in [
        ("plain", "byte 0: expected `sec+ENGINE://`, `encrypted:`"),
        (
            "encrypted:aws!s:a",
            "byte 10: no engine `aws`; expected one of",
        ),
        (
            "encrypted:vault!e:a!e:b",
            "byte 20: the parameter `e` is given twice",
        ),
        (
            "encrypted:vault!e:a!k:b",
            "byte 23: expected the parameter `p`",
        ),
        (
            "encrypted:vault!e:a!p:b!k:c d",
            "byte 27: expected a character",
        ),
        ("secret://vault", "byte 14: expected `?`"),
        (
            "sec+vault://p:8200/a/b#k",
            "byte 13: expected the name of a connection",
        ),
        (
            "sec+vault://p/secret/a?x=1#k",
            "byte 23: no parameter `x` here",
        ),
        ("sec+k8s://p/a/b/c#k", "byte 16: expected no more than"),
    ] {
        let told = mistake(text);
        assert!(
            told.starts_with(&format!("secret reference, {expected}")),
            "{text}: {told}"
        );
    }
}

#[test]
fn a_value_is_neither_in_a_mistake_nor_in_what_people_see() {
    let planted = "planted-value";
    for text in [
        format!("encrypted:noop!v:{planted}!{planted}"),
        format!("encrypted:vault!e:{planted}!p:../{planted}!k:a"),
        format!("sec+noop://p/{planted}/{planted}"),
        format!("sec+vault://{planted}@x/{planted}#k"),
        format!("{planted}:{planted}"),
    ] {
        assert!(!mistake(&text).contains(planted), "{}", mistake(&text));
    }
    let reference = Reference::parse(&format!("encrypted:noop!v:{planted}")).unwrap();
    let shown = format!("{reference} {reference:?} {}", reference.locator);
    assert!(!shown.contains(planted), "{shown}");
    assert!(reference.canonical().contains(planted));
}

/// Values of each kind that a reference can have.
fn references() -> impl Strategy<Value = Reference> {
    let path = || "[a-z!:% .é]{1,8}[a-z](/[a-zé]{1,4}){0,2}";
    let word = || "[a-z][a-z0-9]{0,8}";
    let locators = prop_oneof![
        path().prop_map(|path| Locator::File { path }),
        (word(), path()).prop_map(|(bucket, object)| Locator::Gcs { bucket, object }),
        (word(), word(), option::of("[0-9]{1,4}")).prop_map(|(project, secret, version)| {
            Locator::GoogleSecret {
                project,
                secret,
                version,
            }
        }),
        (option::of(word()), word())
            .prop_map(|(namespace, name)| Locator::KubernetesSecret { namespace, name }),
        "[ -~é]{1,12}".prop_map(|value| Locator::Noop { value }),
        (option::of(word()), word(), path()).prop_map(|(region, bucket, object)| {
            Locator::S3 {
                region,
                bucket,
                object,
            }
        }),
        (
            option::of(word()),
            "[a-z/:+=@!]{1,12}",
            option::of(word()),
            option::of(word())
        )
            .prop_map(|(region, name, version, stage)| {
                Locator::AwsSecret {
                    region,
                    name,
                    version,
                    stage,
                }
            }),
        (path(), path(), option::of(1..u64::MAX)).prop_map(|(mount, path, version)| {
            Locator::Vault {
                mount,
                path,
                version,
            }
        }),
    ];
    let keys = prop_oneof![
        Just(Key::Whole),
        Just(Key::Each),
        "[ -~é]{1,8}".prop_map(Key::Named),
    ];
    let profile = option::of("[A-Za-z0-9._-]{1,8}");
    (profile, locators, keys, any::<bool>()).prop_map(|(profile, locator, key, base64)| {
        let (key, base64) = match (&locator, key) {
            (Locator::Noop { .. }, _) => (Key::Whole, false),
            (Locator::Vault { .. } | Locator::KubernetesSecret { .. }, Key::Whole) => {
                (Key::Each, base64)
            }
            (_, key) => (key, base64),
        };
        Reference {
            profile,
            locator,
            key,
            base64,
        }
    })
}

proptest! {
    #[test]
    fn the_canonical_form_is_read_back_as_itself(reference in references()) {
        prop_assert_eq!(Reference::parse(&reference.canonical()), Ok(reference));
    }

    #[test]
    fn no_text_makes_the_parser_panic(
        lead in "(sec\\+|encrypted(File)?:|(boot-)?secret://)?(vault|s3|k8s|noop)?(://|!)?",
        text in "[ -~é]{0,60}",
    ) {
        let text = format!("{lead}{text}");
        match Reference::parse(&text) {
            Ok(reference) => prop_assert_eq!(Reference::parse(&reference.canonical()), Ok(reference)),
            Err(error) => prop_assert!(error.at <= text.len()),
        }
    }
}
