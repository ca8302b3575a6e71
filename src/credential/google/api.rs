//! A question to a REST interface of Google's, with an access token.

use std::time::Duration;

use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, StatusCode};
use reqwest::{Response, Url};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Settings;
use super::login::Login;
use crate::credential::authorization::bearer;
use crate::credential::fetch::{Failure, FetchErrorKind};
use crate::credential::transport::{self, is_untrusted};
use crate::secret::SecretBytes;

/// Time that one request may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// One REST interface, and the login to it.
#[derive(Debug)]
pub(super) struct Api {
    settings: Settings,
    pub(super) login: Login,
}

impl Api {
    /// Nothing is dialled yet. `scope` is the OAuth scope of the tokens.
    pub(super) fn new(settings: Settings, scope: &'static str) -> Self {
        let login = Login::new(settings.auth.clone(), scope);
        Self { settings, login }
    }

    /// The address of a path of these segments, encoded one by one.
    ///
    /// # Errors
    /// A segment that a server could read as another path.
    pub(super) fn url(&self, segments: &[&str]) -> Result<Url, Failure> {
        let is_odd = |segment: &&str| matches!(*segment, "" | "." | "..");
        if segments.iter().any(is_odd) {
            return Err(Failure::new(
                FetchErrorKind::NotFound,
                "a part of the reference is empty or a dot",
            ));
        }
        let unusable =
            Failure::unavailable("its endpoint must be https://host or https://host:port");
        let Ok(mut url) = Url::parse(&self.settings.endpoint) else {
            return Err(unusable);
        };
        match url.path_segments_mut() {
            Ok(mut path) => path.clear().extend(segments),
            Err(()) => return Err(unusable),
        };
        Ok(url)
    }

    /// Asks, and gives the answer if it is a success.
    pub(super) async fn get(&self, url: Url) -> Result<Response, Failure> {
        let token = self.login.token().await?;
        let Ok(header) = bearer(&token) else {
            return Err(Failure::local("the login gave a token that cannot be sent"));
        };
        let client = transport::client_as(None, self.settings.ca_file.as_deref(), DEADLINE).await?;
        let sent = client.get(url).header(AUTHORIZATION, header).send().await;
        let answer = sent.map_err(|error| unreachable(&error, self.settings.ca_file.is_some()))?;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.login.forget().await;
        }
        Err(refusal(answer).await)
    }

    /// Whether it answers at all; no credential is sent.
    pub(super) async fn probe(&self) -> Result<(), Failure> {
        let client = transport::client_as(None, self.settings.ca_file.as_deref(), DEADLINE).await?;
        let sent = client.get(&self.settings.endpoint).send().await;
        let answer = sent.map_err(|error| unreachable(&error, self.settings.ca_file.is_some()))?;
        match answer.status().as_u16() {
            code @ (429 | 500..) => Err(Failure::unavailable("").with_status(code)),
            _ => Ok(()),
        }
    }
}

/// Reads a body to its end.
pub(super) async fn body(answer: Response) -> Result<Zeroizing<Vec<u8>>, Failure> {
    Ok(transport::body(answer).await?)
}

/// Moves a body into a sealed value.
pub(super) fn sealed(body: &mut Zeroizing<Vec<u8>>) -> SecretBytes {
    SecretBytes::new(std::mem::take(&mut **body))
}

fn unreachable(error: &reqwest::Error, has_ca_file: bool) -> Failure {
    Failure::unavailable(match (is_untrusted(error), has_ca_file) {
        (true, true) => "its certificate is not one of the configured `ca-file`",
        (true, false) => {
            "its certificate is not one that this system trusts; is `ca-file` missing?"
        }
        (false, _) => "it cannot be reached at its `endpoint`",
    })
}

/// What Google says about an error (AIP-193; "HTTP status and error codes for JSON" of Cloud
/// Storage, which gives reasons and no status).
#[derive(Deserialize)]
struct Told {
    error: Problem,
}

#[derive(Deserialize)]
struct Problem {
    code: u16,
    /// A word of a closed list.
    #[serde(default)]
    status: String,
    #[serde(default)]
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(rename = "reason")]
    _reason: String,
}

impl Problem {
    /// Google's own word for an answer with this `status`, empty where it has none; `None` for what
    /// Google did not write.
    fn word(self, status: u16) -> Option<String> {
        let is_told = !self.status.is_empty() || !self.errors.is_empty();
        (self.code == status && is_told).then_some(self.status)
    }
}

/// Reads the status and the word of an answer that is not a success; the rest is dropped.
async fn refusal(answer: Response) -> Failure {
    let status = answer.status().as_u16();
    let headers = answer.headers().clone();
    let told = match body(answer).await {
        Ok(body) => serde_json::from_slice::<Told>(&body).ok(),
        Err(failure) => return failure.with_status(status),
    };
    let word = told.and_then(|told| told.error.word(status));
    let (kind, hint) = classify(status, word.as_deref(), &headers);
    Failure::new(kind, hint).with_status(status)
}

fn classify(
    status: u16,
    word: Option<&str>,
    headers: &HeaderMap,
) -> (FetchErrorKind, &'static str) {
    let unavailable = FetchErrorKind::Unavailable { sealed: false };
    match (status, word) {
        (429, _) | (_, Some("RESOURCE_EXHAUSTED")) => {
            let retry_after = transport::retry_after(headers);
            (
                FetchErrorKind::Throttled { retry_after },
                "look at the quota of the project",
            )
        }
        (300..=399, _) if headers.contains_key(LOCATION) => (
            unavailable,
            "redirects are not followed; configure the `endpoint` that it points to",
        ),
        // Says nothing about a secret: a proxy or portal on the way.
        (400..=499, None) => (
            unavailable,
            "what answers is not Google; look at `endpoint`, and at what stands before it",
        ),
        (400, Some("FAILED_PRECONDITION")) => (
            FetchErrorKind::NotFound,
            "the version is disabled or destroyed",
        ),
        (400 | 404, _) => (
            FetchErrorKind::NotFound,
            "look at the names and the version in the reference",
        ),
        (401, _) => (
            FetchErrorKind::Unauthenticated,
            "the token is not accepted; was the key or the service account deleted?",
        ),
        (403, _) => (
            FetchErrorKind::Denied,
            "look at the IAM roles of our service account; for a secret or object that is not \
             there Google may say the same",
        ),
        _ => (unavailable, ""),
    }
}
