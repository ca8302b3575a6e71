use std::time::Duration;

use super::*;
use crate::credential::OwnCertificate;
use crate::credential::Surroundings;

/// Every proof, with planted secrets in its files.
fn proofs(bench: &Bench) -> Vec<(&'static str, Proof)> {
    let file = |name: &str| {
        let path = bench.folder.path().join(name);
        std::fs::write(&path, format!("planted-{name}\n")).unwrap();
        path
    };
    let approle = |wrapped| Proof::AppRole {
        role_id: "role-1".to_owned(),
        secret_id_file: file("secret-id"),
        wrapped,
    };
    vec![
        ("approle", approle(false)),
        ("approle", approle(true)),
        ("cert", Proof::Certificate { role: None }),
        (
            "jwt",
            Proof::Jwt {
                role: None,
                token_file: file("jwt"),
            },
        ),
        (
            "kubernetes",
            Proof::Kubernetes {
                role: "sortie".to_owned(),
                token_file: file("pod-token"),
            },
        ),
        (
            "userpass",
            Proof::Userpass {
                user: "agent".to_owned(),
                password_file: file("password"),
            },
        ),
    ]
}

/// What may be answered to a login, and what is made of it.
fn answers() -> Vec<(Reply, Reason)> {
    let unauthenticated = Reason::EngineUnauthenticated;
    let unavailable = Reason::EngineUnavailable;
    let redirect = "HTTP/1.1 307 X\r\nlocation: https://127.0.0.1:9/planted\r\n\
                    content-length: 0\r\nconnection: close\r\n\r\n";
    let html = "<html><body>planted</body></html>";
    vec![
        (Reply::json(400, DENIED), unauthenticated),
        (Reply::json(403, DENIED), unauthenticated),
        (Reply::json(404, DENIED), unauthenticated),
        (Reply::json(403, html), unavailable),
        (Reply::json(404, "planted"), unavailable),
        (Reply::json(429, "planted"), Reason::EngineThrottled),
        (Reply::json(500, DENIED), unavailable),
        (Reply::json(502, html), unavailable),
        (
            Reply::json(503, r#"{"errors":["OpenBao is sealed"]}"#),
            Reason::EngineSealed,
        ),
        (Reply::json(200, html), Reason::SecretCorrupt),
        (Reply::json(200, "[\"planted\"]"), Reason::SecretCorrupt),
        (
            Reply::json(200, &LOGIN.replace("60", "\"planted\"")),
            Reason::SecretCorrupt,
        ),
        (
            Reply::json(200, &LOGIN.replace("planted-token", "")),
            unauthenticated,
        ),
        (Reply::Bytes(redirect.as_bytes().to_vec()), unavailable),
        (
            Reply::Bytes(b"planted garbage\r\n\r\n".to_vec()),
            unavailable,
        ),
        (
            Reply::json(200, &"planted ".repeat(600 * 1024)),
            unavailable,
        ),
    ]
}

#[tokio::test]
async fn no_login_that_fails_shows_a_planted_secret() {
    let (logged, _guard) = Logged::start();
    for number in 0..answers().len() {
        for kind in 0..6 {
            let bench = Bench::start(move |request| {
                if request.starts_with("POST /v1/sys/wrapping/") {
                    return Reply::json(200, WRAPPED);
                }
                answers().swap_remove(number).0
            })
            .await;
            let (mount, proof) = proofs(&bench).swap_remove(kind);
            let vault = Connection::new(
                bench.settings(login(mount, proof)),
                &Surroundings::of_system(),
            );
            let error = vault.fetch(&field("kubeconfig")).await.unwrap_err();
            let shown = format!("{} {error:?} {vault:?}", crate::fault::Chain(&error));
            assert_eq!(error.reason(), answers()[number].1, "{mount}: {shown}");
            assert!(!shown.contains("planted"), "{shown}");
        }
    }
    let text = logged.text();
    assert!(text.contains("rustify"), "nothing was captured");
    assert!(!text.contains("planted"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_missing_or_empty_is_named_by_its_key() {
    let bench = Bench::start(|_| Reply::json(200, LOGIN)).await;
    for (mount, proof) in proofs(&bench) {
        let (file, key) = match &proof {
            Proof::AppRole { secret_id_file, .. } => (secret_id_file, "token file"),
            Proof::Jwt { token_file, .. } | Proof::Kubernetes { token_file, .. } => {
                (token_file, "token file")
            }
            Proof::Userpass { password_file, .. } => (password_file, "`password-file`"),
            Proof::Certificate { .. } => continue,
        };
        std::fs::write(file, "\n").unwrap();
        let vault = Connection::new(
            bench.settings(login(mount, proof)),
            &Surroundings::of_system(),
        );
        let error = vault.fetch(&field("kubeconfig")).await.unwrap_err();
        assert_eq!(error.reason(), Reason::EngineUnauthenticated);
        assert!(error.to_string().contains(key), "{error}");
    }
    assert!(bench.requests().is_empty());
}

/// The engine of a connection whose login lasts a minute, and which answers a renewal so.
async fn renewing(renewable: bool, renewal: fn() -> Reply) -> (Bench, Vault) {
    let bench = Bench::start(move |request| {
        if request.starts_with("POST /v1/auth/kubernetes/login") {
            let word = format!("\"renewable\":{renewable},\"entity_id\"");
            return Reply::json(
                200,
                &LOGIN.replace("\"renewable\":true,\"entity_id\"", &word),
            );
        }
        if request.contains("/auth/token/renew-self") {
            return renewal();
        }
        Reply::json(200, SECRET)
    })
    .await;
    let (mount, proof) = proofs(&bench).swap_remove(4);
    let vault = Vault::new(
        bench.own_settings(login(mount, proof)),
        OwnCertificate::default(),
    );
    (bench, vault)
}

/// Lets time pass between two errands.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

fn count(bench: &Bench, part: &str) -> usize {
    let requests = bench.requests();
    requests.iter().filter(|line| line.contains(part)).count()
}

#[tokio::test]
async fn a_login_is_renewed_at_two_thirds_and_not_before() {
    let (bench, vault) = renewing(true, || Reply::json(200, LOGIN)).await;
    vault.fetch(&field("kubeconfig")).await.unwrap();
    for (seconds, renewals) in [(38, 0), (3, 1), (38, 1), (3, 2)] {
        pass(seconds).await;
        vault.fetch(&field("kubeconfig")).await.unwrap();
        assert_eq!(count(&bench, "renew-self"), renewals);
    }
    assert_eq!(count(&bench, "/login"), 1);
}

#[tokio::test]
async fn a_login_that_cannot_be_renewed_is_made_anew() {
    let refuses: fn() -> Reply = || Reply::json(403, DENIED);
    for (renewable, renewals) in [(true, 1), (false, 0)] {
        let (bench, vault) = renewing(renewable, refuses).await;
        vault.fetch(&field("kubeconfig")).await.unwrap();
        pass(41).await;
        vault.fetch(&field("kubeconfig")).await.unwrap();
        assert_eq!(count(&bench, "renew-self"), renewals);
        assert_eq!(count(&bench, "/login"), 2);
        assert_eq!(count(&bench, "revoke-self"), 1);
    }
}

#[tokio::test]
async fn a_login_stays_in_use_while_it_cannot_be_renewed_for_now() {
    let (bench, vault) = renewing(true, || Reply::json(503, "planted")).await;
    vault.fetch(&field("kubeconfig")).await.unwrap();
    pass(41).await;
    vault.fetch(&field("kubeconfig")).await.unwrap();
    assert_eq!(
        (count(&bench, "renew-self"), count(&bench, "/login")),
        (1, 1)
    );
    pass(20).await;
    vault.fetch(&field("kubeconfig")).await.unwrap();
    assert_eq!(
        (count(&bench, "renew-self"), count(&bench, "/login")),
        (1, 2)
    );
}

#[tokio::test]
async fn giving_back_ends_although_the_engine_hangs() {
    let bench = Bench::start(|request| {
        if request.contains("revoke-self") {
            return Reply::Hang;
        }
        let is_login = request.starts_with("POST");
        Reply::json(200, if is_login { LOGIN } else { SECRET })
    })
    .await;
    let (mount, proof) = proofs(&bench).swap_remove(5);
    let vault = Vault::new(
        bench.own_settings(login(mount, proof)),
        OwnCertificate::default(),
    );
    vault.fetch(&field("kubeconfig")).await.unwrap();
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    vault.close().await;
    assert!(before.elapsed() <= CLOSING + Duration::from_secs(1));
    tokio::time::resume();
    // Nothing is left that could be given back twice.
    vault.close().await;
    assert!(count(&bench, "revoke-self") <= 1);
}
