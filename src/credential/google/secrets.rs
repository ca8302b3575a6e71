//! Secret Manager: a version of a secret, or a field of the document in it.

use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Settings;
use super::api::{Api, body, sealed};
use super::checksum::crc32c;
use crate::credential::fetch::{Asking, Engine, Failure, FetchErrorKind, Fetched};
use crate::credential::{Locator, Reference, document};

/// Secret Manager has no narrower one.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// The version that is meant where a reference names none.
const LATEST: &str = "latest";

/// A connection to Secret Manager.
#[derive(Debug)]
pub(crate) struct Secrets {
    pub(super) api: Api,
    /// Our role may read versions and not what is said about them.
    blind: AtomicBool,
}

impl Secrets {
    /// Nothing is dialled yet.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            api: Api::new(settings, SCOPE),
            blind: AtomicBool::new(false),
        }
    }

    async fn read(&self, reference: &Reference) -> Result<(Zeroizing<Vec<u8>>, String), Failure> {
        let wanted = Wanted::of(reference)?;
        let version = format!("{}:access", wanted.version);
        let url = self.api.url(&wanted.path(&version))?;
        let answer = body(self.api.get(url).await?).await?;
        let Ok(accessed) = serde_json::from_slice::<Accessed>(&answer) else {
            return Err(Failure::corrupt("the answer is not one of Secret Manager"));
        };
        let version = wanted.version_of(&accessed.name)?;
        Ok((accessed.payload.open()?, version))
    }

    async fn state(&self, reference: &Reference) -> Result<(String, bool), Failure> {
        let wanted = Wanted::of(reference)?;
        let url = self.api.url(&wanted.path(wanted.version))?;
        let answer = body(self.api.get(url).await?).await?;
        let Ok(told) = serde_json::from_slice::<Told>(&answer) else {
            return Err(Failure::corrupt("the answer is not one of Secret Manager"));
        };
        Ok((wanted.version_of(&told.name)?, told.state == "ENABLED"))
    }
}

impl Engine for Secrets {
    fn fetch<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Fetched> {
        Box::pin(async move {
            let (mut text, version) = self.read(reference).await?;
            Ok(Fetched {
                document: document::part(sealed(&mut text), reference)?,
                version: Some(version),
                lease: None,
                gone_at: None,
            })
        })
    }

    fn keys<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Vec<String>> {
        Box::pin(async move {
            let (mut text, _version) = self.read(reference).await?;
            document::keys(&sealed(&mut text))
        })
    }

    fn is_current<'a>(
        &'a self,
        reference: &'a Reference,
        version: &'a str,
    ) -> Asking<'a, Option<bool>> {
        Box::pin(async move {
            if self.blind.load(Ordering::Relaxed) {
                return Ok(None);
            }
            match self.state(reference).await {
                Ok((current, enabled)) => Ok(Some(enabled && current == version)),
                Err(failure) if failure.kind == FetchErrorKind::Denied => {
                    self.blind.store(true, Ordering::Relaxed);
                    Ok(None)
                }
                Err(failure) => Err(failure),
            }
        })
    }

    fn probe(&self) -> Asking<'_, ()> {
        Box::pin(self.api.probe())
    }
}

/// Which version of which secret.
struct Wanted<'a> {
    project: &'a str,
    secret: &'a str,
    version: &'a str,
}

impl<'a> Wanted<'a> {
    fn of(reference: &'a Reference) -> Result<Self, Failure> {
        match &reference.locator {
            Locator::GoogleSecret {
                project,
                secret,
                version,
            } => Ok(Self {
                project,
                secret,
                version: version.as_deref().unwrap_or(LATEST),
            }),
            _ => Err(Failure::other_engine()),
        }
    }

    const fn path<'b>(&'b self, version: &'b str) -> [&'b str; 7] {
        [
            "v1",
            "projects",
            self.project,
            "secrets",
            self.secret,
            "versions",
            version,
        ]
    }

    /// The number in `projects/NUMBER/secrets/ID/versions/NUMBER`. The project is answered by
    /// number where it was asked for by id.
    fn version_of(&self, name: &str) -> Result<String, Failure> {
        let parts: Vec<&str> = name.split('/').collect();
        match parts.as_slice() {
            ["projects", _, "secrets", secret, "versions", version]
                if *secret == self.secret && !version.is_empty() =>
            {
                Ok((*version).to_owned())
            }
            _ => Err(Failure::corrupt("the answer is about another secret")),
        }
    }
}

/// `AccessSecretVersionResponse`, as JSON.
#[derive(Deserialize)]
struct Accessed {
    name: String,
    payload: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    /// Base64.
    #[serde(deserialize_with = "wiped")]
    data: Zeroizing<String>,
    data_crc32c: Option<Number>,
}

/// 64 bits, as the JSON of protocol buffers writes them, or plainly.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(i64),
    Text(String),
}

/// `SecretVersion`, as JSON.
#[derive(Deserialize)]
struct Told {
    name: String,
    state: String,
}

impl Payload {
    fn open(self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let Ok(data) = STANDARD.decode(self.data.as_bytes()) else {
            return Err(Failure::corrupt("the payload is not base64"));
        };
        let data = Zeroizing::new(data);
        let told = match self.data_crc32c {
            None => return Err(Failure::corrupt("the payload comes without its checksum")),
            Some(Number::Plain(number)) => Some(number),
            Some(Number::Text(text)) => text.parse().ok(),
        };
        if told != Some(i64::from(crc32c(&data))) {
            return Err(Failure::corrupt("the payload does not match its checksum"));
        }
        Ok(data)
    }
}

fn wiped<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(from).map(Zeroizing::new)
}
