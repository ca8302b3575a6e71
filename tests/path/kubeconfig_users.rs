//! Ways to a real API server that a kubeconfig can name: through a proxy, for somebody else, with
//! the token of a command or of an issuer.
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use sortie::clock::{Clock as _, SystemClock};
use sortie::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::eventually::eventually_async;
use crate::support::fake::Client;
use crate::support::kube::Api;
use crate::support::pki::{self, Authority, Leaf};
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::{Cluster, Testbed};

/// A kubeconfig for `cluster`, with more lines for its cluster and these for its user.
fn kubeconfig(folder: &Path, name: &str, cluster: &Cluster, more: &str, user: &str) -> PathBuf {
    let ca = STANDARD.encode(fs::read(&cluster.ca).unwrap());
    let text = format!(
        "current-context: c\ncontexts: [{{ name: c, context: {{ cluster: c, user: u }} }}]\n\
         clusters:\n- name: c\n  cluster:\n    server: {}\n{}\
         users:\n- name: u\n  user:\n{user}",
        cluster.url,
        more.replace("@CA@", &ca)
    );
    let path = folder.join(format!("{name}.yaml"));
    fs::write(&path, text).unwrap();
    path
}

const CA: &str = "    certificate-authority-data: '@CA@'\n";

/// One entry of `accounts:`; `more` goes into its credential.
fn account(name: &str, kubeconfig: &Path, more: &str) -> String {
    format!(
        "  - name: {name}\n    credential: {{ kubeconfig-file: {}{more} }}\n",
        kubeconfig.display()
    )
}

fn plan(accounts: &[(&str, String)]) -> Plan {
    Plan {
        accounts: accounts
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect(),
        accounts_yaml: accounts.iter().map(|(_, yaml)| yaml.as_str()).collect(),
        engines_yaml: String::new(),
        agent_ttl: "24h",
    }
}

/// A proxy that connects those who know its password, until it is dropped.
struct ConnectProxy {
    address: SocketAddr,
    tunnels: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl ConnectProxy {
    async fn start(user: &str) -> Self {
        let wanted = format!("proxy-authorization: Basic {}\r\n", STANDARD.encode(user));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, tunnels) = (Tasks::new(), Arc::new(AtomicUsize::new(0)));
        let (connections, count) = (tasks.clone(), Arc::clone(&tunnels));
        tasks.spawn("proxy", move |stop| async move {
            while let Some(Ok((socket, _))) = stop.run_until_cancelled(listener.accept()).await {
                let (wanted, count) = (wanted.clone(), Arc::clone(&count));
                connections.spawn("tunnel", move |stop| async move {
                    let tunnel = tunnel(socket, &wanted, &count);
                    drop(stop.run_until_cancelled(tunnel).await);
                });
            }
        });
        Self {
            address,
            tunnels,
            tasks,
        }
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn tunnel(mut socket: TcpStream, wanted: &str, count: &AtomicUsize) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    if !head.contains(wanted) {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
        return socket.write_all(refusal).await;
    }
    let target = head.strip_prefix("CONNECT ").unwrap();
    let (target, _) = target.split_once(' ').unwrap();
    let mut server = TcpStream::connect(target).await?;
    socket
        .write_all(b"HTTP/1.1 200 Connected\r\nvia: test\r\n\r\n")
        .await?;
    count.fetch_add(1, Ordering::Relaxed);
    copy_bidirectional(&mut socket, &mut server).await?;
    Ok(())
}

#[tokio::test]
async fn an_account_is_reached_through_a_proxy_that_wants_a_password() {
    let cluster = Testbed::shared().await.cluster();
    let folder = tempfile::tempdir().unwrap();
    let proxy = ConnectProxy::start("agent:planted@proxy").await;
    let user = format!("    token: {}\n", cluster.token);
    let through = |name: &str, password: &str| {
        let url = format!("http://agent:{password}@{}", proxy.address);
        let more = format!("{CA}    proxy-url: '{url}'\n");
        let path = kubeconfig(folder.path(), name, cluster, &more, &user);
        (name.to_owned(), account(name, &path, ""))
    };
    let (good, bad) = (
        through("proxied", "planted%40proxy"),
        through("refused", "planted"),
    );
    let stand = Stand::joining(plan(&[("proxied", good.1), ("refused", bad.1)])).await;
    stand.wait("proxied", "ACTIVE").await;
    assert!(proxy.tunnels.load(Ordering::Relaxed) >= 1);
    stand.wait("refused", "FAILED").await;
    let row = stand.account("refused").await;
    assert_eq!(row["reason"], "ApiUnreachable", "{row}");
    let message = row["message"].as_str().unwrap();
    assert!(
        message.contains("does not accept the user and password"),
        "{row}"
    );
    assert!(!message.contains("planted"), "{row}");
    stand
        .agent
        .log()
        .assert_without(&["planted", &cluster.token]);
}

#[tokio::test]
async fn an_account_that_acts_for_another_does_so_in_every_request_and_watch() {
    let testbed = Testbed::start_audited(&[]).await;
    let cluster = testbed.cluster();
    let folder = tempfile::tempdir().unwrap();
    let user = format!(
        "    token: {}\n    as: jane\n    as-groups: ['system:masters', dev]\n    \
         as-user-extra: {{ example.com/why: [tests] }}\n",
        cluster.token
    );
    let path = kubeconfig(folder.path(), "jane", cluster, CA, &user);
    let _stand = Stand::start(plan(&[("jane", account("jane", &path, ""))])).await;
    let ours = |entry: &Value| {
        let agent = entry["userAgent"].as_str().unwrap_or_default();
        agent.starts_with("sortie")
    };
    let audit = eventually_async("watches are in the audit log", async || {
        let entries: Vec<Value> = testbed.audit().into_iter().filter(ours).collect();
        entries
            .iter()
            .any(|entry| entry["verb"] == "watch")
            .then_some(entries)
    })
    .await;
    for entry in &audit {
        let told = &entry["impersonatedUser"];
        assert_eq!(told["username"], "jane", "{entry}");
        assert_eq!(
            told["groups"],
            json!(["system:masters", "dev", "system:authenticated"])
        );
        assert_eq!(
            told["extra"]["example.com/why"],
            json!(["tests"]),
            "{entry}"
        );
    }
}

#[tokio::test]
async fn a_listed_command_gives_the_token_and_an_unlisted_one_is_never_started() {
    let cluster = Testbed::shared().await.cluster();
    let folder = tempfile::tempdir().unwrap();
    let (plugin, ran) = (folder.path().join("plugin"), folder.path().join("ran"));
    let answer = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": { "token": cluster.token },
    });
    let script = format!(
        "#!/bin/sh\necho \"$1\" >> {}\necho '{answer}'\n",
        ran.display()
    );
    fs::write(&plugin, script).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o700)).unwrap();
    let with = |name: &str, argument: &str| {
        let user = format!(
            "    exec: {{ apiVersion: client.authentication.k8s.io/v1, command: {}, \
             args: [{argument}], interactiveMode: Never }}\n",
            plugin.display()
        );
        let path = kubeconfig(folder.path(), name, cluster, CA, &user);
        let allow = format!(", allow: [exec], exec: [[{}, listed]]", plugin.display());
        account(name, &path, &allow)
    };
    let accounts = [
        ("listed", with("listed", "listed")),
        ("other", with("other", "other")),
    ];
    let stand = Stand::joining(plan(&accounts)).await;
    stand.wait("listed", "ACTIVE").await;
    stand.wait("other", "FAILED").await;
    let row = stand.account("other").await;
    assert_eq!(row["reason"], "KubeconfigInvalid", "{row}");
    assert!(
        row["message"].as_str().unwrap().contains("word by word"),
        "{row}"
    );
    // One run served every request.
    assert_eq!(fs::read_to_string(&ran).unwrap(), "listed\n");
    let told = stand
        .agent
        .logged("the account's kubeconfig is read less strictly")
        .await;
    assert_eq!(told.text("allows"), Some("exec"));
    stand.agent.log().assert_without(&[&cluster.token]);
}

#[tokio::test]
async fn an_account_may_trust_anybody_and_is_told_off_for_it() {
    let cluster = Testbed::shared().await.cluster();
    let folder = tempfile::tempdir().unwrap();
    let user = format!("    token: {}\n", cluster.token);
    let more = "    insecure-skip-tls-verify: true\n";
    let path = kubeconfig(folder.path(), "lax", cluster, more, &user);
    let lax = account("lax", &path, ", allow: [insecure-skip-tls-verify]");
    let accounts = [("lax", lax), ("strict", account("strict", &path, ""))];
    let stand = Stand::joining(plan(&accounts)).await;
    stand.wait("lax", "ACTIVE").await;
    stand.wait("strict", "FAILED").await;
    let message = "the account's kubeconfig may give up the protection of TLS";
    let told = stand.agent.logged(message).await;
    assert_eq!(told.text("account"), Some("lax"));
}

// ---------------------------------------------------------------- OpenID Connect

/// Life of a token of [`Issuer`], in seconds.
const LIFE_SECONDS: u64 = 5;

/// An issuer whose refresh tokens are good once.
struct Issuer {
    url: String,
    state: Arc<IssuerState>,
    tasks: Tasks,
}

struct IssuerState {
    url: String,
    key: KeyPair,
    /// The refresh token that is accepted next, by its number.
    next: Mutex<usize>,
    given: Mutex<Vec<String>>,
}

impl Issuer {
    async fn start(authority: &Authority) -> Self {
        let identity = authority.issue(&Leaf::server());
        let acceptor = TlsAcceptor::from(Arc::new(pki::server_config(&identity, &[b"http/1.1"])));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let state = Arc::new(IssuerState {
            url: url.clone(),
            key: KeyPair::generate().unwrap(),
            next: Mutex::new(0),
            given: Mutex::default(),
        });
        let tasks = Tasks::new();
        let (connections, shared) = (tasks.clone(), Arc::clone(&state));
        tasks.spawn("issuer", move |stop| async move {
            while let Some(Ok((socket, _))) = stop.run_until_cancelled(listener.accept()).await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn("issuer-connection", move |stop| async move {
                    let serving = async {
                        let stream = acceptor.accept(socket).await.ok()?;
                        let answer = service_fn(|request| answer(Arc::clone(&state), request));
                        let http = hyper::server::conn::http1::Builder::new();
                        http.serve_connection(TokioIo::new(stream), answer)
                            .await
                            .ok()
                    };
                    let _served = stop.run_until_cancelled(serving).await;
                });
            }
        });
        Self { url, state, tasks }
    }

    fn renewals(&self) -> usize {
        *self.state.next.lock().unwrap()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl IssuerState {
    fn token(&self) -> String {
        let now = sortie::clock::unix_seconds(SystemClock.now());
        let claims = json!({
            "iss": self.url, "aud": "sortie", "sub": "agent", "iat": now, "exp": now + LIFE_SECONDS,
        });
        let header = Header {
            kid: Some("only".to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    fn keys(&self) -> Value {
        let point = self.key.public_key_raw();
        let (x, y) = (&point[1..33], &point[33..65]);
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "only",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }] })
    }

    fn renewed(&self, authorization: &str, form: &str) -> (u16, Value) {
        let mut next = self.next.lock().unwrap();
        let wanted = format!(
            "grant_type=refresh_token&client_id=sortie&refresh_token=planted-refresh%2F{}",
            *next
        );
        let secret = format!("Basic {}", STANDARD.encode("sortie:planted-secret"));
        if form != wanted || authorization != secret {
            return (400, json!({ "error": "invalid_grant" }));
        }
        *next += 1;
        let token = self.token();
        self.given.lock().unwrap().push(token.clone());
        let refresh = format!("planted-refresh/{}", *next);
        (
            200,
            json!({ "id_token": token, "refresh_token": refresh, "token_type": "Bearer" }),
        )
    }
}

async fn answer(
    state: Arc<IssuerState>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let header = request.headers().get("authorization");
    let authorization = header
        .map_or("", |value| value.to_str().unwrap())
        .to_owned();
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let (status, answer) = match path.as_str() {
        "/.well-known/openid-configuration" => (
            200,
            json!({
                "issuer": state.url,
                "authorization_endpoint": format!("{}/authorize", state.url),
                "token_endpoint": format!("{}/token", state.url),
                "jwks_uri": format!("{}/keys", state.url),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }),
        ),
        "/keys" => (200, state.keys()),
        "/token" => state.renewed(&authorization, &String::from_utf8_lossy(&body)),
        _ => (404, Value::Null),
    };
    let answer = Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(answer.to_string())));
    Ok(answer.unwrap())
}

#[tokio::test]
async fn tokens_of_an_issuer_are_renewed_and_its_refresh_tokens_follow_each_other() {
    let authority = Authority::root("issuer");
    let issuer = Issuer::start(&authority).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("issuer.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let flags = [
        format!("--oidc-issuer-url={}", issuer.url),
        "--oidc-client-id=sortie".to_owned(),
        "--oidc-username-claim=sub".to_owned(),
        "--oidc-username-prefix=oidc:".to_owned(),
        "--oidc-signing-algs=ES256".to_owned(),
        format!("--oidc-ca-file={}", ca.display()),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let testbed = Testbed::start_audited_with(&[], &flags).await;
    let cluster = testbed.cluster();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": "oidc-agent" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "oidc:agent" }],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    cluster.api().create(bindings, &binding).await;
    let user = format!(
        "    auth-provider:\n      name: oidc\n      config:\n        client-id: sortie\n        \
         client-secret: planted-secret\n        refresh-token: planted-refresh/0\n        \
         idp-issuer-url: {}\n        idp-certificate-authority-data: {}\n",
        issuer.url,
        STANDARD.encode(authority.pem())
    );
    let path = kubeconfig(folder.path(), "oidc", cluster, CA, &user);
    let stand = Stand::start(plan(&[("oidc", account("oidc", &path, ""))])).await;
    let client = Client::read(&stand.kubeconfig("oidc", "visitor").await);
    let facade = Api::of(client.https());
    let object = format!("{}/api/v1/namespaces/kube-system", client.path);
    // A single object is asked live, so that a token is needed now and then.
    eventually_async("the token was renewed three times", async || {
        let answer = facade.ask(Method::GET, &object, None).await;
        assert!(answer.status.is_success(), "{answer:?}");
        (issuer.renewals() >= 4).then_some(())
    })
    .await;
    let entries = testbed.audit();
    let by_issuer = |entry: &&Value| entry["user"]["username"] == "oidc:agent";
    assert!(entries.iter().filter(by_issuer).count() > 12);
    let row = stand.account("oidc").await;
    assert_eq!(
        (&row["state"], &row["reason"]),
        (&json!("ACTIVE"), &json!("")),
        "{row}"
    );
    let given = issuer.state.given.lock().unwrap().clone();
    let mut planted: Vec<&str> = given.iter().map(String::as_str).collect();
    planted.extend(["planted-refresh", "planted-secret"]);
    stand.agent.log().assert_without(&planted);
    assert!(given.len() < 60, "{} tokens were made", given.len());
}
