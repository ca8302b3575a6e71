//! The library's client, put together so that it can do only what is meant.

use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret;
use serde_json::Value;
use vaultrs::api::EndpointMiddleware;
use vaultrs::api::kv2::requests::ReadSecretRequest;
use vaultrs::client::{VaultClient, VaultClientSettings};
use vaultrs::error::ClientError;

use super::failure::Failure;
use super::{FetchErrorKind, Settings};
use crate::credential::authorization::read_file;
use crate::credential::kubeconfig::parse_roots;
use crate::credential::reference::Locator;
use crate::limits;
use crate::secret::SecretBytes;

/// A client for one fetch; the authority file is read each time, so that a renewed one is seen.
pub(super) async fn build(
    settings: &Settings,
    token: Option<&SecretBytes>,
    deadline: Duration,
) -> Result<VaultClient, Failure> {
    let address = &settings.address;
    if !address.starts_with("https://") {
        return Err(Failure::unavailable("its address must begin with https://"));
    }
    let tls = tls(settings).await?;
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .https_only(true)
        .pool_max_idle_per_host(0)
        .connect_timeout(deadline)
        .timeout(deadline)
        .build()
        .map_err(|_error| Failure::unavailable("its TLS settings cannot be used"))?;
    let url = address
        .parse()
        .map_err(|_error| Failure::unavailable("its address is not a URL"))?;
    Ok(VaultClient {
        http: rustify::clients::reqwest::Client::new(address, http),
        middle: EndpointMiddleware {
            token: token.map(exposed).transpose()?.unwrap_or_default(),
            version: "v1".to_owned(),
            wrap: None,
            namespace: None,
        },
        // Read by the library's own constructor only, which is not used: it takes the environment
        // into account.
        settings: VaultClientSettings {
            address: url,
            ca_certs: Vec::new(),
            identity: None,
            timeout: Some(deadline),
            token: String::new(),
            verify: true,
            version: 1,
            wrapping: false,
            namespace: None,
            proxy: None,
        },
    })
}

async fn tls(settings: &Settings) -> Result<ClientConfig, Failure> {
    let unusable = Failure::unavailable("the configured `ca-file` cannot be read");
    let Ok(pem) = read_file(&settings.ca_file, limits::YAML_BYTES).await else {
        return Err(unusable);
    };
    let mut roots = RootCertStore::empty();
    let Ok(certificates) = parse_roots(&pem) else {
        return Err(unusable);
    };
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|_error| Failure::unavailable("the configured `ca-file` cannot be read"))?;
    }
    let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|_error| Failure::unavailable("its TLS settings cannot be used"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(tls)
}

/// The fields of a secret, and its version.
///
/// The library wipes neither; the caller wipes the fields, the allocator of the binary the rest.
pub(super) async fn read_kv2(
    client: &VaultClient,
    locator: &Locator,
) -> Result<(Value, u64), ClientError> {
    let request = ReadSecretRequest {
        mount: locator.mount.clone(),
        path: locator.path.clone(),
        version: locator.version,
    };
    let secret = vaultrs::api::exec_with_result(client, request).await?;
    Ok((secret.data, secret.metadata.version))
}

/// Logs in with a service account's token.
pub(super) async fn log_in(
    client: &VaultClient,
    mount: &str,
    role: &str,
    proof: &SecretBytes,
) -> Result<SecretBytes, Failure> {
    let proof = zeroize::Zeroizing::new(exposed(proof)?);
    let login = vaultrs::auth::kubernetes::login(client, mount, role, &proof).await;
    let token = login
        .map_err(|error| match Failure::from_library(&error) {
            Failure {
                kind: FetchErrorKind::Denied | FetchErrorKind::NotFound,
                status,
                ..
            } => Failure {
                kind: FetchErrorKind::Unauthenticated,
                status,
                hint: "the login was refused; look at the role and its bound service account",
            },
            other => other,
        })?
        .client_token;
    // The library would panic on a token that a header cannot carry.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure {
            kind: FetchErrorKind::Unauthenticated,
            status: None,
            hint: "the login gave no usable token",
        });
    }
    Ok(SecretBytes::new(token.into_bytes()))
}

/// The library takes tokens as plain text.
fn exposed(token: &SecretBytes) -> Result<String, Failure> {
    #[expect(clippy::disallowed_methods, reason = "the library takes plain text")]
    let bytes = token.expose_secret().to_vec();
    String::from_utf8(bytes).map_err(|_error| Failure::local("the token is not text"))
}
