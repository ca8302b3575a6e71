//! The engine `vault` against a real `OpenBao`: every store, every login, every lease.

mod account;
mod bad_days;
mod leases;
mod logins;
mod stores;

use std::fs;
use std::path::{Path, PathBuf};

use http::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sortie::credential::vault::{AuthMethod, Proof, Settings, Vault};
use sortie::credential::{
    Engine, Failure, FetchErrorKind, Fetched, Key, Locator, OwnCertificate, Reference,
};
use tempfile::TempDir;

use crate::support::openbao::Bao;
use crate::support::pki::Authority;

const READ_ALL: &str = r#"path "kv/*" { capabilities = ["read"] }"#;

/// An `OpenBao` with a store of version 2 at `kv`, a secret in it, and a policy to read it.
struct Bench {
    bao: Bao,
    authority: Authority,
    folder: TempDir,
}

impl Bench {
    async fn start() -> Self {
        let authority = Authority::root("bao");
        let bao = Bao::start(&authority).await;
        bao.enable_kv2("kv").await;
        bao.put("kv", "shop", &json!({"kubeconfig": "planted-value"}))
            .await;
        bao.policy("reader", READ_ALL).await;
        Self {
            bao,
            authority,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn settings(&self, auth: AuthMethod) -> Settings {
        Settings {
            address: self.bao.url(),
            namespace: None,
            ca_file: self.bao.ca_file().to_owned(),
            certificate: None,
            auth,
        }
    }

    /// With a token that is written to a file.
    async fn with_token(&self, policies: &[&str]) -> Vault {
        let token = self.bao.create_token(policies, "1h").await;
        let path = self.file("token", &token.secret);
        Vault::new(
            self.settings(AuthMethod::TokenFile(path)),
            OwnCertificate::default(),
        )
    }

    /// With the token in this file of the folder.
    fn with_token_file(&self, name: &str) -> Vault {
        let path = self.folder.path().join(name);
        Vault::new(
            self.settings(AuthMethod::TokenFile(path)),
            OwnCertificate::default(),
        )
    }

    fn with_login(&self, mount: &str, proof: Proof) -> Vault {
        Vault::new(
            self.settings(login(mount, proof)),
            OwnCertificate::default(),
        )
    }

    /// Lets `agent` log in with a password, with these further settings of its tokens.
    async fn enable_userpass(&self, tokens: Value) -> Proof {
        self.enable_auth("userpass").await;
        let mut user = tokens;
        user["password"] = json!("planted pass word");
        user["token_policies"] = json!(["reader"]);
        self.bao.write("auth/userpass/users/agent", &user).await;
        Proof::Userpass {
            user: "agent".to_owned(),
            password_file: self.file("password", "planted pass word\n"),
        }
    }

    async fn enable_auth(&self, method: &str) {
        let path = format!("sys/auth/{method}");
        self.bao.write(&path, &json!({"type": method})).await;
    }

    /// The accessors of all tokens that are alive.
    async fn tokens(&self) -> Vec<String> {
        let list = Method::from_bytes(b"LIST").unwrap();
        let path = "auth/token/accessors";
        let listed = self.bao.ask(list, path, &Value::Null).await.success();
        let keys = listed["data"]["keys"].as_array().unwrap().iter();
        keys.map(|key| key.as_str().unwrap().to_owned()).collect()
    }

    /// Accessors of tokens that were not there `before`.
    async fn new_tokens(&self, before: &[String]) -> Vec<String> {
        let mut now = self.tokens().await;
        now.retain(|accessor| !before.contains(accessor));
        now
    }
}

fn login(mount: &str, proof: Proof) -> AuthMethod {
    AuthMethod::Login {
        mount: mount.to_owned(),
        proof,
    }
}

/// The field `kubeconfig` of the secret.
fn reference(mount: &str, path: &str) -> Reference {
    versioned(mount, path, None)
}

fn versioned(mount: &str, path: &str, version: Option<u64>) -> Reference {
    Reference {
        profile: None,
        locator: Locator::Vault {
            mount: mount.to_owned(),
            path: path.to_owned(),
            version,
        },
        key: Key::Named("kubeconfig".to_owned()),
        base64: false,
    }
}

fn shop() -> Reference {
    reference("kv", "shop")
}

#[expect(clippy::disallowed_methods, reason = "a test compares it")]
fn text(fetched: &Fetched) -> String {
    String::from_utf8(fetched.document.expose_secret().to_vec()).unwrap()
}

/// A fetch that has to succeed.
async fn fetch(vault: &Vault, reference: &Reference) -> Fetched {
    vault.fetch(reference).await.unwrap()
}

/// A fetch that has to fail; what it says shows nothing that was planted.
async fn refused(vault: &Vault, reference: &Reference) -> Failure {
    let failure = vault.fetch(reference).await.unwrap_err();
    let shown = format!("{failure:?} {vault:?}");
    assert!(!shown.contains("planted"), "{shown}");
    failure
}

fn is_unauthenticated(failure: &Failure, part: &str) {
    assert_eq!(failure.kind, FetchErrorKind::Unauthenticated, "{failure:?}");
    assert!(failure.hint.contains(part), "{failure:?}");
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
