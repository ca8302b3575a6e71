//! The library's requests and answers over a transport that can do only what is meant.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect;
use rustify::errors::ClientError as HttpError;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret;
use serde_json::Value;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::kv2::requests::ReadSecretRequest;
use vaultrs::api::token::requests::LookupTokenSelfRequest;
use vaultrs::api::{EndpointMiddleware, EndpointResult};
use zeroize::{Zeroize, Zeroizing};

use super::failure::Failure;
use super::{FetchErrorKind, Settings};
use crate::credential::authorization::read_file;
use crate::credential::kubeconfig::parse_roots;
use crate::credential::reference::Locator;
use crate::limits;
use crate::secret::SecretBytes;

/// Largest answer that is read, in bytes: a document of [`limits::YAML_BYTES`], escaped, among
/// other fields.
const ANSWER_BYTES: usize = 4 * limits::YAML_BYTES;

type Sending<'a> =
    Pin<Box<dyn Future<Output = Result<http::Response<Vec<u8>>, HttpError>> + Send + 'a>>;

/// A client for one fetch, with one token.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    middle: EndpointMiddleware,
}

impl Client {
    /// The authority file is read each time, so that a renewed one is seen.
    pub(super) async fn build(
        settings: &Settings,
        token: Option<&SecretBytes>,
        deadline: Duration,
    ) -> Result<Self, Failure> {
        if !settings.address.starts_with("https://") {
            return Err(Failure::unavailable("its address must begin with https://"));
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(settings).await?)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .https_only(true)
            .pool_max_idle_per_host(0)
            .connect_timeout(deadline)
            .timeout(deadline)
            .build()
            .map_err(|_error| Failure::unavailable("its TLS settings cannot be used"))?;
        Ok(Self {
            http,
            base: settings.address.clone(),
            middle: EndpointMiddleware {
                token: token.map(exposed).transpose()?.unwrap_or_default(),
                version: "v1".to_owned(),
                wrap: None,
                namespace: None,
            },
        })
    }

    /// The fields of a secret, and its version. The caller wipes the fields.
    pub(super) async fn read(&self, locator: &Locator) -> Result<(Value, u64), Failure> {
        let request = ReadSecretRequest {
            mount: locator.mount.clone(),
            path: locator.path.clone(),
            version: locator.version,
        };
        let secret = self.ask(request).await?.data.ok_or_else(Failure::corrupt)?;
        Ok((secret.data, secret.metadata.version))
    }

    /// Whether the token is accepted at all.
    pub(super) async fn look_up_self(&self) -> Result<(), Failure> {
        self.ask(LookupTokenSelfRequest {}).await.map(drop)
    }

    /// Logs in with a service account's token.
    pub(super) async fn log_in(
        &self,
        mount: &str,
        role: &str,
        proof: &SecretBytes,
    ) -> Result<SecretBytes, Failure> {
        let request = LoginWithKubernetesRequest {
            mount: mount.to_owned(),
            role: role.to_owned(),
            jwt: exposed(proof)?,
        };
        let answer = self
            .ask(request)
            .await
            .map_err(|failure| match failure.kind {
                FetchErrorKind::Denied | FetchErrorKind::NotFound => Failure {
                    kind: FetchErrorKind::Unauthenticated,
                    status: failure.status,
                    hint: "the login was refused; look at its `role`, and the service account that is bound to it",
                },
                _ => failure,
            })?;
        let token = answer
            .auth
            .map(|auth| auth.client_token)
            .unwrap_or_default();
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

    async fn ask<E: rustify::Endpoint>(
        &self,
        request: E,
    ) -> Result<EndpointResult<E::Response>, Failure> {
        let request = request.with_middleware(&self.middle);
        let mut answer = rustify::Endpoint::exec(&request, self)
            .await
            .map_err(|error| Failure::from_library(&error))?;
        let parsed = answer.wrap::<EndpointResult<E::Response>>();
        answer.response.body_mut().zeroize();
        parsed.map_err(|error| Failure::from_library(&error))
    }

    /// The library's own transport reads answers of any size.
    async fn send_bounded(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>, HttpError> {
        let broken = |error: reqwest::Error| HttpError::ResponseError {
            source: error.into(),
        };
        let request = reqwest::Request::try_from(request)
            .map_err(|source| HttpError::ReqwestBuildError { source })?;
        let sent = self.http.execute(request).await;
        let mut response = sent.map_err(|error| HttpError::RequestError {
            source: error.into(),
            url: String::new(),
            method: String::new(),
        })?;
        let announced = response.content_length().unwrap_or_default();
        let capacity = usize::try_from(announced)
            .unwrap_or(usize::MAX)
            .min(ANSWER_BYTES);
        let mut body = Zeroizing::new(Vec::with_capacity(capacity));
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > ANSWER_BYTES {
                return Err(HttpError::ResponseError {
                    source: io::Error::other("answer is too large").into(),
                });
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = http::Response::new(std::mem::take(&mut *body));
        *answer.status_mut() = response.status();
        Ok(answer)
    }
}

impl rustify::client::Client for Client {
    fn send<'life, 'sending>(&'life self, request: http::Request<Vec<u8>>) -> Sending<'sending>
    where
        'life: 'sending,
        Self: 'sending,
    {
        Box::pin(self.send_bounded(request))
    }

    fn base(&self) -> &str {
        &self.base
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.middle.token.zeroize();
    }
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

/// The library takes tokens as plain text.
fn exposed(token: &SecretBytes) -> Result<String, Failure> {
    #[expect(clippy::disallowed_methods, reason = "the library takes plain text")]
    let bytes = token.expose_secret().to_vec();
    String::from_utf8(bytes).map_err(|_error| Failure::local("the token is not text"))
}
