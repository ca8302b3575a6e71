//! Requests to one API server over the contained transport.

use std::time::Duration;

use http::HeaderValue;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HOST, USER_AGENT};
use rustls_pki_types::ServerName;

use super::Access;
use super::answer::Answer;
use crate::credential::authorization::read_file;
use crate::credential::fetch::Failure;
use crate::credential::kubeconfig::{self, Profile};
use crate::credential::transport::{self, is_untrusted};
use crate::credential::{Auth, Credential, Server, is_refused_address, service_account};
use crate::limits;

/// Time that one request may take; of a watch, its beginning.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Most addresses of one name that are tried.
const ADDRESSES: usize = 8;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// The user of the access.
    Account,
    /// Nobody: no credential is sent.
    Nobody,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Accept {
    /// Everything.
    Object,
    /// No data, only what Kubernetes itself keeps about the object.
    Metadata,
}

/// A client for one errand.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    namespace: Option<String>,
}

impl Client {
    /// Reads the credential, and finds the server.
    pub(super) async fn new(access: &Access, who: Who) -> Result<Self, Failure> {
        let credential = credential(access).await?;
        let server = credential.server();
        let key = match credential.auth() {
            Auth::ClientCertificate(key) if who == Who::Account => Some(std::sync::Arc::clone(key)),
            _ => None,
        };
        let authorization = match who {
            Who::Nobody => None,
            Who::Account => credential.auth().header().await.map_err(|_error| {
                Failure::local("the token of the connection's own credential cannot be read")
            })?,
        };
        let tls = transport::trusting(credential.roots().iter().cloned(), key)?;
        let mut http = transport::contained(tls, DEADLINE);
        let name = url_host(server, credential.server_name())?;
        if server.host().parse::<std::net::IpAddr>().is_err() || name != server.host() {
            http = http.resolve_to_addrs(&name, &addresses(server).await?);
        }
        let bracketed = if name.contains(':') {
            format!("[{name}]")
        } else {
            name
        };
        let unusable = |_error| Failure::local("the address of the API server is not usable");
        Ok(Self {
            http: http
                .build()
                .map_err(|_error| Failure::unavailable("its TLS settings cannot be used"))?,
            base: format!(
                "https://{bracketed}:{}{}",
                server.port(),
                server.base_path()
            ),
            host: HeaderValue::try_from(server.authority()).map_err(unusable)?,
            authorization,
            namespace: credential.namespace().map(str::to_owned),
        })
    }

    /// The namespace that its credential names.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Asks, and reads the answer to its end.
    pub(super) async fn get(&self, path: &str, accept: Accept) -> Result<Answer, Failure> {
        let asked = async {
            let response = self.send(path, accept).await?;
            let status = response.status().as_u16();
            let retry_after = transport::retry_after(response.headers());
            Ok(Answer {
                status,
                retry_after,
                body: transport::body(response).await?,
            })
        };
        in_time(asked).await
    }

    /// Opens a stream: the answer's head is read, its body is not.
    pub(super) async fn open(&self, path: &str) -> Result<reqwest::Response, Failure> {
        in_time(self.send(path, Accept::Metadata)).await
    }

    async fn send(&self, path: &str, accept: Accept) -> Result<reqwest::Response, Failure> {
        let mut request = self
            .http
            .get(format!("{}{path}", self.base))
            .header(HOST, self.host.clone())
            .header(USER_AGENT, concat!("sortie/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT_ENCODING, "identity")
            .header(ACCEPT, accept.media_type());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        request.send().await.map_err(|error| {
            Failure::unavailable(if is_untrusted(&error) {
                "its certificate is not one of the authorities in its kubeconfig or mount"
            } else {
                "the API server cannot be reached"
            })
        })
    }
}

impl Accept {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Object => "application/json",
            Self::Metadata => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        }
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let answered = tokio::time::timeout(DEADLINE, asked).await;
    answered.unwrap_or_else(|_elapsed| {
        Err(Failure::unavailable(
            "the API server did not answer in time",
        ))
    })
}

async fn credential(access: &Access) -> Result<Credential, Failure> {
    match access {
        Access::InCluster { host, port, mount } => service_account::read(host, *port, mount)
            .await
            .map_err(Failure::local),
        Access::Kubeconfig { path, context } => {
            let bytes = read_file(path, limits::YAML_BYTES)
                .await
                .map_err(|_error| {
                    Failure::local("the kubeconfig of the connection cannot be read")
                })?;
            let base = path
                .parent()
                .map(std::path::PathBuf::from)
                .unwrap_or_default();
            let context = context.clone();
            let reading = tokio::task::spawn_blocking(move || {
                let profile = Profile {
                    base: Some(base),
                    ..Profile::sealed()
                };
                kubeconfig::read(&bytes, context.as_deref(), &profile)
            });
            let read = reading.await.ok().and_then(Result::ok);
            let read = read.ok_or(Failure::local(
                "the kubeconfig of the connection is not accepted; try it as `kubeconfig-file` of \
                 an account, with `sortie agent --check`",
            ))?;
            // Read anew for each errand, it would use its refresh token each time.
            let logs_in = matches!(read.auth(), Auth::Minted(_));
            if read.proxy().is_some() || !read.impersonation().is_empty() || logs_in {
                return Err(Failure::local(
                    "the kubeconfig of the connection has a proxy, impersonates or has an \
                     auth-provider, which only those of accounts can",
                ));
            }
            Ok(read)
        }
    }
}

/// The host of the URL is the name that TLS checks; where the server really is, is resolved by us.
fn url_host(server: &Server, name: &ServerName<'_>) -> Result<String, Failure> {
    match name {
        ServerName::DnsName(name) => Ok(name.as_ref().to_owned()),
        _ if name.to_str() == server.host() => Ok(server.host().to_owned()),
        _ => Err(Failure::local(
            "`tls-server-name` must be a name, or left out, not another address",
        )),
    }
}

async fn addresses(server: &Server) -> Result<Vec<std::net::SocketAddr>, Failure> {
    let resolving = tokio::net::lookup_host((server.host(), server.port()));
    let found = tokio::time::timeout(DEADLINE, resolving).await;
    let Ok(Ok(found)) = found else {
        return Err(Failure::unavailable(
            "the name of the API server is not known",
        ));
    };
    let accepted: Vec<_> = found
        .filter(|address| !is_refused_address(address.ip()))
        .take(ADDRESSES)
        .collect();
    if accepted.is_empty() {
        let problem = "its name stands for no address that an API server can have";
        return Err(Failure::unavailable(problem));
    }
    Ok(accepted)
}
