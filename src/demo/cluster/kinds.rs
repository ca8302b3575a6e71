//! The kinds that the embedded cluster serves.

/// A kind as the cluster serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Empty for the core group.
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) singular: &'static str,
    /// E.g. `Deployment`.
    pub(super) name: &'static str,
    pub(super) short: &'static [&'static str],
    /// Whether `kubectl get all` names it.
    pub(super) in_all: bool,
    pub(super) namespaced: bool,
    pub(super) subresources: &'static [&'static str],
}

impl Kind {
    /// As in `apiVersion`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// As error texts name it: `deployments.apps`, `pods`.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Whether `subresource` is served for it.
    pub(super) fn has(&self, subresource: &str) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Whether its objects can only be created, never read.
    pub(super) fn is_review(&self) -> bool {
        self.plural == "selfsubjectaccessreviews"
    }
}

const fn kind(
    (group, version): (&'static str, &'static str),
    (plural, singular, name): (&'static str, &'static str, &'static str),
    short: &'static [&'static str],
    subresources: &'static [&'static str],
) -> Kind {
    Kind {
        group,
        version,
        plural,
        singular,
        name,
        short,
        in_all: false,
        namespaced: true,
        subresources,
    }
}

const fn in_all(kind: Kind) -> Kind {
    Kind {
        in_all: true,
        ..kind
    }
}

const fn cluster_scoped(kind: Kind) -> Kind {
    Kind {
        namespaced: false,
        ..kind
    }
}

const CORE: (&str, &str) = ("", "v1");
const APPS: (&str, &str) = ("apps", "v1");
const BATCH: (&str, &str) = ("batch", "v1");
const NETWORKING: (&str, &str) = ("networking.k8s.io", "v1");
const AUTOSCALING: (&str, &str) = ("autoscaling", "v2");
const EXTENSIONS: (&str, &str) = ("apiextensions.k8s.io", "v1");
const AUTHORIZATION: (&str, &str) = ("authorization.k8s.io", "v1");

/// Core first, then by group, as discovery lists them.
#[rustfmt::skip]
pub(super) static KINDS: [Kind; 19] = [
    cluster_scoped(kind(CORE, ("namespaces", "namespace", "Namespace"), &["ns"], &["status"])),
    in_all(kind(CORE, ("pods", "pod", "Pod"), &["po"], &["log", "status"])),
    in_all(kind(CORE, ("services", "service", "Service"), &["svc"], &["status"])),
    kind(CORE, ("secrets", "secret", "Secret"), &[], &[]),
    kind(CORE, ("configmaps", "configmap", "ConfigMap"), &["cm"], &[]),
    kind(CORE, ("events", "event", "Event"), &["ev"], &[]),
    in_all(kind(CORE, ("replicationcontrollers", "replicationcontroller", "ReplicationController"), &["rc"], &["scale", "status"])),
    in_all(kind(APPS, ("deployments", "deployment", "Deployment"), &["deploy"], &["scale", "status"])),
    in_all(kind(APPS, ("replicasets", "replicaset", "ReplicaSet"), &["rs"], &["scale", "status"])),
    in_all(kind(APPS, ("statefulsets", "statefulset", "StatefulSet"), &["sts"], &["scale", "status"])),
    in_all(kind(APPS, ("daemonsets", "daemonset", "DaemonSet"), &["ds"], &["status"])),
    kind(APPS, ("controllerrevisions", "controllerrevision", "ControllerRevision"), &[], &[]),
    in_all(kind(BATCH, ("jobs", "job", "Job"), &[], &["status"])),
    in_all(kind(BATCH, ("cronjobs", "cronjob", "CronJob"), &["cj"], &["status"])),
    kind(NETWORKING, ("ingresses", "ingress", "Ingress"), &["ing"], &["status"]),
    kind(NETWORKING, ("networkpolicies", "networkpolicy", "NetworkPolicy"), &["netpol"], &[]),
    in_all(kind(AUTOSCALING, ("horizontalpodautoscalers", "horizontalpodautoscaler", "HorizontalPodAutoscaler"), &["hpa"], &["status"])),
    cluster_scoped(kind(EXTENSIONS, ("customresourcedefinitions", "customresourcedefinition", "CustomResourceDefinition"), &["crd", "crds"], &["status"])),
    cluster_scoped(kind(AUTHORIZATION, ("selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview"), &[], &[])),
];

/// Groups with their one version, in discovery's order; the core group is not among them.
pub(super) const GROUPS: [(&str, &str); 6] = [
    APPS,
    BATCH,
    NETWORKING,
    AUTOSCALING,
    EXTENSIONS,
    AUTHORIZATION,
];

/// Finds a kind by where it is served.
pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|candidate| {
        candidate.group == group && candidate.version == version && candidate.plural == plural
    })
}

/// The kind named `name`, e.g. `Pod`.
pub(super) fn named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|candidate| candidate.name == name)
}

/// Kinds of one group and version.
pub(super) fn of(group: &str, version: &str) -> impl Iterator<Item = &'static Kind> {
    KINDS
        .iter()
        .filter(move |kind| kind.group == group && kind.version == version)
}
