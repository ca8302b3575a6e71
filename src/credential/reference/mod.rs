//! References to secrets, in Spinnaker's forms and in ours.
//!
//! ```text
//! encrypted:ENGINE!k:v…   secret://ENGINE?k=v…   ── classic ──┐
//! sec+ENGINE://PROFILE/path?query#key            ── modern ───┴─▶ Reference ──▶ canonical
//! ```
//! A reference names a secret and nothing else: no host, no credential. Which server is asked is
//! said by the named connection of our configuration.
//!
//! # Sources
//! - RFC 3986; Spinnaker `kork-secrets-api`.

mod check;
mod classic;
mod error;
mod modern;
mod parameters;
mod percent;
#[cfg(test)]
mod tests;

use std::fmt;

use self::classic::Wanted;
pub use self::error::ReferenceError;
use self::error::expected;
use self::percent::encode;

/// Which store a reference speaks of, by its name in references and configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EngineId {
    /// A folder of ours.
    File,
    /// Google Cloud Storage.
    Gcs,
    /// Google Secret Manager.
    GoogleSecretsManager,
    /// Secrets of a Kubernetes cluster.
    Kubernetes,
    /// Gives the value that stands in the reference; for tests.
    Noop,
    /// AWS S3.
    S3,
    /// AWS Secrets Manager.
    SecretsManager,
    /// Vault and `OpenBao`.
    Vault,
}

impl EngineId {
    /// All of them, by name.
    pub const ALL: [Self; 8] = [
        Self::File,
        Self::Gcs,
        Self::GoogleSecretsManager,
        Self::Kubernetes,
        Self::Noop,
        Self::S3,
        Self::SecretsManager,
        Self::Vault,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Gcs => "gcs",
            Self::GoogleSecretsManager => "google-secrets-manager",
            Self::Kubernetes => "k8s",
            Self::Noop => "noop",
            Self::S3 => "s3",
            Self::SecretsManager => "secrets-manager",
            Self::Vault => "vault",
        }
    }

    /// The engine of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.as_str() == name)
    }
}

/// A reference that has been understood.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The connection in our configuration; `None` is the default one of its engine.
    pub profile: Option<String>,
    /// Which document of the store.
    pub locator: Locator,
    /// Which part of it.
    pub key: Key,
    /// Whether that part holds base64.
    pub base64: bool,
}

/// Which document of a store. Its `Debug`, as its `Display`, leaves out the value of
/// [`Locator::Noop`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Locator {
    /// A file below the folder of its connection, `a/b`.
    File {
        /// Path below the folder; empty is the folder itself.
        path: String,
    },
    /// An object in Google Cloud Storage.
    Gcs {
        /// Name of the bucket.
        bucket: String,
        /// Name of the object, with its `/`.
        object: String,
    },
    /// A secret of Google Secret Manager.
    GoogleSecret {
        /// Number or id of the project.
        project: String,
        /// Id of the secret.
        secret: String,
        /// A version other than `latest`.
        version: Option<String>,
    },
    /// A Secret of a cluster.
    KubernetesSecret {
        /// Its namespace; otherwise the connection's.
        namespace: Option<String>,
        /// Its name.
        name: String,
    },
    /// The value itself.
    Noop {
        /// It.
        value: String,
    },
    /// An object in S3.
    S3 {
        /// A region other than the connection's.
        region: Option<String>,
        /// Name of the bucket.
        bucket: String,
        /// Key of the object, with its `/`.
        object: String,
    },
    /// A secret of AWS Secrets Manager.
    AwsSecret {
        /// A region other than the connection's.
        region: Option<String>,
        /// Its name or ARN.
        name: String,
        /// Id of a version other than the current one.
        version: Option<String>,
        /// A stage other than `AWSCURRENT`.
        stage: Option<String>,
    },
    /// A secret of a key-value store of Vault.
    Vault {
        /// Where the store is mounted, e.g. `secret`.
        mount: String,
        /// Path below the mount, e.g. `spinnaker/shop`.
        path: String,
        /// A version other than the newest.
        version: Option<u64>,
    },
}

/// Which part of a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// All of it.
    Whole,
    /// The field, or in an object the dotted path, of this name.
    Named(String),
    /// Each field in turn: one account per field.
    Each,
}

/// Longest reference that is read, in bytes; its canonical form is no longer either.
const REFERENCE_BYTES: usize = 4096;

/// Longest name of a connection, in bytes.
const PROFILE_BYTES: usize = 64;

impl Reference {
    /// Reads a reference in any of its forms:
    ///
    /// - `sec+ENGINE://PROFILE/path?query#key`, where an empty PROFILE means the default
    ///   connection of the engine;
    /// - `encrypted:ENGINE!k:v…`, `encryptedFile:ENGINE!k:v…`, `secret://ENGINE?k=v…` and
    ///   `boot-secret://ENGINE?k=v…`, which always mean it.
    ///
    /// # Errors
    /// Everything else, with its position; a text that only resembles a reference is never taken
    /// literally.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > REFERENCE_BYTES {
            return Err(expected(
                REFERENCE_BYTES,
                "the end: a reference has at most 4096 bytes",
            ));
        }
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        let at = scheme.len() + 1;
        let reference = match scheme {
            "encrypted" if at <= text.len() => classic::opaque(text, at, Wanted::Value),
            "encryptedFile" if at <= text.len() => classic::opaque(text, at, Wanted::File),
            "secret" | "boot-secret" if rest.starts_with("//") => {
                classic::hierarchical(text, at + 2)
            }
            _ if scheme.starts_with("sec+") => modern::parse(text, "sec+".len()),
            _ => Err(expected(
                0,
                "`sec+ENGINE://`, `encrypted:`, `encryptedFile:`, `secret://` or `boot-secret://`",
            )),
        }?;
        // What other forms write in one byte may need three.
        if reference.canonical().len() > REFERENCE_BYTES {
            return Err(expected(0, "a canonical form of at most 4096 bytes"));
        }
        Ok(reference)
    }

    /// The store it speaks of.
    pub const fn engine(&self) -> EngineId {
        match self.locator {
            Locator::File { .. } => EngineId::File,
            Locator::Gcs { .. } => EngineId::Gcs,
            Locator::GoogleSecret { .. } => EngineId::GoogleSecretsManager,
            Locator::KubernetesSecret { .. } => EngineId::Kubernetes,
            Locator::Noop { .. } => EngineId::Noop,
            Locator::S3 { .. } => EngineId::S3,
            Locator::AwsSecret { .. } => EngineId::SecretsManager,
            Locator::Vault { .. } => EngineId::Vault,
        }
    }

    /// The one form of this reference: `sec+ENGINE://PROFILE/path?query#key`, percent-encoded.
    ///
    /// Holds the value of [`Locator::Noop`]; [`fmt::Display`] does not.
    pub fn canonical(&self) -> String {
        match &self.locator {
            Locator::Noop { value } => self.written(&encode(value)),
            locator => self.written(&locator.to_string()),
        }
    }

    fn written(&self, path: &str) -> String {
        let engine = self.engine().as_str();
        let profile = self.profile.as_deref().unwrap_or_default();
        let mut query: Vec<String> = self
            .locator
            .query()
            .into_iter()
            .map(|(name, value)| format!("{name}={}", encode(&value)))
            .collect();
        if self.base64 {
            query.push("encoding=base64".to_owned());
        }
        let query = if query.is_empty() {
            String::new()
        } else {
            format!("?{}", query.join("&"))
        };
        let key = match &self.key {
            Key::Whole => String::new(),
            Key::Each => "#*".to_owned(),
            Key::Named(name) => format!("#{}", encode(name)),
        };
        format!("sec+{engine}://{profile}/{path}{query}{key}")
    }
}

impl fmt::Display for Reference {
    /// The canonical form, for people: without the value of [`Locator::Noop`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written(&self.locator.to_string()))
    }
}

impl Locator {
    /// What stands in the query of the canonical form, in its order.
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        let mut add = |name, value: Option<String>| {
            query.extend(value.map(|value| (name, value)));
        };
        match self {
            Self::AwsSecret {
                region,
                version,
                stage,
                ..
            } => {
                add("region", region.clone());
                add("version", version.clone());
                add("stage", stage.clone());
            }
            Self::S3 { region, .. } => add("region", region.clone()),
            Self::GoogleSecret { version, .. } => add("version", version.clone()),
            Self::Vault { version, .. } => add("version", version.map(|number| number.to_string())),
            Self::File { .. }
            | Self::Gcs { .. }
            | Self::KubernetesSecret { .. }
            | Self::Noop { .. } => {}
        }
        query
    }
}

impl fmt::Display for Locator {
    /// The path of the canonical form, percent-encoded: what a person calls the secret. The value
    /// of [`Locator::Noop`] is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path } => f.write_str(&segments(path)),
            Self::Gcs { bucket, object } | Self::S3 { bucket, object, .. } => {
                write!(f, "{}/{}", encode(bucket), segments(object))
            }
            Self::GoogleSecret {
                project, secret, ..
            } => write!(f, "{}/{}", encode(project), encode(secret)),
            Self::KubernetesSecret { namespace, name } => {
                if let Some(namespace) = namespace {
                    write!(f, "{}/", encode(namespace))?;
                }
                f.write_str(&encode(name))
            }
            Self::Noop { .. } => f.write_str("…"),
            Self::AwsSecret { name, .. } => f.write_str(&segments(name)),
            Self::Vault { mount, path, .. } => {
                write!(f, "{}/{}", encode(mount), segments(path))
            }
        }
    }
}

impl fmt::Debug for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Encodes what stands between the slashes.
fn segments(path: &str) -> String {
    let encoded: Vec<String> = path.split('/').map(encode).collect();
    encoded.join("/")
}
