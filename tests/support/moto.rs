//! moto, an emulator of AWS, with TLS: Secrets Manager, S3, STS and IAM behind one address.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::cache;
use super::https::Https;
use super::pki::{self, Authority, Leaf};
use super::server::Server;

/// A running emulator.
#[derive(Debug)]
pub(crate) struct Moto {
    _server: Server,
    client: Https,
    url: String,
    ca_file: PathBuf,
    packages: PathBuf,
    /// Of a user who may do everything.
    access_key: (String, String),
}

impl Moto {
    /// Starts one whose certificate is issued by `authority`. Whoever asks may do everything until
    /// [`Moto::enforce`].
    pub(crate) async fn start(authority: &Authority) -> Self {
        let packages = cache::python_packages("moto");
        let folder = TempDir::with_prefix("sortie-moto-")
            .expect("a folder")
            .keep();
        let ca_file = folder.join("ca.pem");
        fs::write(&ca_file, authority.pem()).expect("the authority is written");
        let (certificate, key) = authority.issue(&Leaf::server()).write(&folder, "server");
        let mut command = cache::python();
        command
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0", "-c"])
            .arg(certificate)
            .arg("-k")
            .arg(key)
            .env("PYTHONPATH", &packages)
            .env("PYTHONUNBUFFERED", "1")
            .env("HOME", &folder);
        let server = Server::start(&command, &folder.join("moto"), Some(&folder));
        let url = server
            .wait_for("moto listens", |server| {
                let log = server.stdout() + &server.stderr();
                let (_before, rest) = log.split_once("Running on ")?;
                let (url, _after) = rest.split_once('\n')?;
                Some(url.trim().to_owned())
            })
            .await;
        let tls = Arc::new(pki::client_config([authority.der()], None));
        let client = Https::new(&url, tls, ("accept", "*/*".to_owned()));
        let mut moto = Self {
            _server: server,
            client,
            url,
            ca_file,
            packages,
            access_key: ("first".to_owned(), "first".to_owned()),
        };
        moto.access_key = moto.user("administrator", &["*"]).await;
        moto
    }

    /// Makes a user with this policy; gives the id of an access key and its secret.
    pub(crate) async fn user(&self, user: &str, actions: &[&str]) -> (String, String) {
        let policy = allow(actions);
        let made = self
            .calls(&[
                ("iam", "create_user", json!({"UserName": user})),
                (
                    "iam",
                    "put_user_policy",
                    json!({"UserName": user, "PolicyName": "own", "PolicyDocument": policy}),
                ),
                ("iam", "create_access_key", json!({"UserName": user})),
            ])
            .await;
        let field = |name: &str| {
            let value = made[2]["AccessKey"][name].as_str();
            value.expect("a key has it").to_owned()
        };
        (field("AccessKeyId"), field("SecretAccessKey"))
    }

    /// `https://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Path of the authority that issued its certificate.
    pub(crate) fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// From now on signatures are verified and policies hold.
    pub(crate) async fn enforce(&self) {
        let none_free = Bytes::from_static(b"0");
        let path = "/moto-api/reset-auth";
        let answer = self
            .client
            .send(Method::POST, path, "text/plain", none_free);
        let answer = answer.await.expect("moto answers");
        assert!(answer.status.is_success(), "{answer:?}");
    }

    /// Makes a role with this policy; gives its ARN.
    pub(crate) async fn role(&self, name: &str, actions: &[&str]) -> String {
        let anybody =
            json!({"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"});
        let trust = json!({"Version": "2012-10-17", "Statement": [anybody]}).to_string();
        let parameters = json!({"RoleName": name, "AssumeRolePolicyDocument": trust});
        let made = self.calls(&[("iam", "create_role", parameters)]).await;
        self.permit(name, actions).await;
        let arn = made[0]["Role"]["Arn"].as_str();
        arn.expect("a role has an ARN").to_owned()
    }

    /// Sets what a role may do.
    pub(crate) async fn permit(&self, role: &str, actions: &[&str]) {
        let policy = allow(actions);
        let parameters = json!({"RoleName": role, "PolicyName": "own", "PolicyDocument": policy});
        self.calls(&[("iam", "put_role_policy", parameters)]).await;
    }

    /// Makes a call that has to succeed.
    pub(crate) async fn call(&self, service: &str, operation: &str, parameters: Value) -> Value {
        let answers = self.calls(&[(service, operation, parameters)]).await;
        answers[0].clone()
    }

    /// Makes calls with Amazon's own client, one after the other; all have to succeed.
    pub(crate) async fn calls(&self, calls: &[(&str, &str, Value)]) -> Vec<Value> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/moto_calls.py");
        let mut command = Command::from(cache::python());
        let mut child = command
            .arg(script)
            .arg(&self.url)
            .arg(&self.ca_file)
            .env("PYTHONPATH", &self.packages)
            .env("AWS_ACCESS_KEY_ID", &self.access_key.0)
            .env("AWS_SECRET_ACCESS_KEY", &self.access_key.1)
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python starts");
        let mut input = child.stdin.take().expect("a pipe");
        let text = serde_json::to_vec(calls).expect("JSON");
        input.write_all(&text).await.expect("the script reads");
        drop(input);
        let output = child.wait_with_output().await.expect("the script ends");
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{log}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

fn allow(actions: &[&str]) -> String {
    let statement = json!({"Effect": "Allow", "Action": actions, "Resource": "*"});
    json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()
}
