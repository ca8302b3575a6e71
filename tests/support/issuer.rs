//! An issuer of `OpenID` Connect, whose tokens API servers accept that know it.

use std::fs;
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
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::eventually::eventually_async;
use super::pki::{self, Authority, Leaf};
use super::testbed::Testbed;

/// Life of a token of [`Issuer`], in seconds.
const LIFE_SECONDS: u64 = 5;

/// An issuer whose refresh tokens are good once.
pub(crate) struct Issuer {
    pub(crate) url: String,
    state: Arc<IssuerState>,
    tasks: Tasks,
}

struct IssuerState {
    url: String,
    key: KeyPair,
    /// The refresh token that is accepted next, by its number.
    next: Mutex<usize>,
    given: Mutex<Vec<String>>,
    asked: Mutex<Vec<String>>,
}

impl Issuer {
    /// With a certificate of `authority`.
    pub(crate) async fn start(authority: &Authority) -> Self {
        let identity = authority.issue(&Leaf::server());
        let acceptor = TlsAcceptor::from(Arc::new(pki::server_config(&identity, &[b"http/1.1"])));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let state = Arc::new(IssuerState {
            url: url.clone(),
            key: KeyPair::generate().unwrap(),
            next: Mutex::new(0),
            given: Mutex::default(),
            asked: Mutex::default(),
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

    /// An API server that accepts its tokens for `agent`, who may do everything there.
    pub(crate) async fn testbed(&self, authority: &Authority) -> Testbed {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("issuer.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let flags = [
            format!("--oidc-issuer-url={}", self.url),
            "--oidc-client-id=sortie".to_owned(),
            "--oidc-username-claim=sub".to_owned(),
            "--oidc-username-prefix=oidc:".to_owned(),
            "--oidc-signing-algs=ES256".to_owned(),
            format!("--oidc-ca-file={}", ca.display()),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let testbed = Testbed::start_audited_with(&[], &flags).await;
        let api = testbed.cluster().api();
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "oidc-agent" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "oidc:agent" }],
        });
        let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        api.create(bindings, &binding).await;
        // It asks the issuer for its keys when it has started.
        let known = api.with_token(&self.token(LIFE_SECONDS * 60));
        eventually_async("the API server knows the issuer", async || {
            let asked = known.ask(Method::GET, "/api", None).await;
            asked.status.is_success().then_some(())
        })
        .await;
        testbed
    }

    /// The user of a kubeconfig with its first refresh token, and perhaps an id-token.
    pub(crate) fn user(&self, authority: &Authority, id_token: Option<&str>) -> Value {
        json!({ "auth-provider": { "name": "oidc", "config": {
            "client-id": "sortie",
            "client-secret": "planted-secret",
            "refresh-token": "planted-refresh/0",
            "id-token": id_token.unwrap_or_default(),
            "idp-issuer-url": self.url,
            "idp-certificate-authority-data": STANDARD.encode(authority.pem()),
        } } })
    }

    /// A token for so many seconds, as it gives them.
    pub(crate) fn token(&self, seconds: u64) -> String {
        self.state.token(seconds)
    }

    /// The paths that it was asked for, by whomever.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }

    /// How often a token was renewed.
    pub(crate) fn renewals(&self) -> usize {
        *self.state.next.lock().unwrap()
    }

    /// The tokens that were given.
    pub(crate) fn given(&self) -> Vec<String> {
        self.state.given.lock().unwrap().clone()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl IssuerState {
    fn token(&self, seconds: u64) -> String {
        let now = sortie::clock::unix_seconds(SystemClock.now());
        let claims = json!({
            "iss": self.url, "aud": "sortie", "sub": "agent", "iat": now, "exp": now + seconds,
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
        let token = self.token(LIFE_SECONDS);
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
    state.asked.lock().unwrap().push(path.clone());
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
