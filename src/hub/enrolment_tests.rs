//! The rules of join tokens and of what is remembered of certificates.

use super::super::registry::{Registry, Token};
use super::super::store::Store;
use super::*;
use crate::entropy;

const NOW: u64 = 1_000_000;

/// A registry with the token `one` for agent `a` and account `shop`, and its secret.
fn registry(folder: &tempfile::TempDir) -> (Arc<Registry>, SecretBytes) {
    let registry = Registry::open(Arc::new(Store::open(folder.path()).unwrap())).unwrap();
    let secret = join::new_secret(&*entropy::system());
    let token = Token {
        agent: "a".into(),
        accounts: ["shop".to_owned()].into(),
        secret_sha256: hex::encode(join::secret_digest(&secret)),
        expires: NOW + 60,
        spent_on: None,
    };
    let added = registry.update_blocking(|tables| {
        tables.tokens.put("one", token);
        Ok(())
    });
    added.unwrap();
    (registry, secret)
}

/// Spends the token; the accounts, or the label of the refusal.
fn spend(
    registry: &Registry,
    id: &str,
    secret: &SecretBytes,
    agent: &str,
    key: &str,
    now: u64,
) -> Result<Vec<String>, &'static str> {
    let spent = registry
        .update_blocking(|tables| spend_token(tables, id, secret, agent, key.to_owned(), now));
    match spent {
        Ok(accounts) => Ok(accounts.into_iter().collect()),
        Err(RegistryError::Refused(label)) => Err(token_refused(&label, "lab", "lab").label),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_token_is_spent_on_one_public_key() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, secret) = registry(&folder);
    let shop = Ok(vec!["shop".to_owned()]);
    assert_eq!(spend(&registry, "one", &secret, "a", "k1", NOW), shop);
    // The answer to the first attempt may have been lost.
    assert_eq!(spend(&registry, "one", &secret, "a", "k1", NOW), shop);
    let other = spend(&registry, "one", &secret, "a", "k2", NOW);
    assert_eq!(other, Err("TokenUsed"));
}

#[test]
fn a_token_ends_at_its_time_even_for_the_key_it_was_spent_on() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, secret) = registry(&folder);
    assert!(spend(&registry, "one", &secret, "a", "k1", NOW + 59).is_ok());
    let late = spend(&registry, "one", &secret, "a", "k1", NOW + 60);
    assert_eq!(late, Err("TokenExpired"));
}

#[test]
fn a_wrong_secret_is_told_like_an_unknown_token() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, secret) = registry(&folder);
    let wrong = join::new_secret(&*entropy::system());
    for (id, secret) in [
        ("two", &secret),
        ("one", &wrong),
        ("one", &SecretBytes::new(Vec::new())),
    ] {
        // Even where more is wrong: nothing is told to those without the secret.
        let refused = spend(&registry, id, secret, "b", "k1", NOW + 600);
        assert_eq!(refused, Err("TokenUnknown"));
    }
}

#[test]
fn a_refused_attempt_does_not_spend_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, secret) = registry(&folder);
    let name = spend(&registry, "one", &secret, "b", "k2", NOW);
    assert_eq!(name, Err("TokenName"));
    let wrong = join::new_secret(&*entropy::system());
    assert!(spend(&registry, "one", &wrong, "a", "k2", NOW).is_err());
    assert!(spend(&registry, "one", &secret, "a", "k1", NOW).is_ok());
}

#[test]
fn refusals_about_tokens_are_final() {
    for label in ["TokenExpired", "TokenName", "TokenUsed", "TokenUnknown"] {
        let refused = token_refused(label, "lab", "shop");
        assert_eq!(refused.label, label);
        assert_eq!(refused.status().code(), tonic::Code::PermissionDenied);
    }
    let later = Refused::for_now("Store", "the disk is full").status();
    assert_eq!(later.code(), tonic::Code::Unavailable);
}

#[test]
fn certificates_are_remembered_until_they_expire_and_only_so_many() {
    let row = |serial: u64, not_after: u64| Row {
        serial: serial.to_string(),
        key: String::new(),
        not_after,
    };
    let mut rows = vec![row(1, NOW), row(2, NOW + 1)];
    note_certificate(&mut rows, row(3, NOW + 2), NOW);
    let serials: Vec<&str> = rows.iter().map(|row| row.serial.as_str()).collect();
    assert_eq!(serials, ["2", "3"]);
    for serial in 4..1000 {
        note_certificate(&mut rows, row(serial, NOW + 3), NOW);
    }
    assert_eq!(rows.len(), CERTIFICATES);
    assert_eq!(rows.last().map(|row| row.serial.as_str()), Some("999"));
}
