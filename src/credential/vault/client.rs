//! The library's requests and answers over a transport that can do only what is meant.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use rustify::errors::ClientError as HttpError;
use secrecy::ExposeSecret;
use serde_json::Value;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::kv2::requests::ReadSecretRequest;
use vaultrs::api::token::requests::LookupTokenSelfRequest;
use vaultrs::api::{EndpointMiddleware, EndpointResult};
use zeroize::Zeroize;

use super::failure::from_library;
use super::{Secret, Settings};
use crate::credential::fetch::{Failure, FetchErrorKind};
use crate::credential::transport::{self, BodyError};
use crate::secret::SecretBytes;

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
        let http = transport::client(&settings.ca_file, deadline).await?;
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
    pub(super) async fn read(&self, secret: &Secret<'_>) -> Result<(Value, u64), Failure> {
        let request = ReadSecretRequest {
            mount: secret.mount.to_owned(),
            path: secret.path.to_owned(),
            version: secret.version,
        };
        let secret = self
            .ask(request)
            .await?
            .data
            .ok_or_else(|| Failure::corrupt(""))?;
        Ok((secret.data, secret.metadata.version))
    }

    /// Whether it is there, unsealed and active or able to pass requests on.
    pub(super) async fn health(&self) -> Result<(), Failure> {
        let url = format!("{}/v1/sys/health?standbyok=true", self.base);
        let asked = self.http.get(url).send().await;
        let answer = asked.map_err(|error| {
            from_library(&HttpError::RequestError {
                source: error.into(),
                url: String::new(),
                method: String::new(),
            })
        })?;
        match answer.status().as_u16() {
            // Behind a proxy or in a namespace the path may not be served; it answers all the same.
            200..=299 | 400..=499 => Ok(()),
            code => Err(Failure::new(
                FetchErrorKind::Unavailable {
                    sealed: code == 503,
                },
                "",
            )
            .with_status(code)),
        }
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
            .map_err(|error| from_library(&error))?;
        let parsed = answer.wrap::<EndpointResult<E::Response>>();
        answer.response.body_mut().zeroize();
        parsed.map_err(|error| from_library(&error))
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
        let response = sent.map_err(|error| HttpError::RequestError {
            source: error.into(),
            url: String::new(),
            method: String::new(),
        })?;
        let status = response.status();
        let mut body = transport::body(response)
            .await
            .map_err(|error| match error {
                BodyError::Broken(error) => broken(error),
                BodyError::TooLarge => HttpError::ResponseError {
                    source: io::Error::other("answer is too large").into(),
                },
            })?;
        let mut answer = http::Response::new(std::mem::take(&mut *body));
        *answer.status_mut() = status;
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

/// The library takes tokens as plain text.
fn exposed(token: &SecretBytes) -> Result<String, Failure> {
    #[expect(clippy::disallowed_methods, reason = "the library takes plain text")]
    let bytes = token.expose_secret().to_vec();
    String::from_utf8(bytes).map_err(|_error| Failure::local("the token is not text"))
}
