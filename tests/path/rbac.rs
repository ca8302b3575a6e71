//! The rights that `--print-rbac` prints are enough, and each of them is used.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ::sortie::policy::known_kinds;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::eventually::eventually_async;
use crate::support::fake::Client;
use crate::support::https::{Answer, Https};
use crate::support::kubectl::Kubectl;
use crate::support::sortie;
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::{Cluster, Testbed};

/// Name and namespace of the agent's `ServiceAccount` in `deploy/agent`.
const SUBJECT: &str = "sortie-agent";

/// Where a `ClusterRole` or a Role of `lab` is.
const CLUSTER_ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/sortie-agent-lab";

/// How kubectl asks for tables, which are not made from the view.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Group, `resource` or `resource/part`, verb.
type Right = (String, String, String);

/// The YAML that `--print-rbac` prints for an account with these keys, which are indented by four.
async fn printed(account: &str) -> String {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("agent.yaml");
    let text = format!(
        "name: lab\n\
         hub: {{ data: \"hub.example.com:9091\", enrol: \"hub.example.com:9092\" }}\n\
         identity:\n  trust: {{ root-spki-sha256: \"{:064}\" }}\n  \
         join: {{ method: kubernetes, token-file: /none }}\n\
         accounts:\n  - name: lab\n    credential: {{ service-account: true }}\n{account}",
        0
    );
    fs::write(&file, text).expect("written");
    let file = file.display().to_string();
    let ran = sortie::run(&["agent", "--config", &file, "--print-rbac"], "").await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    ran.stdout
}

/// Makes the agent's `ServiceAccount`, gives it what is printed, and writes a kubeconfig with its
/// token.
async fn granted(cluster: &Cluster, manifest: &str, folder: &Path) -> PathBuf {
    let api = cluster.api();
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SUBJECT}});
    api.create("/api/v1/namespaces", &object).await;
    let accounts = format!("/api/v1/namespaces/{SUBJECT}/serviceaccounts");
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": SUBJECT}});
    api.create(&accounts, &account).await;
    let applied = Kubectl::pinned(33, &cluster.kubeconfig)
        .run_with_input(&["apply", "-f", "-"], manifest)
        .await;
    assert_eq!(applied.code, Some(0), "{applied:?}\n{manifest}");
    let spec = json!({"expirationSeconds": 3600});
    let token = api.token(SUBJECT, SUBJECT, &spec).await;
    let file = folder.join("kubeconfig");
    let text = cluster.kubeconfig_as(&json!({"token": token}));
    fs::write(&file, text).expect("written");
    file
}

/// A plan whose account has exactly these keys.
fn plan(kubeconfig: &Path, account: &str) -> Plan {
    let shown = kubeconfig.display();
    Plan {
        accounts_yaml: format!(
            "  - name: lab\n    credential: {{ kubeconfig-file: {shown} }}\n{account}"
        ),
        ..Plan::one("lab", kubeconfig, "")
    }
}

/// What the Roles of `lab` grant, as the API server has them; those of `namespace` too.
async fn roles(cluster: &Cluster, namespace: Option<&str>) -> BTreeSet<Right> {
    let mut paths = vec![CLUSTER_ROLE.to_owned()];
    paths.extend(namespace.map(|namespace| {
        format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/sortie-agent-lab")
    }));
    let mut rights = BTreeSet::new();
    for path in paths {
        let role = cluster.api().get(&path).await;
        for rule in role["rules"].as_array().expect("rules") {
            let texts = |key: &str| -> Vec<String> {
                let list = rule[key].as_array().expect("a list");
                list.iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            };
            for (group, resource) in texts("apiGroups")
                .iter()
                .flat_map(|g| texts("resources").into_iter().map(move |r| (g.clone(), r)))
            {
                let verbs = texts("verbs").into_iter();
                rights.extend(verbs.map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    rights
}

/// What the agent has asked for so far: what was let through, and what was forbidden.
fn asked(testbed: &Testbed) -> (BTreeSet<Right>, BTreeSet<Right>) {
    let user = format!("system:serviceaccount:{SUBJECT}:{SUBJECT}");
    let (mut used, mut forbidden) = (BTreeSet::new(), BTreeSet::new());
    for entry in testbed.audit() {
        let object = &entry["objectRef"];
        if entry["user"]["username"] != user.as_str() || object["resource"].is_null() {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let part = object["subresource"]
            .as_str()
            .map(|part| format!("/{part}"));
        let resource = text(&object["resource"]) + &part.unwrap_or_default();
        let right = (text(&object["apiGroup"]), resource, text(&entry["verb"]));
        if entry["responseStatus"]["code"] == 403 {
            forbidden.insert(right);
        } else {
            used.insert(right);
        }
    }
    (used, forbidden)
}

/// Does through the facade what an account is granted.
struct User {
    https: Https,
    prefix: String,
    namespace: String,
}

impl User {
    async fn of(stand: &Stand, namespace: &str) -> Self {
        let client = Client::read(&stand.kubeconfig("lab", "visitor").await);
        Self {
            https: client.https(),
            prefix: client.path,
            namespace: namespace.to_owned(),
        }
    }

    async fn ask(&self, method: Method, path: &str, kind: &str, body: &Value) -> Answer {
        let body = match body {
            Value::Null => Bytes::new(),
            body => Bytes::from(body.to_string()),
        };
        let path = format!("{}{path}", self.prefix);
        let answer = self.https.send(method, &path, kind, body).await;
        answer.expect("the hub answers")
    }

    fn collection(&self, group: &str, resource: &str) -> String {
        let root = match group {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/v1"),
        };
        match resource {
            "namespaces" | "customresourcedefinitions" => format!("{root}/{resource}"),
            _ => format!("{root}/namespaces/{}/{resource}", self.namespace),
        }
    }

    /// One request that needs `right`; its object has been made where the account may make it.
    async fn uses(&self, (group, resource, verb): &Right) -> StatusCode {
        let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
        let collection = self.collection(group, resource);
        let name = match resource {
            "namespaces" => self.namespace.as_str(),
            _ => "it",
        };
        let object = format!("{collection}/{name}/{part}");
        let object = object.trim_end_matches('/');
        let merge = "application/merge-patch+json";
        let label = json!({"metadata": {"labels": {"by": "sortie"}}});
        let json = "application/json";
        match verb.as_str() {
            "create" => {
                self.ask(Method::POST, &collection, json, &made(resource))
                    .await
                    .status
            }
            "get" => {
                self.ask(Method::GET, object, json, &Value::Null)
                    .await
                    .status
            }
            "patch" if part == "scale" => {
                let scale = json!({"spec": {"replicas": 0}});
                self.ask(Method::PATCH, object, merge, &scale).await.status
            }
            "patch" => self.ask(Method::PATCH, object, merge, &label).await.status,
            "update" => {
                let held = self.ask(Method::GET, object, json, &Value::Null).await;
                self.ask(Method::PUT, object, json, &held.json())
                    .await
                    .status
            }
            "delete" => {
                self.ask(Method::DELETE, object, json, &Value::Null)
                    .await
                    .status
            }
            "list" => {
                let table = self.https.with_header(("accept", TABLE.to_owned()));
                let path = format!("{}{collection}", self.prefix);
                let asked = table.send(Method::GET, &path, json, Bytes::new()).await;
                asked.expect("the hub answers").status
            }
            "watch" => {
                let path = format!("{}{collection}?watch=1&timeoutSeconds=1", self.prefix);
                let asked = self
                    .https
                    .send(Method::GET, &path, json, Bytes::new())
                    .await;
                asked.expect("the hub answers").status
            }
            other => panic!("{other}"),
        }
    }
}

/// An object called `it`.
fn made(resource: &str) -> Value {
    let image = json!({"name": "main", "image": "example.com/it:1"});
    let meta = json!({"name": "it", "labels": {"app": "it"}});
    match resource {
        "pods" => json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta,
            "spec": {"containers": [image]}}),
        "configmaps" => json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}),
        "deployments" => json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "it"}},
                "template": {"metadata": {"labels": {"app": "it"}}, "spec": {"containers": [image]}}}}),
        other => panic!("{other}"),
    }
}

/// In which order rights are used: an object is made first and deleted last.
fn turn(right: &Right) -> usize {
    [
        "create", "get", "list", "watch", "patch", "update", "delete",
    ]
    .iter()
    .position(|verb| *verb == right.2)
    .expect("a verb")
}

/// Grants an account what is printed for it, uses all of it, and gives how many rights those are.
async fn prove(account: &str, testbed: &Testbed, namespace: &str, within: Option<&str>) -> usize {
    let folder = TempDir::new().expect("a folder");
    let manifest = printed(account).await;
    let kubeconfig = granted(testbed.cluster(), &manifest, folder.path()).await;
    let stand = Stand::start(plan(&kubeconfig, account)).await;
    let user = User::of(&stand, namespace).await;
    let granted = roles(testbed.cluster(), within).await;
    let mut rights: Vec<_> = granted.iter().collect();
    rights.sort_by_key(|right| turn(right));
    for right in rights {
        // Pods start, and objects change between the read and the write of an update.
        eventually_async(&format!("{right:?}"), async || {
            let status = user.uses(right).await;
            assert_ne!(status, 403, "{right:?}\n{manifest}");
            (status.is_success() || status == 404 && right.2 == "get").then_some(())
        })
        .await;
    }
    let (used, forbidden) = asked(testbed);
    let unused: Vec<_> = granted.difference(&used).collect();
    assert!(
        unused.is_empty(),
        "granted and not used: {unused:?}\n{manifest}"
    );
    assert!(
        forbidden.is_empty(),
        "used and not granted: {forbidden:?}\n{manifest}"
    );
    let status = stand.account("lab").await;
    assert_eq!(status["state"], "ACTIVE", "{status}");
    granted.len()
}

/// Reads everything, writes some kinds.
const ANYWHERE: &str = "    \
    kinds: { cached: [Namespace, Pod, Deployment.apps], live: [ConfigMap] }\n    \
    operations:\n      \
    - { verbs: [get, list, watch], kinds: [\"*\"], namespaces: [\"*\"], subresources: [scale, log] }\n      \
    - { verbs: [create, patch, update, delete], kinds: [pod, Deployment.apps, ConfigMap], \
    namespaces: [\"*\"], subresources: [scale] }\n";

#[tokio::test]
async fn what_is_printed_is_enough_for_an_account_and_all_of_it_is_used() {
    let testbed = Testbed::start_audited(&[]).await;
    let namespace = testbed.cluster().api().namespace("rbac").await;
    let rights = prove(ANYWHERE, &testbed, &namespace, None).await;
    println!("{rights} rights, each of them used");
}

#[tokio::test]
async fn what_is_printed_is_enough_within_namespaces_and_all_of_it_is_used() {
    // An API server that cannot list by a watch is asked for a plain list first.
    let flags = ["--feature-gates=WatchList=false"];
    let testbed = Testbed::start_audited_with(&[], &flags).await;
    let namespace = testbed.cluster().api().namespace("rbac").await;
    let account = format!(
        "    namespaces: [{namespace}]\n    \
         kinds: {{ cached: [Namespace, Pod, CustomResourceDefinition.apiextensions.k8s.io], live: [ConfigMap] }}\n    \
         operations:\n      \
         - {{ verbs: [get, list, watch], kinds: [\"*\"], namespaces: [\"*\"], subresources: [log] }}\n      \
         - {{ verbs: [create, delete], kinds: [Pod], namespaces: [\"{namespace}\", elsewhere] }}\n"
    );
    let rights = prove(&account, &testbed, &namespace, Some(&namespace)).await;
    println!("{rights} rights, each of them used");
}

/// Takes one right out of the `ClusterRole`.
fn take(role: &mut Value, (group, resource, verb): (&str, &str, &str)) {
    let rules = role["rules"].as_array_mut().expect("rules");
    let is = |value: &Value, wanted: &str| {
        value
            .as_array()
            .is_some_and(|list| list.iter().any(|one| one == wanted))
    };
    let mut rest = Vec::new();
    for rule in rules.iter_mut() {
        let named = is(&rule["apiGroups"], group) && is(&rule["resources"], resource);
        if !(named && is(&rule["verbs"], verb)) {
            continue;
        }
        let without = |list: &Value, gone: &str| -> Vec<Value> {
            let list = list.as_array().expect("a list").iter();
            list.filter(|one| *one != gone).cloned().collect()
        };
        let verbs = without(&rule["verbs"], verb);
        if !verbs.is_empty() {
            let mut kept = rule.clone();
            kept["resources"] = json!([resource]);
            kept["verbs"] = verbs.into();
            rest.push(kept);
        }
        rule["resources"] = without(&rule["resources"], resource).into();
    }
    rules.retain(|rule| {
        rule["resources"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
    });
    rules.extend(rest);
}

/// Which right, taken away, breaks what.
const BREAKS: [((&str, &str, &str), u16); 8] = [
    (("", "pods", "create"), 403),
    (("", "pods/log", "get"), 403),
    (("", "configmaps", "list"), 403),
    (("", "configmaps", "watch"), 403),
    (("apps", "deployments", "patch"), 403),
    (("apps", "deployments", "delete"), 403),
    (("apps", "deployments/scale", "update"), 403),
    // Not followed, and so not there: the rest of the account is.
    (("", "namespaces", "watch"), 404),
];

#[tokio::test]
async fn a_right_that_is_missing_breaks_what_it_is_for_and_nothing_else() {
    let testbed = Testbed::start_audited(&[]).await;
    let cluster = testbed.cluster();
    let (api, folder) = (cluster.api(), TempDir::new().expect("a folder"));
    let namespace = api.namespace("rbac").await;
    let manifest = printed(ANYWHERE).await;
    let kubeconfig = granted(cluster, &manifest, folder.path()).await;
    let whole = api.get(CLUSTER_ROLE).await;
    let put = async |rules: &Value| {
        let patch = json!({"rules": rules["rules"]});
        api.patch(CLUSTER_ROLE, &patch).await;
    };
    for object in ["pods", "deployments", "configmaps"] {
        let group = if object == "deployments" {
            "apps/v1"
        } else {
            "v1"
        };
        let root = if object == "deployments" {
            "apis"
        } else {
            "api"
        };
        let path = format!("/{root}/{group}/namespaces/{namespace}/{object}");
        api.create(&path, &made(object)).await;
    }

    let mut without_uid = whole.clone();
    take(&mut without_uid, ("", "namespaces", "get"));
    put(&without_uid).await;
    let stand = Stand::joining(plan(&kubeconfig, ANYWHERE)).await;
    stand.wait("lab", "FAILED").await;
    let row = stand.account("lab").await;
    assert_eq!(row["reason"], "ApiUnauthorized", "{row}");
    println!("without `get namespaces`: {row}");

    let mut less = whole.clone();
    for (right, _) in BREAKS {
        take(&mut less, right);
    }
    put(&less).await;
    stand.wait("lab", "ACTIVE").await;
    let user = User::of(&stand, &namespace).await;
    let mut statuses = BTreeMap::new();
    for ((group, resource, verb), expected) in BREAKS {
        let right = (group.to_owned(), resource.to_owned(), verb.to_owned());
        let status = user.uses(&right).await;
        println!("without `{verb} {resource}`: {status}");
        statuses.insert(right, (status.as_u16(), expected));
    }
    let differ: Vec<_> = statuses
        .iter()
        .filter(|(_, (is, expected))| is != expected)
        .collect();
    assert!(differ.is_empty(), "{differ:?}");
    for (group, resource, verb) in [
        ("", "pods", "get"),
        ("", "pods", "list"),
        ("", "configmaps", "get"),
        ("apps", "deployments", "update"),
        ("apps", "deployments/scale", "patch"),
    ] {
        let right = (group.to_owned(), resource.to_owned(), verb.to_owned());
        let status = user.uses(&right).await;
        assert!(status.is_success(), "{right:?}: {status}");
    }
}

#[tokio::test]
async fn the_known_kinds_are_those_of_the_api_server() {
    let api = Testbed::shared().await.cluster().api();
    let mut served: BTreeMap<(String, String), Value> = BTreeMap::new();
    let mut roots = vec![(String::new(), "/api/v1".to_owned())];
    for group in api.get("/apis").await["groups"].as_array().expect("groups") {
        let name = group["name"].as_str().expect("a name").to_owned();
        for version in group["versions"].as_array().expect("versions") {
            let version = version["groupVersion"].as_str().expect("a version");
            roots.push((name.clone(), format!("/apis/{version}")));
        }
    }
    for (group, root) in roots {
        for resource in api.get(&root).await["resources"]
            .as_array()
            .expect("resources")
        {
            let name = resource["name"].as_str().expect("a name").to_owned();
            served
                .entry((group.clone(), name))
                .or_insert_with(|| resource.clone());
        }
    }
    let mut known = BTreeSet::new();
    for kind in known_kinds().expect("they are built in") {
        let (group, name) = (kind.gvr.group.clone(), kind.gvr.resource.clone());
        let is = &served[&(group.clone(), name.clone())];
        assert_eq!(is["kind"], kind.kind.as_str(), "{name}");
        assert_eq!(is["namespaced"], kind.namespaced, "{name}");
        assert_eq!(is["verbs"], json!(kind.verbs), "{name}");
        for part in kind.subresources {
            let name = format!("{name}/{}", part.name);
            let verbs = &served[&(group.clone(), name.clone())]["verbs"];
            assert_eq!(*verbs, json!(part.verbs), "{name}");
            known.insert((group.clone(), name));
        }
        known.insert((group, name));
    }
    let tunnels = ["attach", "exec", "portforward", "proxy"];
    let missing: Vec<_> = served
        .keys()
        .filter(|(_, name)| !tunnels.iter().any(|part| name.ends_with(&format!("/{part}"))))
        // Custom kinds of other tests on the same server.
        .filter(|(group, _)| !group.contains("example.com"))
        .filter(|key| !known.contains(*key))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    println!("{} kinds and parts", known.len());
}
