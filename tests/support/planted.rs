//! Kubeconfigs that work, with credentials that are nowhere else.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::kube::Api;
use super::pki;
use super::testbed::Cluster;

/// A kubeconfig, and what of it must not be left anywhere.
pub(crate) struct Planted {
    pub(crate) kubeconfig: String,
    /// Each has a name for the report.
    pub(crate) values: Vec<(&'static str, Vec<u8>)>,
}

/// A kubeconfig with a fresh token of a new service account, which may do everything.
pub(crate) async fn token(cluster: &Cluster, namespace: &str, name: &str) -> Planted {
    service_account(&cluster.api(), namespace, name).await;
    token_of(cluster, namespace, name).await
}

/// A service account that may do everything.
pub(crate) async fn service_account(api: &Api, namespace: &str, name: &str) {
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
}

/// A kubeconfig with a fresh token of a service account.
pub(crate) async fn token_of(cluster: &Cluster, namespace: &str, name: &str) -> Planted {
    let spec = json!({"expirationSeconds": 7200});
    let token = cluster.api().token(namespace, name, &spec).await;
    // Head and claims are alike in tokens of one issuer; the signature is this token's own.
    let (_, signature) = token.rsplit_once('.').expect("a signed token");
    Planted {
        kubeconfig: cluster.kubeconfig_as(&json!({"token": token})),
        values: vec![("token", signature.as_bytes().to_vec())],
    }
}

/// A fresh client certificate of an administrator.
pub(crate) struct Certificate {
    /// In PEM.
    pub(crate) chain: String,
    /// In PEM.
    pub(crate) key: String,
    /// What of the key must not be left anywhere.
    pub(crate) values: Vec<(&'static str, Vec<u8>)>,
}

/// A fresh client certificate of an administrator whom the cluster knows as `user`.
pub(crate) fn client_certificate(cluster: &Cluster, user: &str) -> Certificate {
    let identity = pki::kubernetes_client(Path::new(&cluster.ca), user, "system:masters");
    let key = identity.key_pem();
    Certificate {
        chain: identity.chain_pem(),
        values: key_values(identity.key().secret_der(), &key),
        key,
    }
}

/// A kubeconfig with a fresh client certificate of an administrator, and its key.
pub(crate) fn certificate(cluster: &Cluster) -> Planted {
    let certificate = client_certificate(cluster, "planted");
    let user = json!({
        "client-certificate-data": STANDARD.encode(certificate.chain),
        "client-key-data": STANDARD.encode(certificate.key),
    });
    Planted {
        kubeconfig: cluster.kubeconfig_as(&user),
        values: certificate.values,
    }
}

/// What of a key of P-256 is nowhere else: the number, and the text in PEM that is nothing but it.
fn key_values(der: &[u8], pem: &str) -> Vec<(&'static str, Vec<u8>)> {
    // RFC 5915: version 1, then an octet string of 32 bytes, which is the key itself. What is
    // around it is alike in all keys of the kind, or public.
    let before = [2, 1, 1, 4, 32];
    let start = der
        .windows(before.len())
        .position(|window| window == before)
        .expect("a key of P-256")
        + before.len();
    let first = start.div_ceil(3) * 4;
    let last = (start + 32) / 3 * 4;
    let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
    // The part of the longest line of PEM that is nothing but the key.
    let line = lines[1].get(..last - 64).expect("the line is as long");
    assert!(first < 64 && line.len() >= 16, "{first}..{last}");
    vec![
        ("key", der[start..start + 32].to_vec()),
        ("key in PEM", line.as_bytes().to_vec()),
    ]
}
