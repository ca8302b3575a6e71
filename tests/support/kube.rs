//! A small client of one Kubernetes API server, with all rights; nothing of `src/` in it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{Method, StatusCode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::eventually::{bounded, eventually_async};
use super::https::{Answer, Https, Lines};
use super::pki;

const JSON: &str = "application/json";

/// Asks an API server as its administrator, or as whom a token names.
#[derive(Clone, Debug)]
pub(crate) struct Api(Https);

impl Api {
    /// A client of the server at `url`, whose certificates are issued by `ca_file`.
    pub(crate) fn new(url: &str, ca_file: &str, token: &str) -> Self {
        let ca = fs::read(ca_file).expect("the certificate authority is readable");
        let roots: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&ca)
            .collect::<Result<_, _>>()
            .expect("certificates");
        let tls = Arc::new(pki::client_config(roots, None));
        Self(Https::new(
            url,
            tls,
            ("authorization", format!("Bearer {token}")),
        ))
    }

    /// Over a client that has been made already.
    pub(crate) const fn of(https: Https) -> Self {
        Self(https)
    }

    /// The same server with another token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self(
            self.0
                .with_header(("authorization", format!("Bearer {token}"))),
        )
    }

    /// Sends a request and gives the answer, whatever it is.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.send(method, path, JSON, body).await
    }

    /// As [`Api::ask`], with a body of another type than JSON's own.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Option<&Value>,
    ) -> Answer {
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        self.0
            .send(method, path, kind, bytes)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// As [`Api::ask`], for a server that may not be there.
    pub(crate) async fn try_ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let kind = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            JSON
        };
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        self.0.send(method, path, kind, bytes).await
    }

    /// One object, or a list.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, None).await.success()
    }

    /// The items of a list.
    pub(crate) async fn items(&self, path: &str) -> Vec<Value> {
        let list = self.get(path).await;
        list["items"].as_array().expect("a list has items").clone()
    }

    /// Creates `object` in the collection at `path`.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> Value {
        self.ask(Method::POST, path, Some(object)).await.success()
    }

    /// Applies a JSON merge patch.
    pub(crate) async fn patch(&self, path: &str, patch: &Value) -> Value {
        let kind = "application/merge-patch+json";
        self.send(Method::PATCH, path, kind, Some(patch))
            .await
            .success()
    }

    /// Deletes the object, or the collection, at `path`.
    pub(crate) async fn delete(&self, path: &str) -> Value {
        self.ask(Method::DELETE, path, None).await.success()
    }

    /// Watches the collection at `path`; the path carries the query.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        let response = bounded(path, self.0.open(Method::GET, path, JSON, Bytes::new()))
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Watch(Lines::of(response))
    }

    /// A fresh token of a `ServiceAccount`; `spec` is that of a `TokenRequest`.
    pub(crate) async fn token(&self, namespace: &str, name: &str, spec: &Value) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": spec,
        });
        let issued = self.create(&path, &request).await;
        let token = issued["status"]["token"].as_str();
        token.expect("a token").to_owned()
    }

    /// A new namespace whose name begins with `stem`, ready for pods.
    ///
    /// It is left behind: deleting one takes an API server five seconds at least.
    pub(crate) async fn namespace(&self, stem: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{stem}-{}-{number}", std::process::id());
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.create("/api/v1/namespaces", &object).await;
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        eventually_async("the namespace has its service account", async || {
            let answer = self.ask(Method::GET, &account, None).await;
            answer.status.is_success().then_some(())
        })
        .await;
        name
    }
}

/// The events of a watch.
#[derive(Debug)]
pub(crate) struct Watch(Lines);

impl Watch {
    /// The next event; none once the server has closed the watch.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let line = self.next_line().await?;
        Some(serde_json::from_slice(&line).expect("an event is JSON"))
    }

    /// Waits for its end, or for it to break off.
    pub(crate) async fn end(&mut self) {
        while self.next_line().await.is_some() {}
    }

    /// The next line as it came.
    pub(crate) async fn next_line(&mut self) -> Option<Bytes> {
        bounded("a watch event", self.0.next()).await
    }
}

/// A definition of a namespaced kind with one version `v1`; `singular` is its name in lower case, and
/// an `s` makes it plural.
pub(crate) fn definition(group: &str, singular: &str) -> Value {
    let plural = format!("{singular}s");
    let kind = singular[..1].to_uppercase() + &singular[1..];
    let names = json!({"plural": plural, "singular": singular, "kind": kind, "listKind": format!("{kind}List")});
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": schema});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}})
}
