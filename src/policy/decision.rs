//! Allowed, or not and why not.

use thiserror::Error;

use crate::resource::Verb;

/// The answer to "may this be done?".
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// It may.
    Allow,
    /// It may not.
    Deny(Denial),
}

impl Decision {
    /// Whether it may be done.
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow)
    }
}

/// Why something is not allowed, in a sentence that names the setting that would allow it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Denial {
    /// A client that is not bound to the account.
    #[error(
        "client `{client}` may not use account `{account}`; `sortie client create` binds clients to accounts"
    )]
    Client {
        /// Who asked.
        client: String,
        /// For what.
        account: String,
    },
    /// A cluster-wide request where the account is limited to namespaces.
    #[error(
        "`{verb}` on `{kind}` over all namespaces is not allowed for this account; its `namespaces` in agent.yaml limits it"
    )]
    ClusterWide {
        /// What was to be done.
        verb: Verb,
        /// To what.
        kind: String,
    },
    /// A target that is not of the kind it was checked for.
    #[error("request is for another kind than `{kind}`")]
    KindMismatch {
        /// The kind that was looked up.
        kind: String,
    },
    /// A namespace outside the account's.
    #[error(
        "namespace `{namespace}` is not allowed for this account; `namespaces` in agent.yaml would allow it"
    )]
    Namespace {
        /// The namespace asked for.
        namespace: String,
    },
    /// A namespace where the kind is in none.
    #[error("`{kind}` is in no namespace")]
    NotNamespaced {
        /// The kind asked for.
        kind: String,
    },
    /// No operation rule covers it.
    #[error(
        "`{verb}` on `{kind}` is not allowed for this account; an entry of its `operations` in agent.yaml would allow it"
    )]
    Operation {
        /// What was to be done.
        verb: Verb,
        /// To what.
        kind: String,
    },
    /// A subresource that no operation rule lists.
    #[error(
        "`{verb}` on `{kind}/{subresource}` is not allowed for this account; `subresources` of an entry of its `operations` in agent.yaml would allow it"
    )]
    Subresource {
        /// What was to be done.
        verb: Verb,
        /// To what.
        kind: String,
        /// To which part of it.
        subresource: String,
    },
    /// An upgraded connection: these are never tunnelled.
    #[error(
        "`{subresource}` needs an upgraded connection, which is never tunnelled; no setting allows it"
    )]
    Tunnel {
        /// E.g. `exec`.
        subresource: String,
    },
}

impl Denial {
    /// Closed name for logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Client { .. } => "client",
            Self::ClusterWide { .. } => "cluster_wide",
            Self::KindMismatch { .. } => "kind_mismatch",
            Self::Namespace { .. } => "namespace",
            Self::NotNamespaced { .. } => "not_namespaced",
            Self::Operation { .. } => "operation",
            Self::Subresource { .. } => "subresource",
            Self::Tunnel { .. } => "tunnel",
        }
    }
}
