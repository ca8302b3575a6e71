//! Secret Manager, Cloud Storage and the ways to log in to them, on Google's own types.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cache;
use super::https::Https;
use super::pki::{self, Authority, Leaf};
use super::server::Server;

/// The one project that there is, by id.
pub(crate) const PROJECT: &str = "lab-project";

/// The service account that everybody logs in as.
const ACCOUNT: &str = "sortie@lab-project.iam.gserviceaccount.com";

/// What the federation's foreign issuer gave.
pub(crate) const SUBJECT_TOKEN: &str = "planted-subject-token";

/// A running double of Google.
#[derive(Debug)]
pub(crate) struct Google {
    server: Server,
    client: Https,
    folder: PathBuf,
    services: SocketAddr,
    metadata: SocketAddr,
}

impl Google {
    /// Starts one whose certificate is issued by `authority`, and writes the files to log in with.
    pub(crate) async fn start(authority: &Authority) -> Self {
        let folder = TempDir::with_prefix("sortie-google-")
            .expect("a folder")
            .keep();
        fs::write(folder.join("ca.pem"), authority.pem()).expect("the authority is written");
        authority.issue(&Leaf::server()).write(&folder, "server");
        let mut command = cache::python();
        command
            .arg(script("fake.py"))
            .arg(&folder)
            .env("PYTHONPATH", cache::python_packages("google"));
        let server = Server::start(&command, &folder.join("fake"), Some(&folder));
        let ports: Value = server
            .wait_for("the ports of the double of Google", |server| {
                serde_json::from_str(&server.stdout()).ok()
            })
            .await;
        let address = |name: &str| -> SocketAddr {
            let port = ports[name].as_u64().expect("a port");
            format!("127.0.0.1:{port}").parse().expect("an address")
        };
        let services = address("https");
        let tls = Arc::new(pki::client_config([authority.der()], None));
        let header = ("x-test", "true".to_owned());
        let google = Self {
            server,
            client: Https::new(&format!("https://{services}"), tls, header),
            folder,
            services,
            metadata: address("metadata"),
        };
        google.write_federation();
        google
            .tell("subject", &json!({"token": SUBJECT_TOKEN}))
            .await;
        google
    }

    fn write_federation(&self) {
        let subject = self.folder.join("subject");
        fs::write(&subject, SUBJECT_TOKEN).expect("written");
        let url = self.url();
        let file = json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{url}/v1/token"),
            "service_account_impersonation_url":
                format!("{url}/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"),
            "credential_source": {"file": subject},
        });
        fs::write(self.federation_file(), file.to_string()).expect("written");
    }

    /// `https://127.0.0.1:PORT` of everything but the metadata server.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.services)
    }

    /// Path of the authority that issued its certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Path of the service account's key.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.folder.join("key.json")
    }

    /// Path of the federation's description.
    pub(crate) fn federation_file(&self) -> PathBuf {
        self.folder.join("federation.json")
    }

    /// With which a program finds the metadata server, and trusts the token service.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let ca_file = self.ca_file().display().to_string();
        vec![
            ("GCE_METADATA_HOST".to_owned(), self.metadata.to_string()),
            ("SSL_CERT_FILE".to_owned(), ca_file),
        ]
    }

    async fn tell(&self, what: &str, body: &Value) -> Value {
        let bytes = Bytes::from(body.to_string());
        let path = format!("/fake/{what}");
        let answer = self
            .client
            .send(Method::POST, &path, "application/json", bytes)
            .await;
        answer.expect("the double answers").success()
    }

    /// Adds a version of a secret; gives its number.
    pub(crate) async fn put_secret(&self, id: &str, data: &[u8]) -> u64 {
        let body = json!({"id": id, "data": STANDARD.encode(data)});
        let told = self.tell("secret", &body).await;
        told["version"].as_u64().expect("a version has a number")
    }

    /// Makes a version `ENABLED`, `DISABLED` or `DESTROYED`.
    pub(crate) async fn set_state(&self, id: &str, version: u64, state: &str) {
        let body = json!({"id": id, "version": version, "state": state});
        self.tell("state", &body).await;
    }

    /// Writes an object.
    pub(crate) async fn put_object(&self, bucket: &str, name: &str, data: &[u8]) {
        let body = json!({"bucket": bucket, "name": name, "data": STANDARD.encode(data)});
        self.tell("object", &body).await;
    }

    /// Answers everything with this status, `html` with a web page; null is as it should be.
    pub(crate) async fn set_mode(&self, mode: Value) {
        self.tell("mode", &json!({"mode": mode})).await;
    }

    /// The access tokens that it has given so far.
    pub(crate) async fn tokens(&self) -> Vec<String> {
        let told = self.tell("tokens", &json!({})).await;
        let tokens = told["tokens"].as_array().expect("a list").iter();
        tokens
            .filter_map(|token| Some(token.as_str()?.to_owned()))
            .collect()
    }

    /// The first line of the service account's key behind its title.
    pub(crate) fn key_line(&self) -> String {
        self.line_of_the_key(1)
    }

    /// What of the service account's key is nowhere else: one line of it, decoded, from the middle
    /// of the numbers that are secret.
    pub(crate) fn key_part(&self) -> Vec<u8> {
        let line = self.line_of_the_key(12);
        STANDARD.decode(line).expect("whole groups of base64")
    }

    fn line_of_the_key(&self, number: usize) -> String {
        let file = fs::read_to_string(self.key_file()).expect("the double wrote it");
        let file: Value = serde_json::from_str(&file).expect("JSON");
        let key = file["private_key"].as_str().expect("PEM");
        key.lines().nth(number).expect("several lines").to_owned()
    }

    /// What Google's own clients read, by way to log in.
    pub(crate) fn read_by_official_clients(
        &self,
        secret: &str,
        (bucket, object): (&str, &str),
    ) -> Value {
        let mut command = cache::python();
        command
            .arg(script("official.py"))
            .arg(self.url())
            .arg(self.ca_file())
            .args([PROJECT, secret, bucket, object])
            .env("PYTHONPATH", cache::python_packages("google"))
            .envs(self.variables());
        let told = cache::prepare("asking with Google's own clients", &mut command, "");
        serde_json::from_str(&told).expect("JSON")
    }
}

fn script(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/google");
    Path::new(folder).join(name)
}
