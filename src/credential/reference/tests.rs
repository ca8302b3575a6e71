use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    Reference::parse(text).unwrap().canonical()
}

#[test]
fn both_forms_name_the_same_secret() {
    for (text, expected) in [
        (
            "sec+vault://prod-vault/secret/spinnaker/shop#kubeconfig",
            "sec+vault://prod-vault/secret/spinnaker/shop#kubeconfig",
        ),
        (
            "sec+vault://p/team%2Fkv/a%20b?version=3#k",
            "sec+vault://p/team%2Fkv/a%20b?version=3#k",
        ),
        (
            "encrypted:vault!e:secret!p:spinnaker/shop!k:kubeconfig",
            "sec+vault:///secret/spinnaker/shop#kubeconfig",
        ),
        (
            "encryptedFile:vault!e:secret!n:kubernetes!k:a:b!b:true",
            "sec+vault:///secret/kubernetes?encoding=base64#a%3Ab",
        ),
    ] {
        assert_eq!(canonical(text), expected);
        assert_eq!(canonical(expected), expected);
    }
}

#[test]
fn what_is_not_exactly_a_reference_is_an_error() {
    for text in [
        "",
        "plain",
        "sec+vault:secret/a#k",
        "sec+vault://user@p/secret/a#k",
        "sec+vault://p:8200/secret/a#k",
        "sec+vault://p/secret/a",
        "sec+vault://p/secret/a#",
        "sec+vault://p/secret#k",
        "sec+vault://p/secret/../sys/a#k",
        "sec+vault://p/secret/%2e%2e/a#k",
        "sec+vault://p/secret/a%2Fb#k",
        "sec+vault://p/secret/a//b#k",
        "sec+vault://p/secret/a?version=0#k",
        "sec+vault://p/secret/a?version=+1#k",
        "sec+vault://p/secret/a?version=1&version=2#k",
        "sec+vault://p/secret/a?x=1#k",
        "sec+vault://p/secret/a%4#k",
        "sec+vault://p/secret/a b#k",
        "encrypted:vault",
        "encrypted:vault!",
        "encrypted:vault!e:secret!p:a",
        "encrypted:vault!e:secret!p:a!n:a!k:k",
        "encrypted:vault!e:secret!p:a!k:k!x:y",
        "encrypted:vault!e:secret!p:a!k",
        "encrypted:vault!e:secret!p:a!k:k!b:yes",
    ] {
        let error = Reference::parse(text).unwrap_err();
        assert!(matches!(error, ReferenceError::Form(_)), "{text}");
    }
}

#[test]
fn an_engine_of_another_version_is_named() {
    for (text, engine) in [
        ("sec+aws://p/a#k", "aws"),
        ("encrypted:s3!b:x!f:y", "s3"),
        ("encryptedFile:k8s!n:a!k:b", "k8s"),
        ("secret://secrets-manager?s=a", "secrets-manager"),
    ] {
        let error = Reference::parse(text).unwrap_err();
        assert_eq!(error, ReferenceError::Engine(engine.to_owned()));
    }
}

proptest! {
    #[test]
    fn the_canonical_form_is_read_back_as_itself(
        mount in "[a-z/%]{1,8}", path in "[a-z/% .]{1,12}", key in "[ -~]{1,8}",
        version in proptest::option::of(1..u64::MAX), base64: bool,
    ) {
        if let Ok(reference) = vault(Some("p".to_owned()), (mount, path), version, (key, base64)) {
            prop_assert_eq!(Reference::parse(&reference.canonical()), Ok(reference));
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(sec\\+vault://|encrypted:vault!)?[ -~]{0,60}") {
        drop(Reference::parse(&text));
    }
}
