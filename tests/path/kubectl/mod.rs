//! kubectl, directly and through the hub: the same commands, the same results.
//!
//! The account offers every kind, so that both sides know the same. What may differ is the mask
//! in Secrets and, where two commands made two objects, what a server gives each of them.

mod clouddriver;
mod normal;
mod reads;
mod refusals;
mod secrets;
mod versions;
mod watches;
mod writes;

use std::path::PathBuf;

use serde_json::Value;

use crate::support::eventually::eventually_async;
use crate::support::kube::Api;
use crate::support::kubectl::{Kubectl, Ran};
use crate::support::stand::{Plan, Stand};
use crate::support::testbed::Cluster;

/// Every kind that discovery knows, those that Clouddriver lists from the view, Secrets masked.
const KINDS: &str = "    kinds:
      cached: [Pod, Service, Namespace, Deployment.apps, ReplicaSet.apps, StatefulSet.apps, \
DaemonSet.apps, Ingress.networking.k8s.io, NetworkPolicy.networking.k8s.io, Job.batch, \
CronJob.batch, CustomResourceDefinition.apiextensions.k8s.io, Secret]
      live: [\"*\"]
";

/// What an account needs before its lists can be compared.
const CACHED: &str = "pod,service,deployment,replicaset,statefulset,daemonset,ingress,\
networkpolicy,job,cronjob,secret";

/// One cluster, with a way to it and one through the hub.
struct Scene {
    stand: Stand,
    direct: Kubectl,
    hub: Kubectl,
    api: Api,
    /// What names a side in what it writes.
    kubeconfigs: [PathBuf; 2],
    /// Where the hub's side works, and where both read.
    namespace: String,
    /// Where the direct side does what the hub's side does in the other one.
    twin: String,
}

/// A command line, with what it reads from its standard input.
type Step<'a> = (&'a str, &'a str);

impl Scene {
    async fn on(cluster: &Cluster) -> Self {
        Self::with(cluster, 33).await
    }

    async fn with(cluster: &Cluster, minor: u32) -> Self {
        let api = cluster.api();
        let namespace = api.namespace("kubectl").await;
        let twin = api.namespace("kubectl").await;
        let stand = Stand::start(Plan::one("lab", &cluster.kubeconfig, KINDS)).await;
        let kubeconfig = stand.kubeconfig("lab", "visitor").await;
        Self {
            direct: Kubectl::pinned(minor, &cluster.kubeconfig),
            hub: Kubectl::pinned(minor, &kubeconfig),
            kubeconfigs: [cluster.kubeconfig.clone(), kubeconfig],
            stand,
            api,
            namespace,
            twin,
        }
    }

    /// Runs a line through the hub.
    async fn through(&self, line: &str, input: &str) -> Ran {
        run(&self.hub, line, &self.namespace, input).await
    }

    /// Runs a line through the hub that has to succeed.
    async fn ok(&self, line: &str, input: &str) -> String {
        let ran = self.through(line, input).await;
        assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
        ran.stdout
    }

    /// Waits until the hub lists what the cluster lists.
    async fn agrees(&self) {
        let line = format!("get {CACHED} -o jsonpath='{{.items[*].metadata.resourceVersion}}'");
        eventually_async("the view has caught up", async || {
            let direct = run(&self.direct, &line, &self.namespace, "").await;
            let hub = run(&self.hub, &line, &self.namespace, "").await;
            (direct.code == Some(0) && direct.stdout == hub.stdout).then_some(())
        })
        .await;
    }

    /// Reads the same objects both ways; `normal` takes away what time changes.
    async fn reads_alike(&self, lines: &[&str], normal: fn(&str) -> String) {
        let mut differences = String::new();
        for line in lines {
            let direct = run(&self.direct, line, &self.namespace, "").await;
            let hub = run(&self.hub, line, &self.namespace, "").await;
            differences.push_str(&difference(line, &direct, &hub, &normal));
        }
        assert!(differences.is_empty(), "{differences}");
    }

    /// Does the same in two namespaces, and looks after each step whether they hold the same.
    async fn writes_alike(&self, steps: &[Step<'_>]) {
        let mut differences = String::new();
        let normal = |text: &str| normal::text(&self.sideless(text));
        for (line, input) in steps {
            let direct = run(&self.direct, line, &self.twin, input).await;
            let hub = run(&self.hub, line, &self.namespace, input).await;
            let mut found = difference(line, &direct, &hub, &normal);
            let left = self.state(&self.twin).await;
            let right = self.state(&self.namespace).await;
            if left != right {
                found = format!("{found}== {line}\n{left:#}\n-- the hub's\n{right:#}\n");
            }
            differences.push_str(&found);
        }
        assert!(differences.is_empty(), "{differences}");
    }

    /// What a namespace holds, told by the cluster itself, without what a server gives.
    async fn state(&self, namespace: &str) -> Value {
        let line = "get deployment,service,configmap,secret,job -o json --show-managed-fields";
        let ran = run(&self.direct, line, namespace, "").await;
        normal::objects(&self.sideless(&ran.stdout))
    }

    /// A text without the names of the side that it comes from.
    fn sideless(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for namespace in [&self.namespace, &self.twin] {
            text = text.replace(namespace, "NAMESPACE");
        }
        for path in &self.kubeconfigs {
            text = text.replace(&path.display().to_string(), "KUBECONFIG");
        }
        text
    }
}

/// Runs a line in a namespace, unless the line says where.
async fn run(kubectl: &Kubectl, line: &str, namespace: &str, input: &str) -> Ran {
    let input = input.replace("{ns}", namespace);
    let mut words = words(&line.replace("{ns}", namespace));
    if !line.contains("{ns}") && !line.contains("-A") {
        words.extend(["-n".to_owned(), namespace.to_owned()]);
    }
    kubectl.run_with_input(&words, &input).await
}

/// Splits a line at blanks that are not within single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

/// Tells how two runs of a line differ; nothing if they do not.
fn difference(line: &str, direct: &Ran, hub: &Ran, normal: &dyn Fn(&str) -> String) -> String {
    let told = |ran: &Ran| (ran.code, normal(&ran.stdout), normal(&ran.stderr));
    let (left, right) = (told(direct), told(hub));
    if left == right {
        return String::new();
    }
    let (code, out, err) = left;
    let (hub_code, hub_out, hub_err) = right;
    format!(
        "== kubectl {line}\n{code:?}\n{out}\n{err}\n-- through the hub\n{hub_code:?}\n{hub_out}\n{hub_err}\n"
    )
}
