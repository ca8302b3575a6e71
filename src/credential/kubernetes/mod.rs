//! Kubernetes: a field of a Secret, of the agent's own cluster or of another one.
//!
//! ```text
//! fetch ──▶ GET …/secrets/NAME ─────────────────────────▶ data[KEY], base64 decoded
//! is_current, version ──▶ the same as PartialObjectMetadata ─▶ resourceVersion
//! changed ──▶ WATCH …/secrets?fieldSelector=metadata.name=NAME, metadata only
//! ```
//! Who asks is read anew for each errand: the pod's own `ServiceAccount`, or the kubeconfig file of the
//! connection. `get` on the one Secret is enough; with `watch` a change is seen at once, without it
//! at the next refresh.
//!
//! # Failure
//! - 401 → unauthenticated. 403 and 404 count as the API server's word only if they are a `Status`
//!   of it: what a proxy in between answers is an outage.
//! # Sources
//! - Kubernetes API concepts: "Efficient detection of changes", "Resource versions", "Receiving
//!   resources as metadata only"; RBAC, "Referring to resources"; docs/decisions/0016.

mod answer;
mod client;
#[cfg(test)]
mod tests;
mod watching;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::client::{Accept, Client, Who};
use super::fetch::{Asking, Engine, Failure, FetchErrorKind, Fetched, Waiting};
use super::{Locator, Places, Reference, document};
use crate::entropy::SharedEntropy;

/// Namespace of a reference that names none, where neither the connection nor its credential does.
const DEFAULT_NAMESPACE: &str = "default";

/// For how long a Secret whose watch was refused is not watched again.
const DENIED_FOR: Duration = Duration::from_mins(10);

/// Most Secrets of which that is remembered.
const DENIED: usize = 1024;

/// Longest name of a Secret or a namespace, in bytes: a DNS subdomain.
const NAME_BYTES: usize = 253;

/// A connection to one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which cluster, and who asks.
    pub access: Access,
    /// Namespace of references that name none; otherwise that of the access.
    pub namespace: Option<String>,
}

/// Which cluster, and who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// The agent's own cluster, as the pod's `ServiceAccount`.
    InCluster {
        /// The API server's host.
        host: String,
        /// Its port.
        port: u16,
        /// The folder with `ca.crt`, `token` and `namespace`.
        mount: PathBuf,
    },
    /// A kubeconfig in a file, with files beside it.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The context; otherwise its current one.
        context: Option<String>,
    },
}

/// A connection to one cluster.
#[derive(Debug)]
pub struct Kubernetes {
    settings: Settings,
    /// Spreads the pauses of its watches.
    entropy: SharedEntropy,
    /// Secrets whose watch was refused, and when.
    denied: Mutex<BTreeMap<Named, Instant>>,
    silence: Duration,
}

/// Which Secret; the namespace may be the default one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    namespace: Option<String>,
    name: String,
}

impl Kubernetes {
    /// Prepares a connection; nothing is dialled yet.
    pub const fn new(settings: Settings, entropy: SharedEntropy) -> Self {
        Self {
            settings,
            entropy,
            denied: Mutex::new(BTreeMap::new()),
            silence: watching::SILENCE,
        }
    }

    /// The path of the Secrets of the namespace that is meant.
    fn collection(&self, named: &Named, client: &Client) -> Result<String, Failure> {
        let namespace = named
            .namespace
            .as_deref()
            .or(self.settings.namespace.as_deref())
            .or(client.namespace())
            .unwrap_or(DEFAULT_NAMESPACE);
        if !is_name(namespace) {
            return Err(Failure::new(
                FetchErrorKind::NotFound,
                "a namespace is named by lower case letters, digits and `-`",
            ));
        }
        Ok(format!("/api/v1/namespaces/{namespace}/secrets"))
    }

    async fn secret(&self, reference: &Reference) -> Result<answer::Secret, Failure> {
        let named = Named::of(reference)?;
        let client = Client::new(&self.settings.access, Who::Account).await?;
        let path = format!("{}/{}", self.collection(&named, &client)?, named.name);
        answer::secret(&client.get(&path, Accept::Object).await?)
    }

    /// The version of a Secret; nothing of its data is sent.
    async fn version_of(&self, named: &Named) -> Result<String, Failure> {
        let client = Client::new(&self.settings.access, Who::Account).await?;
        let path = format!("{}/{}", self.collection(named, &client)?, named.name);
        answer::version(&client.get(&path, Accept::Metadata).await?)
    }

    fn may_watch(&self, named: &Named) -> bool {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        denied.retain(|_, since| since.elapsed() < DENIED_FOR);
        !denied.contains_key(named)
    }

    fn may_not_watch(&self, named: &Named) {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.len() < DENIED {
            denied.insert(named.clone(), Instant::now());
        }
        tracing::info!(
            secret = named.name,
            "the Secret may not be watched; it is looked at when it is due"
        );
    }
}

impl Named {
    fn of(reference: &Reference) -> Result<Self, Failure> {
        let Locator::KubernetesSecret { namespace, name } = &reference.locator else {
            return Err(Failure::other_engine());
        };
        if !is_name(name) {
            return Err(Failure::new(
                FetchErrorKind::NotFound,
                "a Secret is named by lower case letters, digits, `-` and `.`",
            ));
        }
        Ok(Self {
            namespace: namespace.clone(),
            name: name.clone(),
        })
    }
}

/// Whether this can be the name of an object, and nothing else, in a path.
fn is_name(text: &str) -> bool {
    let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= NAME_BYTES
        && bytes.iter().copied().all(inner)
        && outer(bytes.first())
        && outer(bytes.last())
}

impl Engine for Kubernetes {
    fn fetch<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Fetched> {
        Box::pin(async move {
            let secret = self.secret(reference).await?;
            Ok(Fetched {
                document: document::encoded_field(secret.data, reference)?,
                version: Some(secret.version),
                lease: None,
                gone_at: None,
            })
        })
    }

    fn keys<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Vec<String>> {
        Box::pin(async move {
            let secret = self.secret(reference).await?;
            document::names(secret.data)
        })
    }

    fn version<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Option<String>> {
        Box::pin(async move { self.version_of(&Named::of(reference)?).await.map(Some) })
    }

    fn is_current<'a>(
        &'a self,
        reference: &'a Reference,
        version: &'a str,
    ) -> Asking<'a, Option<bool>> {
        Box::pin(async move {
            let current = self.version_of(&Named::of(reference)?).await?;
            Ok(Some(current == version))
        })
    }

    fn probe(&self) -> Asking<'_, ()> {
        Box::pin(async move {
            let client = Client::new(&self.settings.access, Who::Nobody).await?;
            match client.get("/readyz", Accept::Object).await?.status {
                // Whoever may not ask is answered all the same.
                200..=499 => Ok(()),
                code => Err(Failure::unavailable("").with_status(code)),
            }
        })
    }

    fn changed<'a>(
        &'a self,
        reference: &'a Reference,
        version: &'a str,
        places: &'a Places,
    ) -> Option<Waiting<'a>> {
        let named = Named::of(reference).ok()?;
        if !self.may_watch(&named) {
            return None;
        }
        Some(Box::pin(watching::changed(self, named, version, places)))
    }
}
