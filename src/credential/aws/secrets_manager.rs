//! Secrets Manager: a secret, or a field of the JSON object that it holds.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_secretsmanager::config::{IdentityCache, StalledStreamProtectionConfig};
use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use aws_sdk_secretsmanager::primitives::Blob;
use aws_sdk_secretsmanager::{Client, Config};
use serde_json::Value;
use zeroize::Zeroizing;

use super::failure::from_library;
use super::login::Login;
use super::{Settings, region};
use crate::clock::SharedClock;
use crate::credential::fetch::{Asking, Engine, Failure, FetchErrorKind, Fetched, Waiting};
use crate::credential::{Key, Locator, Reference, document};
use crate::secret::SecretBytes;

/// The stage of a version that a reference means where it names none.
const CURRENT: &str = "AWSCURRENT";

/// A connection to Secrets Manager.
#[derive(Debug)]
pub struct SecretsManager {
    login: Login,
    /// Our policy lacks `DescribeSecret`; it is not asked for again.
    cannot_describe: AtomicBool,
}

/// Which secret.
#[derive(Clone, Copy)]
struct Secret<'a> {
    region: &'a str,
    name: &'a str,
    version: Option<&'a str>,
    stage: Option<&'a str>,
}

impl SecretsManager {
    /// Prepares a connection; nothing is dialled yet.
    pub fn new(settings: Settings, clock: SharedClock) -> Self {
        Self {
            login: Login::new(settings, clock),
            cannot_describe: AtomicBool::new(false),
        }
    }

    fn secret<'a>(&'a self, reference: &'a Reference) -> Result<Secret<'a>, Failure> {
        let Locator::AwsSecret {
            region: named,
            name,
            version,
            stage,
        } = &reference.locator
        else {
            return Err(Failure::other_engine());
        };
        let named = named.as_deref().or_else(|| region_of_arn(name));
        Ok(Secret {
            region: region(named, self.login.settings())?,
            name,
            version: version.as_deref(),
            stage: stage.as_deref(),
        })
    }

    async fn client(&self, secret: Secret<'_>) -> Result<Client, Failure> {
        let credentials = self.login.credentials().await?;
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(secret.region.to_owned()))
            .http_client(self.login.wire().clone())
            .credentials_provider(credentials)
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        config.set_endpoint_url(self.login.settings().endpoint.clone());
        Ok(Client::from_conf(config.build()))
    }

    /// The bytes of a secret, text or binary, and the id of their version.
    async fn read(&self, secret: Secret<'_>) -> Result<(Vec<u8>, Option<String>), Failure> {
        let asked = self
            .client(secret)
            .await?
            .get_secret_value()
            .secret_id(secret.name)
            .set_version_id(secret.version.map(str::to_owned))
            .set_version_stage(secret.stage.map(str::to_owned));
        match Box::pin(asked.send()).await {
            Ok(answer) => content(answer),
            Err(error) => Err(self.login.judged(from_library(&error)).await),
        }
    }

    async fn fetch_field(&self, reference: &Reference) -> Result<Fetched, Failure> {
        let (bytes, version) = self.read(self.secret(reference)?).await?;
        let document = match &reference.key {
            Key::Whole => document::as_meant(SecretBytes::new(bytes), reference)?,
            Key::Named(_) | Key::Each => document::field(fields(bytes)?, reference)?,
        };
        Ok(Fetched {
            document,
            version,
            lease: None,
            gone_at: None,
        })
    }

    async fn names(&self, reference: &Reference) -> Result<Vec<String>, Failure> {
        let (bytes, _version) = self.read(self.secret(reference)?).await?;
        document::names(fields(bytes)?)
    }

    async fn still(&self, reference: &Reference, version: &str) -> Result<Option<bool>, Failure> {
        if self.cannot_describe.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let secret = self.secret(reference)?;
        let client = self.client(secret).await?;
        let asked = client.describe_secret().secret_id(secret.name);
        match Box::pin(asked.send()).await {
            Ok(described) => Ok(is_still(&described, secret, version)),
            Err(error) => {
                let failure = self.login.judged(from_library(&error)).await;
                if failure.kind != FetchErrorKind::Denied {
                    return Err(failure);
                }
                self.cannot_describe.store(true, Ordering::Relaxed);
                Ok(None)
            }
        }
    }
}

/// `eu-west-1` of `arn:aws:secretsmanager:eu-west-1:…`.
fn region_of_arn(name: &str) -> Option<&str> {
    let mut parts = name.split(':');
    (parts.next() == Some("arn")).then(|| parts.nth(2))?
}

fn content(answer: GetSecretValueOutput) -> Result<(Vec<u8>, Option<String>), Failure> {
    let text = answer.secret_string.map(String::into_bytes);
    let bytes = text.or_else(|| answer.secret_binary.map(Blob::into_inner));
    match bytes {
        Some(bytes) => Ok((bytes, answer.version_id)),
        None => Err(Failure::corrupt("the answer has no value")),
    }
}

/// A secret's text as JSON. The caller wipes the fields.
fn fields(bytes: Vec<u8>) -> Result<Value, Failure> {
    let bytes = Zeroizing::new(bytes);
    serde_json::from_slice(&bytes)
        .map_err(|_error| Failure::corrupt("a field is asked for, and the secret is not JSON"))
}

/// Whether `version` still has the stage that is meant; a version that is named by its id never
/// changes, but may be gone.
fn is_still(described: &DescribeSecretOutput, secret: Secret<'_>, version: &str) -> Option<bool> {
    if described.deleted_date.is_some() {
        return Some(false);
    }
    let stages = described.version_ids_to_stages.as_ref()?.get(version);
    if secret.version.is_some() && secret.stage.is_none() {
        return stages.map(|_any| true);
    }
    let meant = secret.stage.unwrap_or(CURRENT);
    Some(stages.is_some_and(|stages| stages.iter().any(|stage| stage == meant)))
}

impl Engine for SecretsManager {
    fn fetch<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Fetched> {
        Box::pin(self.fetch_field(reference))
    }

    fn keys<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Vec<String>> {
        Box::pin(self.names(reference))
    }

    fn is_current<'a>(
        &'a self,
        reference: &'a Reference,
        version: &'a str,
    ) -> Asking<'a, Option<bool>> {
        Box::pin(self.still(reference, version))
    }

    fn probe(&self) -> Asking<'_, ()> {
        Box::pin(self.login.reach("secretsmanager"))
    }

    fn close(&self) -> Waiting<'_> {
        Box::pin(self.login.forget())
    }
}
