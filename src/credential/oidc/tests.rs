use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls_pki_types::pem::PemObject;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::{self, ManualClock};
use crate::credential::Minted;
use crate::credential::testkit::{Authority, Logged, Reply, Scripted};

const KEPT: [&str; 3] = ["planted-refresh", "planted-secret", "planted-answer"];

fn roots(authority: &Authority) -> Vec<CertificateDer<'static>> {
    let pem = authority.pem();
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}

fn oidc(issuer: String, authority: &Authority, id_token: Option<&str>) -> Oidc {
    oidc_for(Purpose::Use, issuer, authority, id_token)
}

fn oidc_for(
    purpose: Purpose,
    issuer: String,
    authority: &Authority,
    id_token: Option<&str>,
) -> Oidc {
    let secret = |text: &str| SecretBytes::new(text.as_bytes().to_vec());
    let settings = OidcSettings {
        issuer,
        client_id: "sortie".to_owned(),
        client_secret: Some(secret("planted-secret")),
        refresh_token: secret("planted-refresh"),
        id_token: id_token.map(secret),
        roots: Some(roots(authority)),
        exceptions: Exceptions::default(),
        purpose,
    };
    Oidc::new(settings, clock::system())
}

/// A token without a signature that ends then, in seconds since 1970.
fn id_token(exp: u64) -> String {
    let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#));
    format!("e30.{claims}.planted-answer")
}

const FAR: u64 = 4_102_444_800;

/// What an issuer says to a request; `HOST` stands for its own address.
type Script = fn(&str) -> Reply;

fn configuration(request: &str) -> Option<Reply> {
    let host = request
        .lines()
        .find_map(|line| line.strip_prefix("host: "))?;
    request.starts_with("GET /.well-known/").then(|| {
        Reply::json(
            200,
            &format!(r#"{{"issuer":"https://{host}","token_endpoint":"https://{host}/token"}}"#),
        )
    })
}

fn or(request: &str, status: u16, body: &str) -> Reply {
    configuration(request).unwrap_or_else(|| Reply::json(status, body))
}

async fn failure(script: Script) -> Failure {
    let authority = Authority::new();
    let server = Scripted::start(authority.tls(&[b"http/1.1"]), script).await;
    let oidc = oidc(format!("https://{}", server.address), &authority, None);
    oidc.mint().await.unwrap_err()
}

/// What goes wrong, its kind, and a part of what is told.
#[expect(clippy::too_many_lines, reason = "a table")]
fn failures() -> [(Script, FetchErrorKind, &'static str); 13] {
    use FetchErrorKind as K;
    let unavailable = || K::Unavailable { sealed: false };
    [
        (
            |r| or(r, 400, r#"{"error":"planted-answer"}"#),
            K::Unauthenticated,
            "log in again",
        ),
        (
            |r| or(r, 401, "planted-answer"),
            K::Unauthenticated,
            "log in again",
        ),
        (
            |r| or(r, 403, "planted-answer"),
            K::Unauthenticated,
            "log in again",
        ),
        (
            |r| or(r, 429, "planted-answer"),
            K::Throttled { retry_after: None },
            "",
        ),
        (
            |r| or(r, 500, "planted-answer"),
            unavailable(),
            "does not answer as one",
        ),
        (
            |r| or(r, 302, "planted-answer"),
            unavailable(),
            "does not answer as one",
        ),
        (
            |r| or(r, 200, "<html>planted-answer"),
            K::Corrupt,
            "of its form",
        ),
        (
            |r| or(r, 200, r#"{"id_token":["planted-answer"]}"#),
            K::Corrupt,
            "of its form",
        ),
        (
            |r| or(r, 200, r#"{"access_token":"planted-answer"}"#),
            K::Corrupt,
            "openid",
        ),
        (
            |r| or(r, 200, r#"{"id_token":"planted-answer"}"#),
            K::Corrupt,
            "web token",
        ),
        (
            |_| {
                Reply::json(
                    200,
                    r#"{"issuer":"https://planted-answer","token_endpoint":"https://h/"}"#,
                )
            },
            K::Corrupt,
            "another issuer",
        ),
        (
            |_| Reply::json(200, "<html>planted-answer"),
            K::Corrupt,
            "OpenID",
        ),
        (
            |_| Reply::Bytes(b"planted-answer".to_vec()),
            unavailable(),
            "cannot be reached",
        ),
    ]
}

#[tokio::test]
async fn no_failure_of_an_issuer_shows_what_was_said_and_each_is_of_its_kind() {
    let (logged, _guard) = Logged::start();
    for (script, kind, hint) in failures() {
        let failure = failure(script).await;
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.hint.contains(hint), "{failure:?}");
        let shown = format!("{failure:?}");
        assert!(KEPT.iter().all(|kept| !shown.contains(kept)), "{shown}");
    }
    let text = logged.text();
    let secrets = KEPT.iter().take(2).copied().chain(["cGxhbnRlZ"]);
    for secret in secrets {
        assert!(!text.contains(secret), "{secret} was logged");
    }
}

#[tokio::test]
async fn an_issuer_does_not_choose_where_the_refresh_token_goes() {
    let failure = failure(|request| {
        let host = request.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.unwrap_or_default();
        Reply::json(
            200,
            &format!(
                r#"{{"issuer":"https://{host}","token_endpoint":"https://169.254.169.254/"}}"#
            ),
        )
    });
    assert_eq!(failure.await.kind, FetchErrorKind::Corrupt);
}

#[tokio::test]
async fn an_issuer_of_another_authority_is_not_told_anything() {
    let authority = Authority::new();
    let server = Scripted::start(authority.tls(&[b"http/1.1"]), |_| Reply::Hang).await;
    let oidc = oidc(
        format!("https://{}", server.address),
        &Authority::new(),
        None,
    );
    let failure = oidc.mint().await.unwrap_err();
    assert!(failure.hint.contains("is not trusted"), "{failure:?}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn the_token_of_the_kubeconfig_is_used_while_it_lasts() {
    let authority = Authority::new();
    let given = id_token(FAR);
    let server = Scripted::start(authority.tls(&[b"http/1.1"]), move |request| {
        let body = format!(
            r#"{{"id_token":"{}","refresh_token":"planted-refresh-2"}}"#,
            id_token(FAR)
        );
        or(request, 200, &body)
    })
    .await;
    let issuer = || format!("https://{}", server.address);
    let fresh = oidc(issuer(), &authority, Some(&given));
    let made = fresh.mint().await.unwrap();
    assert_eq!(clock::unix_seconds(made.ends_at), FAR);
    assert!(server.requests().is_empty());
    let ended = oidc(issuer(), &authority, Some(&id_token(1)));
    ended.mint().await.unwrap();
    ended.mint().await.unwrap();
    let requests = server.requests();
    let forms: Vec<&str> = requests
        .iter()
        .filter(|request| request.starts_with("POST /token"))
        .filter_map(|request| request.rsplit_once("refresh_token="))
        .map(|(_, token)| token)
        .collect();
    assert_eq!(forms, ["planted-refresh", "planted-refresh-2"]);
}

/// An issuer that takes each refresh token once, and tells by `asked` when it is asked for the first.
async fn rotating(authority: &Authority, asked: CancellationToken) -> Scripted {
    let renewals = AtomicUsize::new(1);
    Scripted::start(authority.tls(&[b"http/1.1"]), move |request| {
        if let Some(configuration) = configuration(request) {
            return configuration;
        }
        asked.cancel();
        let number = renewals.fetch_add(1, Ordering::Relaxed);
        let good = match number {
            1 => "refresh_token=planted-refresh".to_owned(),
            number => format!("refresh_token=planted-refresh-{number}"),
        };
        if !request.ends_with(&good) {
            return Reply::json(400, r#"{"error":"invalid_grant"}"#);
        }
        let (token, next) = (id_token(FAR), number + 1);
        let body = format!(r#"{{"id_token":"{token}","refresh_token":"planted-refresh-{next}"}}"#);
        Reply::json(200, &body)
    })
    .await
}

#[tokio::test]
async fn the_next_refresh_token_is_kept_although_whoever_asked_for_it_has_gone_away() {
    let authority = Authority::new();
    let asked = CancellationToken::new();
    let server = rotating(&authority, asked.clone()).await;
    let clock = Arc::new(ManualClock::new(clock::system().now()));
    let user = oidc(format!("https://{}", server.address), &authority, None);
    let minted = Minted::new(Arc::new(user), Arc::<ManualClock>::clone(&clock));
    tokio::select! {
        biased;
        () = asked.cancelled() => {}
        made = minted.current() => panic!("{made:?}"),
    }
    for renewed in 1..=3 {
        minted.current().await.unwrap();
        let requests = server.requests();
        let asked = requests.iter().filter(|one| one.starts_with("POST /token"));
        assert_eq!(asked.count(), renewed);
        clock.advance(Duration::from_hours(24));
    }
}

#[tokio::test]
async fn a_check_goes_as_far_as_it_can_and_never_to_the_token_endpoint() {
    let authority = Authority::new();
    let server = Scripted::start(authority.tls(&[b"http/1.1"]), |request| {
        or(request, 500, "planted-answer")
    })
    .await;
    let issuer = format!("https://{}", server.address);
    let checked =
        |id_token: Option<&str>| oidc_for(Purpose::Check, issuer.clone(), &authority, id_token);
    let good = checked(Some(&id_token(FAR)));
    assert!(good.rehearse().is_none());
    assert_eq!(clock::unix_seconds(good.mint().await.unwrap().ends_at), FAR);
    assert!(server.requests().is_empty());
    let soon = clock::unix_seconds(clock::system().now() + CHECK / 2);
    for id_token in [None, Some(id_token(1)), Some(id_token(soon))] {
        let without = checked(id_token.as_deref());
        let seen = without.rehearse().unwrap().await.unwrap();
        assert!(
            seen.contains(&issuer) && seen.contains("good only once"),
            "{seen}"
        );
        let failure = without.mint().await.unwrap_err();
        assert!(failure.hint.contains("a check does not use"), "{failure:?}");
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert!(
        requests
            .iter()
            .all(|request| request.starts_with("GET /.well-known/"))
    );
}
