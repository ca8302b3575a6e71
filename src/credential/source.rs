//! Where an account's credential comes from, and how it is read once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use secrecy::ExposeSecret;

use super::authorization::read_file;
use super::fetch::FetchErrorKind;
use super::kubeconfig::{self, KubeconfigError};
use super::schedule::{Terms, Trouble};
use super::{Credential, Engines, Profile, Purpose, Reason, Reference, Rules, service_account};
use crate::clock::SharedClock;
use crate::fault::Chain;
use crate::limits;

/// How often what lies on this machine is read again.
const FILE_POLL: Duration = Duration::from_secs(10);

/// Where an account's credential comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A kubeconfig in a file, with files beside it.
    KubeconfigFile {
        /// The file.
        path: PathBuf,
        /// The context; otherwise its current one.
        context: Option<String>,
        /// What it may do.
        rules: Rules,
    },
    /// A kubeconfig in an engine.
    Secret {
        /// Which secret.
        reference: Reference,
        /// The context; otherwise its current one.
        context: Option<String>,
        /// What it may do.
        rules: Rules,
        /// For how long it is used while its engine cannot be asked; otherwise the engine's.
        max_stale: Option<Duration>,
    },
    /// The pod's own account.
    ServiceAccount {
        /// The API server's host.
        host: String,
        /// Its port.
        port: u16,
        /// The folder with `ca.crt`, `token` and `namespace`.
        mount: PathBuf,
    },
}

/// What a source gave.
pub(super) struct Resolved {
    pub(super) credential: Credential,
    pub(super) version: Option<String>,
    pub(super) lease: Option<Duration>,
    /// When the store itself takes it away.
    pub(super) gone_at: Option<SystemTime>,
}

/// An attempt that failed.
pub(super) struct Problem {
    pub(super) reason: Reason,
    pub(super) message: String,
    pub(super) trouble: Trouble,
    /// Not to be tried sooner than this.
    pub(super) at_least: Duration,
}

impl Source {
    /// What is asked of an engine, if one is asked.
    pub const fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Secret { reference, .. } => Some(reference),
            Self::KubeconfigFile { .. } | Self::ServiceAccount { .. } => None,
        }
    }

    /// What its kubeconfig may do.
    pub const fn rules(&self) -> Option<&Rules> {
        match self {
            Self::KubeconfigFile { rules, .. } | Self::Secret { rules, .. } => Some(rules),
            Self::ServiceAccount { .. } => None,
        }
    }

    /// Whether a connection mints its tokens.
    pub fn mints(&self) -> bool {
        self.rules().is_some_and(|rules| rules.token.is_some())
    }

    /// Resolves it once, for a check.
    ///
    /// # Errors
    /// The reason that the account would show, and what an operator should know about it.
    pub async fn resolve(
        &self,
        engines: &Engines,
        clock: &SharedClock,
    ) -> Result<Credential, (Reason, String)> {
        let fetched = self.fetch(engines, clock, Purpose::Check).await;
        fetched
            .map(|resolved| resolved.credential)
            .map_err(|problem| (problem.reason, problem.message))
    }

    /// When it is asked again.
    pub(super) fn terms(&self, engines: &Engines) -> Terms {
        match self {
            Self::Secret {
                reference,
                max_stale,
                ..
            } => {
                let (refresh, of_engine) = engines.terms(reference);
                Terms::engine(refresh, max_stale.unwrap_or(of_engine))
            }
            Self::KubeconfigFile { .. } | Self::ServiceAccount { .. } => Terms::local(FILE_POLL),
        }
    }

    /// Whether what it gave as `version` is still so, asked without the plaintext.
    pub(super) async fn is_current(
        &self,
        engines: &Engines,
        version: &str,
    ) -> Result<bool, Problem> {
        let Some(reference) = self.reference() else {
            return Ok(false);
        };
        let asked = engines.is_current(reference, version).await;
        asked
            .map(|current| current == Some(true))
            .map_err(|error| Problem::fetch(&error))
    }

    /// Reads it for this purpose.
    pub(super) async fn fetch(
        &self,
        engines: &Engines,
        clock: &SharedClock,
        purpose: Purpose,
    ) -> Result<Resolved, Problem> {
        match self {
            Self::KubeconfigFile {
                path,
                context,
                rules,
            } => {
                let base = path.parent().map(PathBuf::from).unwrap_or_default();
                let profile = engines.profile(Some(base), rules, clock, purpose);
                let read = from_file(path, context.clone(), profile).await;
                read.map(local)
            }
            Self::Secret {
                reference,
                context,
                rules,
                ..
            } => {
                let fetched = engines
                    .fetch(reference)
                    .await
                    .map_err(|error| Problem::fetch(&error))?;
                #[expect(clippy::disallowed_methods, reason = "read into sealed parts")]
                let document = fetched.document.expose_secret();
                let profile = engines.profile(None, rules, clock, purpose);
                let read = kubeconfig::read(document, context.as_deref(), &profile);
                let mut credential =
                    read.map_err(|error| Problem::kubeconfig("of the secret", &error))?;
                let (lease, lent) = match fetched.lease {
                    Some(lease) => (Some(lease.time), Some(lease.in_use)),
                    None => (None, None),
                };
                credential.lent = lent;
                Ok(Resolved {
                    credential,
                    version: fetched.version,
                    lease,
                    gone_at: fetched.gone_at,
                })
            }
            Self::ServiceAccount { host, port, mount } => {
                let read = service_account::read(host, *port, mount).await;
                read.map(local)
                    .map_err(|problem| Problem::unusable(problem.to_owned()))
            }
        }
    }
}

const fn local(credential: Credential) -> Resolved {
    Resolved {
        credential,
        version: None,
        lease: None,
        gone_at: None,
    }
}

async fn from_file(
    path: &Path,
    context: Option<String>,
    profile: Profile,
) -> Result<Credential, Problem> {
    let shown = format!("`{}`", path.display());
    let bytes = read_file(path, limits::YAML_BYTES).await.map_err(|error| {
        Problem::unusable(format!("cannot read the kubeconfig {shown}: {error}"))
    })?;
    let reading =
        tokio::task::spawn_blocking(move || kubeconfig::read(&bytes, context.as_deref(), &profile));
    match reading.await {
        Ok(read) => read.map_err(|error| Problem::kubeconfig(&shown, &error)),
        Err(_panicked) => Err(Problem::unusable(format!(
            "cannot read the kubeconfig {shown}"
        ))),
    }
}

impl fmt::Display for Source {
    /// What an operator calls it; the reference in its canonical form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KubeconfigFile { path, .. } => write!(f, "{}", path.display()),
            Self::Secret { reference, .. } => f.write_str(&reference.to_string()),
            Self::ServiceAccount { .. } => f.write_str("service-account"),
        }
    }
}

impl Problem {
    const fn unusable(message: String) -> Self {
        Self {
            reason: Reason::KubeconfigInvalid,
            message,
            trouble: Trouble::Unusable,
            at_least: Duration::ZERO,
        }
    }

    /// `which` names the kubeconfig as an operator knows it.
    fn kubeconfig(which: &str, error: &KubeconfigError) -> Self {
        let message = format!("the kubeconfig {which}: {}", Chain(error));
        Self {
            reason: error.reason(),
            ..Self::unusable(message)
        }
    }

    fn fetch(error: &super::FetchError) -> Self {
        Self {
            reason: error.reason(),
            message: error.to_string(),
            trouble: Trouble::of(&error.kind),
            at_least: match &error.kind {
                FetchErrorKind::Throttled { retry_after } => retry_after.unwrap_or_default(),
                _ => Duration::ZERO,
            },
        }
    }
}
