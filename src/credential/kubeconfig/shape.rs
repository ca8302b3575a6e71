//! What a kubeconfig looks like, without anything secret in it.

use std::time::SystemTime;

use secrecy::ExposeSecret;

use super::{KubeconfigError, Profile, read};
use crate::credential::certificate::ends_at;
use crate::secret::SecretBytes;
use crate::yaml::{self, Node};

/// What a kubeconfig looks like, without anything secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The names of its contexts.
    pub contexts: Vec<String>,
    /// The API server.
    pub server: String,
    /// The namespace that the chosen context names.
    pub namespace: Option<String>,
    /// The kind of its user, as [`crate::credential::Auth::kind`] names it.
    pub user: &'static str,
    /// When the user's certificate ends, if it has one.
    pub certificate_ends: Option<SystemTime>,
    /// When the first of the certificate authorities ends.
    pub authority_ends: Option<SystemTime>,
}

/// The shape of a document, for a look at it: its context of the given name, or its current one.
///
/// # Errors
/// As those of [`read`].
pub fn shape(
    document: &SecretBytes,
    context: Option<&str>,
    profile: &Profile,
) -> Result<Shape, KubeconfigError> {
    #[expect(clippy::disallowed_methods, reason = "read into sealed parts")]
    let bytes = document.expose_secret();
    let credential = read(bytes, context, profile)?;
    let authorities = credential.roots().iter();
    Ok(Shape {
        contexts: contexts(bytes)?,
        server: credential.server().to_string(),
        namespace: credential.namespace().map(str::to_owned),
        user: credential.auth().kind(),
        certificate_ends: credential.expires(),
        authority_ends: authorities.filter_map(|authority| ends_at(authority)).min(),
    })
}

fn contexts(bytes: &[u8]) -> Result<Vec<String>, KubeconfigError> {
    let text = std::str::from_utf8(bytes).map_err(|_error| KubeconfigError::NotText)?;
    let document = yaml::parse(text).map_err(KubeconfigError::Yaml)?;
    let list = document.get("contexts").and_then(Node::as_list);
    let names = list.unwrap_or_default().iter();
    Ok(names
        .filter_map(|context| context.get("name")?.as_str())
        .map(str::to_owned)
        .collect())
}
