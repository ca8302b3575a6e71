use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use secrecy::ExposeSecret;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::gke::Tokens;
use super::super::tests::{key_file, with_provider};
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::credential::FetchErrorKind;
use crate::credential::testkit::Logged;
use crate::tasks::Tasks;

const SCOPE: &str = "https://scope.example";
const TOKEN: &str = r#"{"access_token":"planted-token","expires_in":3600,"token_type":"Bearer"}"#;

/// A metadata server: plain HTTP, one answer per connection by its number; none is a hang.
struct Metadata {
    address: SocketAddr,
    /// Connections that the client closed before it had an answer.
    given_up: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Metadata {
    async fn start(answers: Vec<Option<(u16, &'static str)>>) -> Self {
        with_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, given_up) = (Tasks::new(), Arc::new(AtomicUsize::new(0)));
        let (connections, counted) = (tasks.clone(), Arc::clone(&given_up));
        tasks.spawn("metadata-server", move |stop| async move {
            let mut answers = answers.into_iter();
            while let Some(Ok((socket, _))) = stop.run_until_cancelled(listener.accept()).await {
                let answer = answers.next().unwrap_or(Some((200, TOKEN)));
                let counted = Arc::clone(&counted);
                connections.spawn("metadata-connection", move |stop| async move {
                    let serving = serve(socket, answer, &counted);
                    drop(stop.run_until_cancelled(serving).await);
                });
            }
        });
        Self {
            address,
            given_up,
            tasks,
        }
    }

    fn login(&self) -> Login {
        Login::of_metadata(format!("http://{}", self.address), SCOPE)
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn serve(
    mut socket: TcpStream,
    answer: Option<(u16, &str)>,
    given_up: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(head.contains("metadata-flavor: google"), "{head}");
    assert!(
        head.contains("scopes=https%3a%2f%2fscope.example"),
        "{head}"
    );
    let Some((status, body)) = answer else {
        let closed = socket.read_u8().await.is_err();
        given_up.fetch_add(usize::from(closed), Ordering::SeqCst);
        return Ok(());
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    );
    socket.write_all(answer.as_bytes()).await
}

fn text(token: &SecretBytes) -> &[u8] {
    #[expect(clippy::disallowed_methods, reason = "a test compares it")]
    token.expose_secret()
}

#[tokio::test]
async fn the_metadata_server_is_asked_once_for_many_tokens() {
    let metadata =
        Metadata::start(vec![Some((200, TOKEN)), Some((500, "a second question"))]).await;
    let login = metadata.login();
    for _ in 0..3 {
        assert_eq!(text(&login.token().await.unwrap()), b"planted-token");
    }
    assert!(!format!("{login:?}").contains("planted"));
}

#[tokio::test]
async fn a_metadata_server_that_hangs_is_left_with_its_connection_and_asked_again() {
    let metadata = Metadata::start(vec![None]).await;
    let mut login = metadata.login();
    login.deadline = Duration::from_millis(300);
    let failure = login.token().await.unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::Unavailable { sealed: false });
    assert!(failure.hint.contains("in time"), "{failure:?}");
    login.deadline = DEADLINE;
    assert_eq!(text(&login.token().await.unwrap()), b"planted-token");
    // The library's own task is gone, not only nobody waits for it.
    while metadata.given_up.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_caller_who_gives_up_leaves_no_hung_login_behind() {
    let metadata = Metadata::start(vec![None]).await;
    let login = metadata.login();
    let waiting = tokio::time::timeout(Duration::from_millis(300), login.token()).await;
    assert!(waiting.is_err());
    assert_eq!(text(&login.token().await.unwrap()), b"planted-token");
}

#[tokio::test]
async fn what_a_metadata_server_says_wrongly_is_classified_and_never_shown() {
    let (logged, _guard) = Logged::start();
    let unavailable = FetchErrorKind::Unavailable { sealed: false };
    for (status, body, kind) in [
        (404, "planted", FetchErrorKind::Unauthenticated),
        (403, "planted", FetchErrorKind::Unauthenticated),
        (500, "planted", unavailable.clone()),
        (503, "planted", unavailable.clone()),
        (200, "planted", unavailable.clone()),
        (200, r#"{"access_token":["planted"]}"#, unavailable),
        (
            200,
            r#"{"access_token":"","token_type":"x"}"#,
            FetchErrorKind::Unauthenticated,
        ),
    ] {
        let metadata = Metadata::start(vec![Some((status, body))]).await;
        let login = metadata.login();
        let failure = login.token().await.unwrap_err();
        assert_eq!(failure.kind, kind, "{status} {body}");
        assert!(!format!("{failure:?}").contains("planted"));
        // The library would have kept the refusal.
        assert_eq!(text(&login.token().await.unwrap()), b"planted-token");
    }
    let text = logged.text();
    assert!(!text.contains("planted"), "{text}");
}

#[tokio::test]
async fn a_metadata_server_that_is_not_there_is_unavailable() {
    with_provider();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let failure = Login::of_metadata(format!("http://{address}"), SCOPE)
        .token()
        .await
        .unwrap_err();
    assert_eq!(failure.kind, FetchErrorKind::Unavailable { sealed: false });
}

#[tokio::test]
async fn an_account_file_that_reaches_beyond_google_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("account.json");
    let external = |change: &str, value: Value| {
        let mut file = json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": {"file": "/planted"},
        });
        file[change] = value;
        file.to_string()
    };
    let federation = || AuthMethod::Federation(path.clone());
    let key = || AuthMethod::KeyFile(path.clone());
    for (content, auth, hint) in [
        ("planted".to_owned(), key(), "is not JSON"),
        (
            key_file("first").to_string(),
            federation(),
            "not of the type",
        ),
        (
            external("type", json!("service_account")),
            federation(),
            "not of the type",
        ),
        (
            external(
                "credential_source",
                json!({"executable": {"command": "planted"}}),
            ),
            federation(),
            "asks for a command",
        ),
        (
            external("token_url", json!("http://planted.example")),
            federation(),
            "https://",
        ),
        (
            external(
                "service_account_impersonation_url",
                json!("http://planted.example"),
            ),
            federation(),
            "https://",
        ),
        (
            json!({"type": "service_account", "private_key": "planted"}).to_string(),
            key(),
            "key in",
        ),
        (" ".repeat(FILE_BYTES + 1), key(), "cannot be read"),
    ] {
        fs::write(&path, content).unwrap();
        let failure = Login::new(auth, SCOPE).token().await.unwrap_err();
        assert_eq!(failure.kind, FetchErrorKind::Unauthenticated, "{failure:?}");
        assert!(failure.hint.contains(hint), "{failure:?}");
        assert!(!format!("{failure:?}").contains("planted"));
    }
    fs::remove_file(&path).unwrap();
    let failure = Login::new(key(), SCOPE).token().await.unwrap_err();
    assert!(failure.hint.contains("cannot be read"), "{failure:?}");
}

#[tokio::test]
async fn a_token_for_gke_says_when_to_ask_again() {
    with_provider();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    fs::write(&path, key_file("first").to_string()).unwrap();
    let clock = Arc::new(ManualClock::new(std::time::SystemTime::UNIX_EPOCH));
    let shared: crate::clock::SharedClock = clock.clone();
    let tokens = Tokens::new(AuthMethod::KeyFile(path), shared);
    let (token, until) = tokens.token().await.unwrap();
    assert!(text(&token).starts_with(b"ey"));
    assert!(until > clock.now());
    clock.advance(Duration::from_mins(10));
    let (same, later) = tokens.token().await.unwrap();
    assert_eq!(text(&same), text(&token));
    assert_eq!(later, until + Duration::from_mins(10));
    tokens.forget().await;
    tokens.token().await.unwrap();
}
