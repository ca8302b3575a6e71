//! The compiled policy of one account.

use std::sync::Arc;

use aws_lc_rs::digest;

use super::{Decision, Denial, FILTER_VERSION, KindPattern, Rules, ScrubRules};
use crate::resource::{Kind, Subresource, Target, Verb};

/// Subresources of an operation rule that names none.
const DEFAULT_SUBRESOURCES: [&str; 3] = ["scale", "status", "log"];

/// Subresources that are upgraded connections: never tunnelled, whatever is configured.
const TUNNELS: [&str; 4] = ["attach", "exec", "portforward", "proxy"];

/// Kinds that an API server creates by an update of what is not there (group, resource): seen on a
/// real one (`tests/path/creation.rs`). Those of a custom resource are not.
pub const CREATED_BY_UPDATE: [(&str, &str); 11] = [
    ("", "endpoints"),
    ("", "events"),
    ("", "limitranges"),
    ("", "services"),
    ("coordination.k8s.io", "leases"),
    ("events.k8s.io", "events"),
    ("node.k8s.io", "runtimeclasses"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
];

/// How a kind is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Watched by the agent, listed from the hub's view.
    Cached,
    /// Never watched: each request goes through the agent.
    Live,
}

/// A kind that the account may read. Only [`AccountPolicy::allow`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedKind {
    kind: Kind,
    level: Level,
    masked: bool,
}

impl AllowedKind {
    /// The kind as discovery knows it.
    pub const fn kind(&self) -> &Kind {
        &self.kind
    }

    /// How it is read.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Whether its values are masked.
    pub const fn masked(&self) -> bool {
        self.masked
    }
}

/// A namespace as an operation rule writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespacePattern {
    /// `*`: every namespace, and what is in none.
    Any,
    /// Exactly this one.
    Name(String),
}

impl NamespacePattern {
    /// Reads `*` or a name.
    pub fn parse(text: &str) -> Self {
        if text == "*" {
            Self::Any
        } else {
            Self::Name(text.to_owned())
        }
    }

    fn matches(&self, namespace: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Name(name) => namespace == Some(name),
        }
    }
}

/// An entry of `operations`: everything that all its lists name together is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRule {
    /// What may be done.
    pub verbs: Vec<Verb>,
    /// To which parts of an object; `None` means `scale`, `status` and `log`.
    pub subresources: Option<Vec<String>>,
    /// To which kinds, of those that the account may read at all.
    pub kinds: Vec<KindPattern>,
    /// In which namespaces.
    pub namespaces: Vec<NamespacePattern>,
}

impl OperationRule {
    fn covers(&self, kind: &Kind, verb: Verb) -> bool {
        self.verbs.contains(&verb) && self.kinds.iter().any(|pattern| pattern.matches(kind))
    }

    fn lists(&self, subresource: &str) -> bool {
        match &self.subresources {
            None => DEFAULT_SUBRESOURCES.contains(&subresource),
            Some(listed) => listed.iter().any(|known| known == subresource),
        }
    }

    fn allows(&self, target: &Target, kind: &Kind) -> bool {
        let namespace = target.namespace.as_deref();
        self.covers(kind, target.verb)
            && self.namespaces.iter().any(|known| known.matches(namespace))
            && target
                .subresource
                .as_deref()
                .is_none_or(|part| self.lists(part))
    }
}

/// What an account's configuration says. `None` means the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountSettings {
    /// Kinds that are watched.
    pub cached: Option<Vec<KindPattern>>,
    /// Kinds that are read through.
    pub live: Option<Vec<KindPattern>>,
    /// What may be done; `None` means reads only.
    pub operations: Option<Vec<OperationRule>>,
    /// The only namespaces of the account; empty means all.
    pub namespaces: Vec<String>,
}

/// The compiled policy of one account.
#[derive(Clone, Debug)]
pub struct AccountPolicy {
    pub(super) cached: Vec<KindPattern>,
    pub(super) live: Vec<KindPattern>,
    reviews: Vec<KindPattern>,
    pub(super) operations: Vec<OperationRule>,
    namespaces: Vec<String>,
    scrub: Arc<ScrubRules>,
}

impl AccountPolicy {
    /// Compiles what the configuration says over what ships with the program.
    pub fn new(settings: AccountSettings, rules: &Rules) -> Self {
        let levels = &rules.levels;
        let mut namespaces = settings.namespaces;
        namespaces.sort();
        namespaces.dedup();
        Self {
            cached: settings.cached.unwrap_or_else(|| levels.cached.clone()),
            live: settings.live.unwrap_or_else(|| levels.live.clone()),
            reviews: levels.reviews.clone(),
            operations: settings
                .operations
                .unwrap_or_else(|| reads_only(&levels.reviews)),
            namespaces,
            scrub: Arc::clone(&rules.scrub),
        }
    }

    /// Whether the account may read `kind` at all, and how.
    ///
    /// `*` opens every kind except the masked ones; those must be named. A kind in both lists is
    /// cached, unless the API server cannot watch it, or the rules limit its reads: the hub answers
    /// from what is watched without asking them.
    pub fn allow(&self, kind: &Kind) -> Option<AllowedKind> {
        let masked = self.scrub.masked(&kind.gvr).is_some();
        let names = |patterns: &[KindPattern]| {
            let mut patterns = patterns.iter();
            patterns.any(|pattern| pattern.matches(kind) && !(masked && pattern.is_any()))
        };
        let can = |verb: Verb| kind.verbs.iter().any(|known| known == verb.as_str());
        let cached = names(&self.cached);
        let watches = can(Verb::List) && can(Verb::Watch) && self.reads_everywhere(kind);
        let level = if cached && watches {
            Level::Cached
        } else if cached || names(&self.live) {
            Level::Live
        } else {
            return None;
        };
        Some(AllowedKind {
            kind: kind.clone(),
            level,
            masked,
        })
    }

    /// Whether a request may be sent on.
    pub fn permits(&self, target: &Target, allowed: &AllowedKind) -> Decision {
        let kind = &allowed.kind;
        if target.gvr != kind.gvr {
            let kind = kind.gvr.to_string();
            return Decision::Deny(Denial::KindMismatch { kind });
        }
        // A rule or a limit to this namespace must not cover what is in none.
        if target.is_misplaced(kind.namespaced) {
            let kind = kind.gvr.to_string();
            return Decision::Deny(Denial::NotNamespaced { kind });
        }
        let subresource = target.subresource.as_deref();
        if let Some(part) = subresource.filter(|part| TUNNELS.contains(part)) {
            return Decision::Deny(Denial::Tunnel {
                subresource: part.to_owned(),
            });
        }
        if let Some(denial) = self.outside_namespaces(target, kind) {
            return Decision::Deny(denial);
        }
        let mut rules = self.operations.iter();
        if rules.any(|rule| rule.allows(target, kind)) {
            return Decision::Allow;
        }
        let (verb, kind) = (target.verb, kind.gvr.to_string());
        Decision::Deny(match subresource {
            None => Denial::Operation { verb, kind },
            Some(part) => Denial::Subresource {
                verb,
                kind,
                subresource: part.to_owned(),
            },
        })
    }

    /// Whether a request may be sent on that creates what it names where that is not there: a
    /// server-side apply, and an update of some kinds. API servers ask for `create` besides, but of
    /// the agent's own credential.
    pub fn permits_creation(
        &self,
        target: &Target,
        allowed: &AllowedKind,
        content_type: Option<&str>,
    ) -> Decision {
        if target.subresource.is_some() || !creates(target, content_type) {
            return Decision::Allow;
        }
        let creation = Target {
            verb: Verb::Create,
            ..target.clone()
        };
        self.permits(&creation, allowed)
    }

    /// Whether the rules allow each read of `kind` in all namespaces of the account, or in none.
    fn reads_everywhere(&self, kind: &Kind) -> bool {
        let is_everywhere = |rule: &&OperationRule| {
            let in_namespaces = kind.namespaced || kind.gvr.is_namespaces();
            let all_named = |namespace: &String| {
                let mut named = rule.namespaces.iter();
                named.any(|known| known.matches(Some(namespace)))
            };
            rule.namespaces.contains(&NamespacePattern::Any)
                || (in_namespaces
                    && !self.namespaces.is_empty()
                    && self.namespaces.iter().all(all_named))
        };
        [Verb::Get, Verb::List, Verb::Watch].iter().all(|verb| {
            let covering = || {
                self.operations
                    .iter()
                    .filter(|rule| rule.covers(kind, *verb))
            };
            covering().next().is_none() || covering().any(|rule| is_everywhere(&rule))
        })
    }

    /// Why a request leaves the account's namespaces, if it does.
    ///
    /// An account that is limited to namespaces reads its own Namespace objects by name and every
    /// cluster-scoped kind of its levels, and writes nothing outside its namespaces.
    fn outside_namespaces(&self, target: &Target, kind: &Kind) -> Option<Denial> {
        if self.namespaces.is_empty() {
            return None;
        }
        let cluster_wide = || {
            Some(Denial::ClusterWide {
                verb: target.verb,
                kind: kind.gvr.to_string(),
            })
        };
        let is_namespaces = kind.gvr.is_namespaces();
        match target.namespace.as_deref() {
            Some(namespace) if !self.namespaces.iter().any(|known| known == namespace) => {
                Some(Denial::Namespace {
                    namespace: namespace.to_owned(),
                })
            }
            Some(_) if is_namespaces && !target.verb.reads() => cluster_wide(),
            Some(_) => None,
            None if kind.namespaced || is_namespaces => cluster_wide(),
            None if target.verb.reads() || self.is_review(kind) => None,
            None => cluster_wide(),
        }
    }

    /// Whether it only asks about the caller itself.
    pub(super) fn is_review(&self, kind: &Kind) -> bool {
        self.reviews.iter().any(|pattern| pattern.matches(kind))
    }

    /// Verbs of discovery that some rule allows, in discovery's order.
    pub fn verbs(&self, allowed: &AllowedKind) -> Vec<String> {
        let kind = &allowed.kind;
        self.covered(&kind.verbs, kind, None)
    }

    /// Subresources of discovery that some rule allows, with the verbs that it allows.
    pub fn subresources(&self, allowed: &AllowedKind) -> Vec<Subresource> {
        let kind = &allowed.kind;
        let listed = kind.subresources.iter().map(|part| Subresource {
            verbs: self.covered(&part.verbs, kind, Some(&part.name)),
            ..part.clone()
        });
        listed.filter(|part| !part.verbs.is_empty()).collect()
    }

    fn covered(&self, verbs: &[String], kind: &Kind, subresource: Option<&str>) -> Vec<String> {
        if subresource.is_some_and(|part| TUNNELS.contains(&part)) {
            return Vec::new();
        }
        let rule_covers = |rule: &OperationRule, verb: Verb| {
            rule.covers(kind, verb) && subresource.is_none_or(|part| rule.lists(part))
        };
        let is_covered = |text: &&String| {
            let verb = Verb::parse(text);
            verb.is_some_and(|verb| self.operations.iter().any(|rule| rule_covers(rule, verb)))
        };
        verbs.iter().filter(is_covered).cloned().collect()
    }

    /// The only namespaces of the account, sorted; empty means all.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// What the byte filter removes for this account.
    pub const fn scrub_rules(&self) -> &Arc<ScrubRules> {
        &self.scrub
    }

    /// SHA-256 over everything that decides what a feed holds: levels, namespaces, scrub rules
    /// and [`FILTER_VERSION`]. State that was made under another digest is read again.
    pub fn digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&FILTER_VERSION.to_be_bytes());
        context.update(self.scrub.digest());
        let sorted = |patterns: &[KindPattern]| {
            let mut texts: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            texts.sort();
            texts
        };
        for list in [&sorted(&self.cached), &sorted(&self.live), &self.namespaces] {
            context.update(&list.len().to_be_bytes());
            for text in list {
                context.update(&text.len().to_be_bytes());
                context.update(text.as_bytes());
            }
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

fn creates(target: &Target, content_type: Option<&str>) -> bool {
    match target.verb {
        Verb::Patch => content_type.is_some_and(|text| {
            text.trim_start()
                .to_ascii_lowercase()
                .starts_with("application/apply-patch")
        }),
        Verb::Update => {
            let kind = (target.gvr.group.as_str(), target.gvr.resource.as_str());
            CREATED_BY_UPDATE.contains(&kind)
        }
        Verb::Create
        | Verb::Delete
        | Verb::DeleteCollection
        | Verb::Get
        | Verb::List
        | Verb::Watch => false,
    }
}

/// What an account may do whose configuration names no operations: read, and ask about itself.
fn reads_only(reviews: &[KindPattern]) -> Vec<OperationRule> {
    let rule = |verbs: &[Verb], kinds: Vec<KindPattern>| OperationRule {
        verbs: verbs.to_vec(),
        subresources: None,
        kinds,
        namespaces: vec![NamespacePattern::Any],
    };
    let any = KindPattern::parse("*").into_iter().collect();
    vec![
        rule(&[Verb::Get, Verb::List, Verb::Watch], any),
        rule(&[Verb::Create], reviews.to_vec()),
    ]
}

#[cfg(test)]
#[path = "account_tests.rs"]
pub(super) mod tests;
