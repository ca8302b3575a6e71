//! References to secrets, in Spinnaker's forms and in ours.
//!
//! ```text
//! encrypted:ENGINE!k:v…   encryptedFile:ENGINE!k:v…   ── classic ──┐
//! sec+ENGINE://PROFILE/path?query#key                 ── modern ───┴─▶ Reference ──▶ canonical
//! ```
//! A reference names a secret and nothing else: no host, no credential. Which server is asked is
//! said by the named connection of our configuration.
//!
//! # Sources
//! - RFC 3986; Spinnaker `kork-secrets-api`.

mod classic;
mod modern;
mod percent;
#[cfg(test)]
mod tests;

use std::fmt;

use thiserror::Error;

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

/// Which document of a store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// A text that is not a reference, or not one that this version can follow.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// An engine that exists elsewhere.
    #[error("engine `{0}` is not available in this version")]
    Engine(String),
    /// Not of a known form.
    #[error("secret reference {0}")]
    Form(&'static str),
}

/// Longest reference that is read, in bytes.
const REFERENCE_BYTES: usize = 4096;

impl Reference {
    /// Reads `sec+vault://PROFILE/mount/path[?version=N][&encoding=base64]#key`,
    /// `encrypted:vault!e:mount!p:path!k:key[!b:true]` or the same with `encryptedFile:`.
    ///
    /// `n` is the old name of `p`. An empty PROFILE, and every `encrypted:` reference, means the
    /// default connection.
    ///
    /// # Errors
    /// Everything else; a text that only resembles a reference is never taken literally.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let is_uri_byte = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
        if text.len() > REFERENCE_BYTES {
            return Err(ReferenceError::Form("is too long"));
        }
        if !text.bytes().all(is_uri_byte) {
            return Err(ReferenceError::Form(
                "has characters that a URI cannot have",
            ));
        }
        if let Some(rest) = text.strip_prefix("sec+") {
            let (engine, rest) = rest
                .split_once("://")
                .ok_or(ReferenceError::Form("has no `://` after its engine"))?;
            return vault_only(engine).and_then(|()| modern::parse(rest));
        }
        for prefix in ["encrypted:", "encryptedFile:"] {
            if let Some(rest) = text.strip_prefix(prefix) {
                let (engine, rest) = rest
                    .split_once('!')
                    .ok_or(ReferenceError::Form("has no parameters"))?;
                return vault_only(engine).and_then(|()| classic::parse(rest));
            }
        }
        for prefix in ["secret://", "boot-secret://"] {
            if let Some(rest) = text.strip_prefix(prefix) {
                let engine = rest.split('?').next().unwrap_or_default();
                return Err(engine_missing(engine));
            }
        }
        Err(ReferenceError::Form("has no known scheme"))
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
    pub fn canonical(&self) -> String {
        let engine = self.engine().as_str();
        let profile = self.profile.as_deref().unwrap_or_default();
        let path = self.locator.to_string();
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
    /// The path of the canonical form, percent-encoded: what a person calls the secret.
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
                let namespace = namespace.as_deref().unwrap_or_default();
                write!(f, "{}/{}", encode(namespace), encode(name))
            }
            Self::Noop { value } => f.write_str(&encode(value)),
            Self::AwsSecret { name, .. } => f.write_str(&segments(name)),
            Self::Vault { mount, path, .. } => {
                write!(f, "{}/{}", encode(mount), segments(path))
            }
        }
    }
}

/// Encodes what stands between the slashes.
fn segments(path: &str) -> String {
    let encoded: Vec<String> = path.split('/').map(encode).collect();
    encoded.join("/")
}

fn vault_only(engine: &str) -> Result<(), ReferenceError> {
    match engine {
        "vault" => Ok(()),
        _ => Err(engine_missing(engine)),
    }
}

fn engine_missing(engine: &str) -> ReferenceError {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=32).contains(&engine.len()) && engine.bytes().all(is_name) {
        ReferenceError::Engine(engine.to_owned())
    } else {
        ReferenceError::Form("names no engine")
    }
}

/// Paths are taken as they are; what a server could read in another way is refused.
fn vault(
    profile: Option<String>,
    (mount, path): (String, String),
    version: Option<u64>,
    (key, base64): (String, bool),
) -> Result<Reference, ReferenceError> {
    let is_odd = |text: &str| {
        text.split('/')
            .any(|segment| matches!(segment, "" | "." | ".."))
            || text.chars().any(char::is_control)
    };
    if is_odd(&mount) || is_odd(&path) {
        return Err(ReferenceError::Form(
            "has an empty or dot segment in its path",
        ));
    }
    if key.is_empty() {
        return Err(ReferenceError::Form("names no field"));
    }
    Ok(Reference {
        profile,
        locator: Locator::Vault {
            mount,
            path,
            version,
        },
        key: Key::Named(key),
        base64,
    })
}
