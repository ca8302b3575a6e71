//! Kubeconfigs that work, with credentials that are nowhere else.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::support::kube::Api;
use crate::support::testbed::Cluster;

/// A kubeconfig, and what of it must not be left anywhere.
pub(super) struct Planted {
    pub(super) kubeconfig: String,
    /// Each has a name for the report.
    pub(super) values: Vec<(&'static str, Vec<u8>)>,
}

/// A kubeconfig with a fresh token of a new service account, which may do everything.
pub(super) async fn token(cluster: &Cluster, namespace: &str, name: &str) -> Planted {
    let api = cluster.api();
    let token = service_account_token(&api, namespace, name).await;
    // Head and claims are alike in tokens of one issuer; the signature is this token's own.
    let (_, signature) = token.rsplit_once('.').expect("a signed token");
    Planted {
        kubeconfig: kubeconfig(cluster, &json!({"token": token})),
        values: vec![("token", signature.as_bytes().to_vec())],
    }
}

async fn service_account_token(api: &Api, namespace: &str, name: &str) -> String {
    let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    api.create(&accounts, &json!({"metadata": {"name": name}}))
        .await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("{namespace}-{name}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": name}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    api.create(bindings, &binding).await;
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 7200},
    });
    let path = format!("{accounts}/{name}/token");
    let issued = api.create(&path, &request).await;
    let token = issued["status"]["token"].as_str();
    token.expect("a token").to_owned()
}

/// The kubeconfig of the cluster's administrator, with a client certificate and its key.
pub(super) fn certificate(cluster: &Cluster) -> Planted {
    let kubeconfig = fs::read_to_string(&cluster.kubeconfig).expect("readable");
    let encoded = kubeconfig
        .split_once("client-key-data: ")
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .expect("a client key");
    let pem = STANDARD.decode(encoded).expect("base64");
    let key = PrivateKeyDer::from_pem_slice(&pem).expect("a key");
    // RFC 5915: version 1, then an octet string of 32 bytes, which is the key itself. What is
    // around it is alike in all keys of the kind, or public.
    let before = [2, 1, 1, 4, 32];
    let der = key.secret_der();
    let start = der
        .windows(before.len())
        .position(|window| window == before)
        .expect("a key of P-256")
        + before.len();
    let first = start.div_ceil(3) * 4;
    let last = (start + 32) / 3 * 4;
    let text = String::from_utf8(pem).expect("PEM");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('-')).collect();
    // The part of the longest line of PEM that is nothing but the key.
    let line = lines[1].get(..last - 64).expect("the line is as long");
    assert!(first < 64 && line.len() >= 16, "{first}..{last}");
    Planted {
        values: vec![
            ("key", der[start..start + 32].to_vec()),
            ("key in PEM", line.as_bytes().to_vec()),
        ],
        kubeconfig,
    }
}

fn kubeconfig(cluster: &Cluster, user: &Value) -> String {
    let ca = fs::read(&cluster.ca).expect("readable");
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {
            "server": cluster.url,
            "certificate-authority-data": STANDARD.encode(ca),
        }}],
        "users": [{"name": "u", "user": user}],
    })
    .to_string()
}
