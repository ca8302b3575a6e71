//! What a kubeconfig may do.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::{self, SharedClock};
use crate::credential::minted::Minter;
use crate::credential::server::Exceptions;

/// Something that a kubeconfig may not do, unless its account allows it by this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relaxation {
    /// Run a command that the account lists.
    Exec,
    /// Name files by absolute paths.
    Files,
    /// Trust whatever certificate the API server shows.
    InsecureSkipTlsVerify,
    /// Name metadata services and link-local addresses.
    LinkLocal,
    /// Speak without TLS.
    PlainHttp,
    /// Have fields that are not known.
    UnknownFields,
}

impl Relaxation {
    /// Every relaxation.
    pub const ALL: [Self; 6] = [
        Self::Exec,
        Self::Files,
        Self::InsecureSkipTlsVerify,
        Self::LinkLocal,
        Self::PlainHttp,
        Self::UnknownFields,
    ];

    /// Its name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Files => "files",
            Self::InsecureSkipTlsVerify => "insecure-skip-tls-verify",
            Self::LinkLocal => "link-local",
            Self::PlainHttp => "plain-http",
            Self::UnknownFields => "unknown-fields",
        }
    }

    /// Whether whoever is on the way can then read or change what is said.
    pub const fn gives_up_tls(self) -> bool {
        matches!(self, Self::InsecureSkipTlsVerify | Self::PlainHttp)
    }
}

impl fmt::Display for Relaxation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an account says about its kubeconfig.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rules {
    /// What it may do besides what every kubeconfig may.
    pub allow: Vec<Relaxation>,
    /// The commands that it may run, each with exactly its arguments.
    pub exec: Vec<Vec<String>>,
    /// Where its tokens are minted, in place of the command that it names.
    pub token: Option<Minting>,
}

/// Where the tokens of a kubeconfig are minted, in place of running a command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Minting {
    /// For a cluster of EKS, by a connection to AWS.
    Eks {
        /// The connection.
        profile: String,
        /// The cluster's name.
        cluster: String,
    },
    /// For GKE, by a connection to Google.
    Gke {
        /// The connection.
        profile: String,
    },
}

impl Minting {
    /// The connection.
    pub fn profile(&self) -> &str {
        match self {
            Self::Eks { profile, .. } | Self::Gke { profile } => profile,
        }
    }

    /// Whether this command is the one that it stands for.
    pub(super) fn replaces(&self, command: &str, arguments: &[&str]) -> bool {
        let name = command.rsplit('/').next().unwrap_or_default();
        match self {
            Self::Eks { .. } => match name {
                "aws" => arguments
                    .windows(2)
                    .any(|pair| pair == ["eks", "get-token"]),
                "aws-iam-authenticator" => arguments.contains(&"token"),
                _ => false,
            },
            Self::Gke { .. } => name == "gke-gcloud-auth-plugin",
        }
    }
}

/// What a credential is read for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// A look at it, of which nothing remains: what is good only once is not used up.
    Check,
    /// To be used.
    #[default]
    Use,
}

/// What a kubeconfig may do, and what it is read with.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The folder of an operator's own file, to which its paths are relative.
    pub base: Option<PathBuf>,
    /// What its account says about it.
    pub rules: Rules,
    /// Tells when minted tokens end.
    pub clock: SharedClock,
    /// What mints its tokens, where its rules say so.
    pub tokens: Option<Arc<dyn Minter>>,
    /// What it is read for.
    pub purpose: Purpose,
}

impl Profile {
    /// From an engine, of an account that allows nothing more: nothing outside itself.
    pub fn sealed() -> Self {
        Self {
            base: None,
            rules: Rules::default(),
            clock: clock::system(),
            tokens: None,
            purpose: Purpose::Use,
        }
    }

    pub(super) fn allows(&self, relaxation: Relaxation) -> bool {
        self.rules.allow.contains(&relaxation)
    }

    pub(super) fn exceptions(&self) -> Exceptions {
        Exceptions {
            plain_http: self.allows(Relaxation::PlainHttp),
            link_local: self.allows(Relaxation::LinkLocal),
        }
    }
}
