//! Where configuration comes from: the file, and a few variables.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::ConfigError;
use crate::limits;

/// What is taken from the environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `AWS_ROLE_ARN`: the role of AWS that the pod's service account may take on.
    pub aws_role_arn: Option<String>,
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`: the token with which it does.
    pub aws_web_identity_token_file: Option<String>,
    /// `KUBERNETES_SERVICE_HOST`: host of the API server that a pod belongs to.
    pub service_host: Option<String>,
    /// `KUBERNETES_SERVICE_PORT`: its port.
    pub service_port: Option<String>,
    /// `HOSTNAME`: name of the pod or machine, for people.
    pub host: Option<String>,
    /// `KUBECONFIG`: the kubeconfig that kubectl would use.
    pub kubeconfig: Option<String>,
    /// `HOME`: where kubectl keeps its own.
    pub home: Option<String>,
    /// `TERM`: what kind of terminal this is.
    pub terminal: Option<String>,
    /// `TMPDIR`: where temporary files go.
    pub temporary: Option<String>,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        Self::of(|name| {
            #[expect(
                clippy::disallowed_methods,
                reason = "the one reader of the environment"
            )]
            let value = std::env::var(name);
            value.ok()
        })
    }

    /// That which `read` gives by name; an empty value counts as none.
    pub fn of(read: impl Fn(&str) -> Option<String>) -> Self {
        let read = |name| read(name).filter(|value| !value.is_empty());
        Self {
            aws_role_arn: read("AWS_ROLE_ARN"),
            aws_web_identity_token_file: read("AWS_WEB_IDENTITY_TOKEN_FILE"),
            service_host: read("KUBERNETES_SERVICE_HOST"),
            service_port: read("KUBERNETES_SERVICE_PORT"),
            host: read("HOSTNAME"),
            kubeconfig: read("KUBECONFIG"),
            home: read("HOME"),
            terminal: read("TERM"),
            temporary: read("TMPDIR"),
        }
    }

    /// The same, as if this were a pod: for what does not depend on where its API server is.
    #[must_use]
    pub fn in_a_pod(mut self) -> Self {
        self.service_host.get_or_insert_default();
        self.service_port.get_or_insert_with(|| "443".to_owned());
        self
    }

    /// The kubeconfig that kubectl would use; the first one, if several are named.
    pub fn kubeconfig(&self) -> Option<PathBuf> {
        let named = self
            .kubeconfig
            .as_deref()
            .and_then(|list| list.split(':').next());
        let own = self
            .home
            .as_deref()
            .map(|home| Path::new(home).join(".kube/config"));
        named.map(PathBuf::from).or(own)
    }

    /// Where temporary files go.
    pub fn temporary(&self) -> PathBuf {
        PathBuf::from(self.temporary.as_deref().unwrap_or("/tmp"))
    }
}

/// The text of the file at `path`.
///
/// # Errors
/// It cannot be read, or is not one that could be a configuration.
pub fn load(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let most = limits::YAML_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let text = String::from_utf8(bytes).ok();
    text.filter(|text| text.len() <= limits::YAML_BYTES)
        .ok_or_else(|| ConfigError::NotText {
            path: path.to_owned(),
        })
}
