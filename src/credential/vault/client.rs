//! The library's requests and answers over a transport that can do only what is meant.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustify::endpoint::EndpointResult as Raw;
use rustify::errors::ClientError as HttpError;
use secrecy::ExposeSecret;
use vaultrs::api::{EndpointMiddleware, EndpointResult};
use zeroize::Zeroize;

use super::Access;
use super::failure::{from_answer, from_health, from_library};
use crate::credential::fetch::Failure;
use crate::credential::transport::{self, BodyError};
use crate::secret::SecretBytes;

/// Time that one request may take.
const DEADLINE: Duration = Duration::from_secs(5);

type Sending<'a> =
    Pin<Box<dyn Future<Output = Result<http::Response<Vec<u8>>, HttpError>> + Send + 'a>>;

/// A client for one errand, with one token.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    middle: EndpointMiddleware,
    /// What the last answer was, if not a success: the library's error has no room for all of it.
    refusal: Mutex<Option<Failure>>,
}

impl Client {
    /// The files of the connection are read each time, so that renewed ones are seen.
    pub(super) async fn build(
        access: &Access,
        token: Option<&SecretBytes>,
    ) -> Result<Self, Failure> {
        let Access {
            settings,
            certificate,
        } = access;
        if !settings.address.starts_with("https://") {
            return Err(Failure::unavailable("its address must begin with https://"));
        }
        let certificate = match &settings.certificate {
            Some(identity) => Some(identity.current(certificate).await?),
            None => None,
        };
        let http = transport::client_as(certificate, Some(&settings.ca_file), DEADLINE).await?;
        Ok(Self {
            http,
            base: settings.address.clone(),
            middle: EndpointMiddleware {
                token: token.map(exposed).transpose()?.unwrap_or_default(),
                version: "v1".to_owned(),
                wrap: None,
                namespace: settings.namespace.clone(),
            },
            refusal: Mutex::default(),
        })
    }

    /// Asks, and reads an answer of the usual form. Who asked wipes it.
    pub(super) async fn ask<E: rustify::Endpoint>(
        &self,
        request: E,
    ) -> Result<EndpointResult<E::Response>, Failure> {
        let mut answer = self.send_request(request).await?;
        let parsed = answer.wrap::<EndpointResult<E::Response>>();
        answer.response.body_mut().zeroize();
        parsed.map_err(|error| from_library(&error))
    }

    /// As [`Client::ask`], for a type of the library that is the whole answer.
    pub(super) async fn ask_whole<E: rustify::Endpoint>(
        &self,
        request: E,
    ) -> Result<E::Response, Failure> {
        let mut answer = self.send_request(request).await?;
        let parsed = answer.parse();
        answer.response.body_mut().zeroize();
        parsed.map_err(|error| from_library(&error))
    }

    /// Asks for something to be done; what is answered does not matter.
    pub(super) async fn tell<E: rustify::Endpoint>(&self, request: E) -> Result<(), Failure> {
        let mut answer = self.send_request(request).await?;
        answer.response.body_mut().zeroize();
        Ok(())
    }

    /// Whether it is there, unsealed and active or able to pass requests on.
    pub(super) async fn health(&self) -> Result<(), Failure> {
        let path = "/v1/sys/health?standbyok=true&perfstandbyok=true";
        let asked = self.http.get(format!("{}{path}", self.base)).send().await;
        let answer = asked.map_err(|error| from_library(&unsent(error)))?;
        let code = answer.status().as_u16();
        from_health(code, &transport::body(answer).await?)
    }

    async fn send_request<E: rustify::Endpoint>(
        &self,
        request: E,
    ) -> Result<Raw<E::Response>, Failure> {
        let request = request.with_middleware(&self.middle);
        let answer = rustify::Endpoint::exec(&request, self).await;
        answer.map_err(|error| {
            let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
            refusal.take().unwrap_or_else(|| from_library(&error))
        })
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
        let response = self.http.execute(request).await.map_err(unsent)?;
        let status = response.status();
        let retry_after = transport::retry_after(response.headers());
        let mut body = transport::body(response)
            .await
            .map_err(|error| match error {
                BodyError::Broken(error) => broken(error),
                BodyError::TooLarge => HttpError::ResponseError {
                    source: io::Error::other("answer is too large").into(),
                },
            })?;
        if !status.is_success() {
            // The library would keep the body in its error.
            let failure = from_answer(status.as_u16(), retry_after, &body);
            let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
            *refusal = Some(failure);
            body.zeroize();
        }
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

fn unsent(error: reqwest::Error) -> HttpError {
    HttpError::RequestError {
        source: error.into(),
        url: String::new(),
        method: String::new(),
    }
}

/// The library takes tokens as plain text.
pub(super) fn exposed(token: &SecretBytes) -> Result<String, Failure> {
    #[expect(clippy::disallowed_methods, reason = "the library takes plain text")]
    let bytes = token.expose_secret().to_vec();
    String::from_utf8(bytes).map_err(|_error| Failure::local("the token is not text"))
}
