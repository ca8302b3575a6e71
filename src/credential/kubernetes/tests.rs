use std::sync::Mutex as Locked;

use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::credential::Surroundings;
use crate::credential::connection::Connection;
use crate::credential::testkit::{Authority, Logged, Reply, Scripted};
use crate::credential::{EngineSettings, Key, MAX_STALE, REFRESH, Reason};
use crate::entropy;

/// `planted-kubeconfig` and `planted`, the latter written in base64 twice.
const SECRET: &str = r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"shop","namespace":"team","resourceVersion":"41","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"planted-annotation"}},"data":{"config":"cGxhbnRlZC1rdWJlY29uZmln","twice":"Y0d4aGJuUmxaQT09","number":7,"odd":"planted!"},"type":"Opaque"}"#;
const METADATA: &str = r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"shop","resourceVersion":"41"}}"#;
const STATUS: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"planted-message","reason":"X"}"#;

struct Bench {
    server: Scripted,
    mount: TempDir,
}

impl Bench {
    async fn start(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let authority = Authority::new();
        let server = Scripted::start(authority.tls(&[]), script).await;
        let mount = tempfile::tempdir().unwrap();
        std::fs::write(mount.path().join("ca.crt"), authority.pem()).unwrap();
        std::fs::write(mount.path().join("token"), "planted-token\n").unwrap();
        std::fs::write(mount.path().join("namespace"), "podspace").unwrap();
        Self { server, mount }
    }

    fn settings(&self) -> Settings {
        Settings {
            access: Access::InCluster {
                host: "127.0.0.1".to_owned(),
                port: self.server.address.port(),
                mount: self.mount.path().to_owned(),
            },
            namespace: None,
        }
    }

    fn engine(&self) -> Kubernetes {
        Kubernetes::new(self.settings(), entropy::system())
    }

    fn connection(&self) -> Connection {
        Connection::new(
            crate::credential::Settings {
                name: "own".to_owned(),
                default: true,
                refresh: REFRESH,
                max_stale: MAX_STALE,
                engine: EngineSettings::Kubernetes(self.settings()),
            },
            &Surroundings::of_system(),
        )
    }

    fn paths(&self) -> Vec<String> {
        let requests = self.server.requests();
        let path = |request: &String| request.split(' ').nth(1).map(str::to_owned);
        requests.iter().filter_map(path).collect()
    }
}

fn field(key: &str) -> Reference {
    Reference {
        profile: None,
        locator: Locator::KubernetesSecret {
            namespace: Some("team".to_owned()),
            name: "shop".to_owned(),
        },
        key: Key::Named(key.to_owned()),
        base64: key == "twice",
    }
}

fn text(fetched: &Fetched) -> &[u8] {
    #[expect(clippy::disallowed_methods, reason = "a test compares it")]
    fetched.document.expose_secret()
}

/// A chunked answer that stays open after these lines.
fn watching(lines: &[&str]) -> Reply {
    let mut bytes = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for line in lines {
        bytes.extend(format!("{:x}\r\n{line}\n\r\n", line.len() + 1).into_bytes());
    }
    Reply::Hold(bytes)
}

fn event(kind: &str, name: &str, version: &str) -> String {
    format!(
        r#"{{"type":"{kind}","object":{{"kind":"PartialObjectMetadata","metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}}}"#
    )
}

fn is_watch(request: &str) -> bool {
    request.contains("watch=true")
}

#[tokio::test]
async fn a_field_is_read_with_its_version_as_the_pods_account() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    let engine = bench.engine();
    let fetched = engine.fetch(&field("config")).await.unwrap();
    assert_eq!(text(&fetched), b"planted-kubeconfig");
    assert_eq!(fetched.version.as_deref(), Some("41"));
    assert!(!format!("{engine:?} {fetched:?}").contains("planted"));
    let fetched = engine.fetch(&field("twice")).await.unwrap();
    assert_eq!(text(&fetched), b"planted");
    let request = &bench.server.requests()[0];
    assert!(
        request.starts_with("GET /api/v1/namespaces/team/secrets/shop HTTP/1.1\r\n"),
        "{request}"
    );
    let request = request.to_lowercase();
    assert!(request.contains("authorization: bearer planted-token\r\n"));
    assert!(request.contains("accept-encoding: identity\r\n"));
    assert_eq!(
        engine.keys(&field("")).await.unwrap(),
        ["config", "number", "odd", "twice"]
    );
}

#[tokio::test]
async fn the_namespace_is_the_references_then_the_connections_then_the_pods() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    let mut bare = field("config");
    bare.locator = Locator::KubernetesSecret {
        namespace: None,
        name: "shop".to_owned(),
    };
    bench.engine().fetch(&bare).await.unwrap();
    let named = Kubernetes::new(
        Settings {
            namespace: Some("platform".to_owned()),
            ..bench.settings()
        },
        entropy::system(),
    );
    named.fetch(&bare).await.unwrap();
    named.fetch(&field("config")).await.unwrap();
    std::fs::remove_file(bench.mount.path().join("namespace")).unwrap();
    bench.engine().fetch(&bare).await.unwrap();
    let asked = ["podspace", "platform", "team", "default"]
        .map(|namespace| format!("/api/v1/namespaces/{namespace}/secrets/shop"));
    assert_eq!(bench.paths(), asked);
}

#[tokio::test]
async fn a_name_that_no_secret_can_have_is_never_asked_for() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    for (namespace, name) in [
        ("team", "../shop"),
        ("team", "Shop"),
        ("team", "shop?x"),
        ("team", ""),
        ("..", "shop"),
        ("a/b", "shop"),
    ] {
        let mut odd = field("config");
        odd.locator = Locator::KubernetesSecret {
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        };
        let failure = bench.engine().fetch(&odd).await.unwrap_err();
        assert_eq!(failure.kind, FetchErrorKind::NotFound, "{namespace}/{name}");
    }
    assert!(bench.paths().is_empty());
}

#[tokio::test]
async fn a_version_is_asked_for_without_any_data() {
    let bench = Bench::start(|request| {
        assert!(request.contains("as=PartialObjectMetadata"), "{request}");
        Reply::json(200, METADATA)
    })
    .await;
    let engine = bench.engine();
    let reference = field("config");
    assert_eq!(
        engine.version(&reference).await.unwrap(),
        Some("41".to_owned())
    );
    let is_current = async |version| engine.is_current(&reference, version).await.unwrap();
    assert_eq!(is_current("41").await, Some(true));
    assert_eq!(is_current("40").await, Some(false));
}

#[tokio::test]
async fn a_probe_sends_no_credential_and_takes_any_answer() {
    for (status, works) in [(200, true), (401, true), (403, true), (500, false)] {
        let bench = Bench::start(move |_| Reply::json(status, "planted")).await;
        assert_eq!(bench.engine().probe().await.is_ok(), works, "{status}");
        let request = bench.server.requests()[0].to_lowercase();
        assert!(request.starts_with("get /readyz ") && !request.contains("authorization"));
    }
}

#[tokio::test]
async fn a_watch_ends_with_the_first_event_of_another_version() {
    let places = Places::default();
    let bench = Bench::start(|request| {
        if !is_watch(request) {
            return Reply::json(200, METADATA);
        }
        assert!(
            request.contains("fieldSelector=metadata.name%3Dshop"),
            "{request}"
        );
        let lines = [
            event("ADDED", "shop", "41"),
            event("BOOKMARK", "", "77"),
            event("MODIFIED", "other", "78"),
            event("MODIFIED", "shop", "79"),
        ];
        watching(&lines.each_ref().map(String::as_str))
    })
    .await;
    let engine = bench.engine();
    engine
        .changed(&field("config"), "41", &places)
        .unwrap()
        .await;
    assert_eq!(bench.paths().len(), 2);
}

#[tokio::test]
async fn what_changed_before_the_watch_began_is_found() {
    let places = Places::default();
    for answer in [(200, METADATA), (404, STATUS), (403, STATUS)] {
        let bench = Bench::start(move |request| {
            if is_watch(request) {
                watching(&[])
            } else {
                Reply::json(answer.0, answer.1)
            }
        })
        .await;
        bench
            .engine()
            .changed(&field("config"), "40", &places)
            .unwrap()
            .await;
        assert_eq!(bench.paths().len(), 2);
    }
}

#[tokio::test]
async fn a_watch_that_breaks_ends_or_is_silent_is_opened_again() {
    let places = Places::default();
    let expired = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"planted"}}"#;
    let script = Locked::new(vec![
        watching(&[&event("DELETED", "shop", "80")]),
        Reply::Bytes(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n".to_vec()),
        Reply::json(429, "planted"),
        watching(&[]),
        watching(&["planted garbage"]),
        watching(&[expired]),
    ]);
    let bench = Bench::start(move |request| {
        if is_watch(request) {
            script.lock().unwrap().pop().unwrap_or(Reply::Hang)
        } else {
            Reply::json(200, METADATA)
        }
    })
    .await;
    let (logged, _guard) = Logged::start();
    let mut engine = bench.engine();
    engine.silence = Duration::from_millis(100);
    let reference = field("config");
    let changed = engine.changed(&reference, "41", &places).unwrap();
    timeout(Duration::from_mins(1), changed).await.unwrap();
    let watches = bench.paths().into_iter().filter(|path| is_watch(path));
    assert_eq!(watches.count(), 6);
    assert!(!logged.text().contains("planted"), "{}", logged.text());
}

#[tokio::test]
async fn without_the_right_to_watch_nothing_ends_and_nothing_is_watched_again() {
    let places = Places::default();
    let bench = Bench::start(|_| Reply::json(403, STATUS)).await;
    let engine = bench.engine();
    let (reference, mut other) = (field("config"), field("config"));
    let changed = engine.changed(&reference, "41", &places).unwrap();
    let waited = timeout(Duration::from_secs(1), changed).await;
    assert!(waited.is_err(), "a refusal is no change");
    assert!(engine.changed(&reference, "41", &places).is_none());
    assert_eq!(bench.paths().len(), 1);
    other.locator = Locator::KubernetesSecret {
        namespace: Some("team".to_owned()),
        name: "another".to_owned(),
    };
    assert!(engine.changed(&other, "41", &places).is_some());
}

/// Answers that go wrong, the field asked for, and what is made of them.
fn failures() -> Vec<(Reply, &'static str, Reason)> {
    let html = "<html><body>planted</body></html>";
    let other_kind = SECRET.replace(r#""kind":"Secret""#, r#""kind":"planted""#);
    let list = SECRET.replace(r#""data":{"#, r#""data":["planted"],"x":{"#);
    let nothing = SECRET.replace(r#""data":{"#, r#""data":null,"x":{"#);
    let redirect = "HTTP/1.1 307 X\r\nlocation: https://127.0.0.1:1/planted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let unavailable = Reason::EngineUnavailable;
    vec![
        (Reply::json(404, STATUS), "config", Reason::SecretNotFound),
        (Reply::json(404, html), "config", unavailable),
        (Reply::json(403, STATUS), "config", Reason::SecretDenied),
        (Reply::json(403, html), "config", unavailable),
        (
            Reply::json(401, STATUS),
            "config",
            Reason::EngineUnauthenticated,
        ),
        (Reply::json(406, STATUS), "config", unavailable),
        (Reply::json(429, html), "config", Reason::EngineThrottled),
        (Reply::json(500, STATUS), "config", unavailable),
        (Reply::json(503, html), "config", unavailable),
        (Reply::json(200, html), "config", Reason::SecretCorrupt),
        (Reply::json(200, ""), "config", Reason::SecretCorrupt),
        (
            Reply::json(200, "\"planted\""),
            "config",
            Reason::SecretCorrupt,
        ),
        (
            Reply::json(
                200,
                r#"{"kind":"Secret","metadata":{"resourceVersion":7,"x":"planted"}}"#,
            ),
            "config",
            Reason::SecretCorrupt,
        ),
        (
            Reply::json(200, &other_kind),
            "config",
            Reason::SecretCorrupt,
        ),
        (Reply::json(200, &list), "config", Reason::SecretCorrupt),
        (Reply::json(200, &nothing), "config", Reason::SecretField),
        (Reply::json(200, SECRET), "missing", Reason::SecretField),
        (Reply::json(200, SECRET), "number", Reason::SecretCorrupt),
        (Reply::json(200, SECRET), "odd", Reason::SecretCorrupt),
        (
            Reply::Bytes(redirect.as_bytes().to_vec()),
            "config",
            unavailable,
        ),
        (
            Reply::Bytes(b"planted garbage\r\n\r\n".to_vec()),
            "config",
            unavailable,
        ),
        (
            Reply::Bytes(b"HTTP/1.1 200 X\r\ncontent-length: 99\r\n\r\nplanted".to_vec()),
            "config",
            unavailable,
        ),
        (
            Reply::json(200, &" ".repeat(5 * 1024 * 1024)),
            "config",
            unavailable,
        ),
    ]
}

#[tokio::test]
async fn no_failure_and_no_log_line_shows_what_was_planted() {
    let (logged, _guard) = Logged::start();
    for (reply, key, reason) in failures() {
        let reply = Locked::new(Some(reply));
        let bench =
            Bench::start(move |_| reply.lock().unwrap().take().unwrap_or(Reply::Hang)).await;
        let error = bench.connection().fetch(&field(key)).await.unwrap_err();
        let shown = format!("{} {error:?}", crate::fault::Chain(&error));
        assert_eq!(error.reason(), reason, "{shown}");
        assert!(!shown.contains("planted"), "{shown}");
        assert_eq!(bench.paths().len(), 1, "nothing is asked twice: {shown}");
    }
    let text = logged.text();
    assert!(text.contains("TRACE"), "nothing was captured");
    assert!(!text.contains("planted"), "{text}");
}

#[tokio::test]
async fn a_server_that_hangs_is_left_and_one_that_throttles_says_until_when() {
    let bench = Bench::start(|_| Reply::Hang).await;
    let mut connection = bench.connection();
    connection.deadline = Duration::from_millis(200);
    let error = connection.fetch(&field("config")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnavailable);

    let busy = "HTTP/1.1 429 X\r\nretry-after: 7\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let bench = Bench::start(move |_| Reply::Bytes(busy.as_bytes().to_vec())).await;
    let error = bench
        .connection()
        .fetch(&field("config"))
        .await
        .unwrap_err();
    let retry_after = Some(Duration::from_secs(7));
    assert_eq!(error.kind, FetchErrorKind::Throttled { retry_after });
}

#[tokio::test]
async fn only_the_own_authority_is_trusted_and_a_lost_token_is_told() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    std::fs::write(bench.mount.path().join("ca.crt"), Authority::new().pem()).unwrap();
    let error = bench
        .connection()
        .fetch(&field("config"))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnavailable);
    assert!(error.to_string().contains("certificate"), "{error}");
    std::fs::remove_file(bench.mount.path().join("token")).unwrap();
    let error = bench
        .connection()
        .fetch(&field("config"))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnauthenticated);
    assert!(bench.paths().is_empty());
}

#[tokio::test]
async fn what_only_accounts_can_have_is_refused_before_anybody_is_asked() {
    let bench = Bench::start(|_| Reply::json(200, SECRET)).await;
    let file = bench.mount.path().join("kubeconfig");
    let fetched = async |cluster: &str, user: &str| {
        let text = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'https://{}', \
             certificate-authority: ca.crt{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n",
            bench.server.address
        );
        std::fs::write(&file, text).unwrap();
        let engine = Kubernetes::new(
            Settings {
                access: Access::Kubeconfig {
                    path: file.clone(),
                    context: None,
                },
                namespace: None,
            },
            entropy::system(),
        );
        engine.fetch(&field("config")).await.map(drop)
    };
    fetched("", "token: planted").await.unwrap();
    let asked = bench.server.requests().len();
    let oidc = "auth-provider: {name: oidc, config: {client-id: c, refresh-token: planted, \
                idp-issuer-url: 'https://127.0.0.1:1'}}";
    for (cluster, user) in [
        ("", oidc),
        ("", "token: planted, as: jane"),
        (", proxy-url: 'socks5://127.0.0.1:1'", "token: planted"),
    ] {
        let failure = fetched(cluster, user).await.unwrap_err();
        assert!(
            failure.hint.contains("which only those of accounts can"),
            "{failure:?}"
        );
    }
    assert_eq!(bench.server.requests().len(), asked);
}
