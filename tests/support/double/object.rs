//! Objects of any size, made from their kind and number alone.

use std::fmt::Write as _;

use super::Settings;

/// A kind that the double serves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// API group; empty for the core group.
    pub(crate) group: &'static str,
    /// Version within the group.
    pub(crate) version: &'static str,
    /// Plural name, as in paths.
    pub(crate) resource: &'static str,
    /// Kind, as in objects.
    pub(crate) name: &'static str,
    /// Whether objects live in namespaces.
    pub(crate) namespaced: bool,
}

impl Kind {
    const fn namespaced(group: &'static str, resource: &'static str, name: &'static str) -> Self {
        Self {
            group,
            version: "v1",
            resource,
            name,
            namespaced: true,
        }
    }

    const fn cluster(group: &'static str, resource: &'static str, name: &'static str) -> Self {
        Self {
            group,
            version: "v1",
            resource,
            name,
            namespaced: false,
        }
    }

    /// `v1` or `GROUP/VERSION`.
    pub(crate) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `/api/v1` or `/apis/GROUP/VERSION`.
    pub(crate) fn root(&self) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        format!("/{root}/{}", self.api_version())
    }
}

/// The kinds that are watched by default, and Secrets.
pub(crate) const KINDS: [Kind; 13] = [
    Kind::cluster("", "namespaces", "Namespace"),
    Kind::namespaced("", "pods", "Pod"),
    Kind::namespaced("", "secrets", "Secret"),
    Kind::namespaced("", "services", "Service"),
    Kind::cluster(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "CustomResourceDefinition",
    ),
    Kind::namespaced("apps", "daemonsets", "DaemonSet"),
    Kind::namespaced("apps", "deployments", "Deployment"),
    Kind::namespaced("apps", "replicasets", "ReplicaSet"),
    Kind::namespaced("apps", "statefulsets", "StatefulSet"),
    Kind::namespaced("batch", "cronjobs", "CronJob"),
    Kind::namespaced("batch", "jobs", "Job"),
    Kind::namespaced("networking.k8s.io", "ingresses", "Ingress"),
    Kind::namespaced("networking.k8s.io", "networkpolicies", "NetworkPolicy"),
];

/// The share of an object that is `managedFields`, as measured on pods.
const MANAGED_PERCENT: usize = 47;

/// What tells one object of a kind from another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instance {
    /// Its number within the kind.
    pub(crate) number: usize,
    /// How often it has been deleted and created again.
    pub(crate) life: u32,
    /// Its version.
    pub(crate) version: u64,
}

/// The text of a kind's objects, cut where they differ.
#[derive(Debug)]
pub(crate) struct Template {
    kind: &'static Kind,
    namespaces: usize,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Name,
    Namespace,
    Uid,
    Version,
}

impl Template {
    /// Objects of about `bytes` bytes, spread over this many namespaces.
    pub(crate) fn new(kind: &'static Kind, settings: &Settings) -> Self {
        let Settings {
            bytes,
            namespaces,
            changing,
            ..
        } = *settings;
        let parts = text(kind, bytes, changing)
            .split('@')
            .map(|part| match part {
                "NAME" => Part::Name,
                "NAMESPACE" => Part::Namespace,
                "UID" => Part::Uid,
                "VERSION" => Part::Version,
                text => Part::Text(text.to_owned()),
            })
            .collect();
        Self {
            kind,
            namespaces,
            parts,
        }
    }

    /// The namespace of an object.
    pub(crate) fn namespace(&self, number: usize) -> String {
        format!("ns-{}", number % self.namespaces)
    }

    /// The name of an object.
    pub(crate) fn name(&self, number: usize) -> String {
        match self.kind.resource {
            "namespaces" => format!("ns-{number}"),
            resource => format!("{resource}-{number:06}"),
        }
    }

    /// The number of the object with this name, if it is one of ours.
    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        let number = name.rsplit_once('-')?.1.parse().ok()?;
        (self.name(number) == name).then_some(number)
    }

    /// Appends the object; `typed` with its kind, which items of a list go without.
    pub(crate) fn render(&self, out: &mut Vec<u8>, instance: Instance, typed: bool) {
        let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
        put("{");
        if typed {
            let version = self.kind.api_version();
            put(&format!(
                r#""apiVersion":"{version}","kind":"{}","#,
                self.kind.name
            ));
        }
        for part in &self.parts {
            match part {
                Part::Text(text) => put(text),
                Part::Name => put(&self.name(instance.number)),
                Part::Namespace => put(&self.namespace(instance.number)),
                Part::Uid => put(&self.uid(instance)),
                Part::Version => put(&instance.version.to_string()),
            }
        }
    }

    /// The uid of an object, another one in each of its lives.
    pub(crate) fn uid(&self, Instance { number, life, .. }: Instance) -> String {
        let kind = KINDS.iter().position(|kind| kind == self.kind).unwrap_or(0);
        format!("{kind:08x}-{:04x}-4000-8000-{number:012x}", life % 0x1_0000)
    }
}

/// An object behind its opening brace and its kind, with `@MARKS@` for what differs.
/// `changing`: it tells its version in an annotation as well.
fn text(kind: &Kind, bytes: usize, changing: bool) -> String {
    let mut out = String::from(r#""metadata":{"name":"@NAME@","#);
    if kind.namespaced {
        out.push_str(r#""namespace":"@NAMESPACE@","#);
    }
    out.push_str(
        r#""uid":"@UID@","resourceVersion":"@VERSION@","generation":1,"creationTimestamp":"2026-01-01T00:00:00Z","labels":{"app.kubernetes.io/name":"@NAME@","app.kubernetes.io/managed-by":"spinnaker"},"annotations":{"moniker.spinnaker.io/application":"shop","moniker.spinnaker.io/sequence":"@SEQUENCE@"},"managedFields":[{"manager":"kubectl-client-side-apply","operation":"Update","apiVersion":""#,
    );
    let _into_a_string = write!(
        out,
        r#"{}","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{{"f:metadata":{{"f:annotations":{{".":{{}}}}}},"f:spec":{{"f:template":{{"#,
        kind.api_version()
    );
    fill(&mut out, bytes * MANAGED_PERCENT / 100, |number| {
        format!(
            r#""k:{{\"name\":\"SETTING_{number:04}\"}}":{{".":{{}},"f:name":{{}},"f:value":{{}}}}"#
        )
    });
    out.push_str("}}}}]},");
    let sequence = if changing { "@VERSION@" } else { "1" };
    out = out.replace("@SEQUENCE@", sequence);
    let (open, close) = body(kind);
    out.push_str(open);
    let left = bytes.saturating_sub(close.len());
    if kind.name == "Secret" {
        fill(&mut out, left, |number| {
            format!(r#""key-{number:04}":"cGxhbnRlZC12YWx1ZS0={}""#, "")
        });
    } else {
        fill(&mut out, left, |number| {
            format!(
                r#"{{"name":"SETTING_{number:04}","value":"the value of setting {number:04}"}}"#
            )
        });
    }
    out.push_str(close);
    out
}

/// What stands before and behind the entries that fill an object up.
fn body(kind: &Kind) -> (&'static str, &'static str) {
    match kind.name {
        "Pod" => (
            r#""spec":{"nodeName":"node-0","restartPolicy":"Always","containers":[{"name":"main","image":"registry.example/shop:1.0","env":["#,
            r#"]}]},"status":{"phase":"Running","podIP":"10.0.0.1","conditions":[{"type":"Ready","status":"True"}],"containerStatuses":[{"name":"main","ready":true,"restartCount":0}]}}"#,
        ),
        "Secret" => (r#""type":"Opaque","data":{"#, "}}"),
        _ => (
            r#""spec":{"replicas":1,"selector":{"matchLabels":{"app":"shop"}},"template":{"spec":{"containers":[{"name":"main","env":["#,
            r#"]}]}}},"status":{"replicas":1,"readyReplicas":1}}"#,
        ),
    }
}

/// Appends entries, separated by commas, until `out` has `bytes` bytes; one at least.
fn fill(out: &mut String, bytes: usize, entry: impl Fn(usize) -> String) {
    for number in 0.. {
        out.push_str(&entry(number));
        if out.len() >= bytes {
            return;
        }
        out.push(',');
    }
}
