//! What joins by `kubernetes`: a pod, its token, the cluster that the hub knows it by, an agent.

use std::fs;

use serde_json::{Value, json};
use sortie::identity::join::Join;

use super::kube::Api;
use super::sortie::Sortie;
use super::stand::{self, Plan};

/// A pod with a service account of its own; gives the pod's `metadata`.
pub(crate) async fn pod_of(api: &Api, namespace: &str, account: &str) -> Value {
    let name = json!({"name": account});
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name});
    api.create(&path, &object).await;
    let container = json!({"name": "agent", "image": "example.com/agent:1"});
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": name,
        "spec": {"serviceAccountName": account, "containers": [container]},
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    api.create(&path, &pod).await["metadata"].clone()
}

/// A token as the kubelet projects it into `pod`, or bound to nothing.
pub(crate) async fn token_of(api: &Api, pod: &Value, audience: &str, bound: bool) -> String {
    let part = |name: &str| {
        pod[name]
            .as_str()
            .map(ToOwned::to_owned)
            .unwrap_or_default()
    };
    let (namespace, name, uid) = (part("namespace"), part("name"), part("uid"));
    let mut spec = json!({"audiences": [audience], "expirationSeconds": 3600});
    if bound {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
        spec["boundObjectRef"] = pod;
    }
    api.token(&namespace, &name, &spec).await
}

/// Registers the cluster of `api`, whose `allowed` may be `agent`.
pub(crate) async fn add_cluster(hub: &Sortie, api: &Api, name: &str, allowed: &str, agent: &str) {
    let found = api.get("/.well-known/openid-configuration").await;
    let issuer = found["issuer"]
        .as_str()
        .map(ToOwned::to_owned)
        .unwrap_or_default();
    let jwks = hub.folder().join(format!("{name}.jwks"));
    fs::write(&jwks, api.get("/openid/v1/jwks").await.to_string()).expect("written");
    let (jwks, allow) = (jwks.display().to_string(), format!("{allowed}={agent}"));
    let add = [
        "cluster", "add", name, "--issuer", &issuer, "--jwks", &jwks, "--allow", &allow,
    ];
    stand::ok(hub.command(&add).await);
}

/// The agent `lab`, which joins with the token of a pod and dials `data`.
pub(crate) fn agent_of_pod(data: &str, join: &Join, token: &str, plan: &Plan) -> Sortie {
    Sortie::agent(|folder| {
        let file = folder.join("token");
        fs::write(&file, token).expect("written");
        format!(
            "name: lab\n\
             listen: {{ health: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\" }}\n\
             hub: {{ data: \"{data}\", enrol: \"{}\", proxy: none }}\n\
             identity:\n  trust: {{ root-spki-sha256: {} }}\n  \
             join: {{ method: kubernetes, token-file: {} }}\n\
             accounts:\n{}",
            join.enrol,
            hex::encode(join.root_spki_sha256),
            file.display(),
            plan.accounts_yaml
        )
    })
}
