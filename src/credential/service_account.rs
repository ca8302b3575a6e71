//! The pod's own account at its own cluster.

use std::path::Path;

use rustls_pki_types::ServerName;

use super::authorization::{Auth, TokenFile, read_file};
use super::kubeconfig::parse_roots;
use super::{Credential, Server, Trust};
use crate::limits;

/// Why the pod's own account cannot be used; fixed text.
pub(super) type Problem = &'static str;

/// The credential in a mounted service account folder (`ca.crt`, `token`, `namespace`).
pub(super) async fn read(host: &str, port: u16, mount: &Path) -> Result<Credential, Problem> {
    let server = Server::new(host, port)
        .map_err(|_error| "the address of the cluster's API server is not usable")?;
    let server_name = ServerName::try_from(server.host().to_owned())
        .map_err(|_error| "the address of the cluster's API server is not usable")?;
    let pem = read_file(&mount.join("ca.crt"), limits::YAML_BYTES)
        .await
        .map_err(|_error| "the service account's `ca.crt` cannot be read")?;
    let roots = parse_roots(&pem)
        .map_err(|_problem| "the service account's `ca.crt` holds no usable certificate")?;
    let auth = Auth::BearerFile(TokenFile::new(mount.join("token")));
    auth.header()
        .await
        .map_err(|_error| "the service account's `token` cannot be read")?;
    let namespace = read_file(&mount.join("namespace"), 253)
        .await
        .ok()
        .and_then(|bytes| {
            std::str::from_utf8(bytes.trim_ascii())
                .ok()
                .map(str::to_owned)
        });
    Ok(Credential {
        server,
        proxy: None,
        trust: Trust::Authorities(roots),
        server_name,
        auth,
        impersonation: Vec::new(),
        namespace,
        lent: None,
    })
}
