//! Reads a kubeconfig into a [`Credential`]; everything that could run, redirect or trust more
//! than it says is refused.
//!
//! ```text
//! bytes ──yaml::parse──▶ Node ──context, cluster, user──▶ Credential
//! ```
//! Only the chosen context, its cluster and its user are looked at. Unknown fields at the top and
//! inside these are refused: a field that is not known could change what the known ones mean.
//!
//! # Sources
//! - Kubernetes `client-go/tools/clientcmd/api/v1/types.go`.

mod commands;
mod field;
mod impersonation;
mod profile;
mod shape;
mod user;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use thiserror::Error;

use self::field::At;
pub use self::profile::{Minting, Profile, Purpose, Relaxation, Rules};
pub use self::shape::{Shape, shape};
use super::{Credential, Proxy, Reason, Server, Trust};
use crate::secret::clear_traces;
use crate::yaml::{self, Node, YamlError};

/// Most certificate authorities that one cluster may name.
///
/// The whole bundle of a Linux distribution has about 150.
const ROOTS: usize = 256;

/// A kubeconfig that is not accepted.
///
/// Says where, by path and line, and never what is written there.
#[derive(Debug, Error)]
pub enum KubeconfigError {
    /// The user is to be found out by running a command.
    #[error(
        "`{path}` (line {line}) runs `{command}`, and commands are never run; \
         use a service account token or a client certificate"
    )]
    Exec {
        /// Path of the field.
        path: String,
        /// Its line, from 1.
        line: usize,
        /// Name of the command, without its folder.
        command: String,
    },
    /// A field that is missing or not accepted.
    #[error("`{path}` (line {line}) {problem}")]
    Field {
        /// Path of the field.
        path: String,
        /// Its line, or that of what should hold it, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file that the kubeconfig refers to.
    #[error("the file that `{path}` (line {line}) names cannot be read")]
    File {
        /// Path of the field.
        path: String,
        /// Its line, from 1.
        line: usize,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no context of the configured name.
    #[error("there is no context `{name}`, which the account's `context` names")]
    NoContext {
        /// The configured name.
        name: String,
    },
    /// Not UTF-8.
    #[error("it is not text in UTF-8")]
    NotText,
    /// Not YAML, or not the YAML that is accepted.
    #[error(transparent)]
    Yaml(YamlError),
}

impl KubeconfigError {
    /// What the account's state says about it.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Exec { .. } => Reason::ExecUnsupported,
            Self::Field { .. }
            | Self::File { .. }
            | Self::NoContext { .. }
            | Self::NotText
            | Self::Yaml(_) => Reason::KubeconfigInvalid,
        }
    }
}

/// Reads the kubeconfig in `bytes`: its context of the given name, or its current one.
///
/// Reads the files that it names where `profile` allows them (blocking).
///
/// # Errors
/// See [`KubeconfigError`].
pub fn read(
    bytes: &[u8],
    context: Option<&str>,
    profile: &Profile,
) -> Result<Credential, KubeconfigError> {
    let read = document(bytes, context, profile);
    // Pieces of tokens and keys that the parser and the decoders left there.
    clear_traces();
    read
}

#[inline(never)]
fn document(
    bytes: &[u8],
    context: Option<&str>,
    profile: &Profile,
) -> Result<Credential, KubeconfigError> {
    let text = std::str::from_utf8(bytes).map_err(|_error| KubeconfigError::NotText)?;
    let document = yaml::parse(text).map_err(KubeconfigError::Yaml)?;
    let top = At::top(&document, profile);
    top.only(&[
        "apiVersion",
        "clusters",
        "contexts",
        "current-context",
        "extensions",
        "kind",
        "preferences",
        "users",
    ])?;
    top.is_one_of("apiVersion", "v1")?;
    top.is_one_of("kind", "Config")?;
    let current = top.find("current-context");
    let name = match (context, &current) {
        (Some(name), _) => name,
        (None, Some(current)) => current.text()?,
        (None, None) => return Err(top.refuse("names no current-context")),
    };
    let is_there = |name: &str| {
        let list = top.find("contexts");
        list.is_none_or(|list| has_entry(&list, name))
    };
    if let Some(name) = context
        && !is_there(name)
    {
        let name = name.to_owned();
        return Err(KubeconfigError::NoContext { name });
    }
    let context = named(&top, "contexts", "context", name)?;
    context.only(&["cluster", "extensions", "namespace", "user"])?;
    let cluster_name = context.need("cluster")?;
    let user_name = context.need("user")?;
    let cluster = named(&top, "clusters", "cluster", cluster_name.text()?)?;
    let user = named(&top, "users", "user", user_name.text()?)?;
    let namespace = context.find("namespace");
    let (server, server_name) = server(&cluster, profile)?;
    Ok(Credential {
        trust: trust(&cluster, &server, profile)?,
        proxy: proxy(&cluster, profile)?,
        server,
        server_name,
        auth: user::auth(&user, profile)?,
        impersonation: impersonation::headers(&user)?,
        namespace: match &namespace {
            Some(namespace) => Some(namespace.text()?.to_owned()),
            None => None,
        },
        lent: None,
    })
}

/// Whether `list` is one with an entry of this name.
fn has_entry(list: &At<'_>, name: &str) -> bool {
    let has_name = |item: &Node| item.get("name").and_then(Node::as_str) == Some(name);
    list.node()
        .as_list()
        .is_some_and(|items| items.iter().any(has_name))
}

/// The one entry of `list` with this name.
fn named<'a>(
    top: &At<'a>,
    list: &'static str,
    inner: &'static str,
    name: &str,
) -> Result<At<'a>, KubeconfigError> {
    let list = top.need(list)?;
    let has_name = |item: &At<'_>| item.node().get("name").and_then(Node::as_str) == Some(name);
    let mut matching = list.items()?.filter(has_name);
    let found = matching
        .next()
        .ok_or_else(|| list.refuse("has no entry of the name that is asked for"))?;
    if let Some(second) = matching.next() {
        return Err(second.refuse("has the name of an earlier entry"));
    }
    found.only(&["name", inner])?;
    found.need(inner)
}

fn server(
    cluster: &At<'_>,
    profile: &Profile,
) -> Result<(Server, ServerName<'static>), KubeconfigError> {
    cluster.only(&[
        "certificate-authority",
        "certificate-authority-data",
        "disable-compression",
        "extensions",
        "insecure-skip-tls-verify",
        "proxy-url",
        "server",
        "tls-server-name",
    ])?;
    let url = cluster.need("server")?;
    let server = Server::parse(url.text()?, profile.exceptions()).map_err(|error| {
        url.refuse(match error {
            super::ServerError::Malformed => "is not a URL of the form https://host:port/path",
            super::ServerError::Plaintext => "must use https",
            super::ServerError::Refused => "is a metadata or link-local address",
        })
    })?;
    let named = cluster.find("tls-server-name");
    let name = match &named {
        Some(name) => name.text()?,
        None => server.host(),
    };
    let server_name = ServerName::try_from(name.to_owned()).map_err(|_error| {
        named
            .as_ref()
            .unwrap_or(&url)
            .refuse("is not a name that a certificate can have")
    })?;
    Ok((server, server_name))
}

fn proxy(cluster: &At<'_>, profile: &Profile) -> Result<Option<Proxy>, KubeconfigError> {
    let Some(url) = cluster.find("proxy-url") else {
        return Ok(None);
    };
    let proxy = Proxy::parse(url.text()?, profile.exceptions());
    proxy.map(Some).map_err(|problem| url.refuse(problem))
}

fn trust(cluster: &At<'_>, server: &Server, profile: &Profile) -> Result<Trust, KubeconfigError> {
    const ANYBODY: &str = "would trust anybody; give certificate-authority-data";
    if let Some(insecure) = cluster.find("insecure-skip-tls-verify")
        && insecure.is_true(ANYBODY)?
    {
        if !profile.allows(Relaxation::InsecureSkipTlsVerify) {
            return Err(insecure.refuse(ANYBODY));
        }
        return Ok(Trust::Anybody);
    }
    if server.is_plain() {
        return Ok(Trust::Anybody);
    }
    let found = cluster.content(
        "certificate-authority-data",
        "certificate-authority",
        profile,
    )?;
    let Some((field, pem)) = found else {
        return Err(cluster.refuse(
            "has no certificate-authority-data; the system's certificate authorities are not used",
        ));
    };
    let roots = parse_roots(&pem).map_err(|problem| field.refuse(problem))?;
    Ok(Trust::Authorities(roots))
}

/// The certificate authorities in `pem`: at least one, each fit to be a root.
pub(super) fn parse_roots(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let certificates = parse_certificates(pem)?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store
            .add(certificate.clone())
            .map_err(|_error| "holds a certificate that cannot be read")?;
    }
    Ok(certificates)
}

/// The certificates in `pem`: at least one.
pub(super) fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .take(ROOTS + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_error| "is not PEM")?;
    match certificates.len() {
        0 => Err("holds no certificate in PEM form"),
        1..=ROOTS => Ok(certificates),
        _ => Err("holds too many certificates"),
    }
}

#[cfg(test)]
mod tests;
