//! Cloud Storage: an object, or a value of the document in it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use reqwest::Url;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Settings;
use super::api::{Api, body, sealed};
use super::checksum::crc32c;
use crate::credential::fetch::{Asking, Engine, Failure, Fetched};
use crate::credential::transport::is_foreign;
use crate::credential::{Locator, Reference, document};

/// Reading objects.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";

/// A connection to Cloud Storage.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(super) api: Api,
}

impl Storage {
    /// Nothing is dialled yet.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            api: Api::new(settings, SCOPE),
        }
    }

    async fn read(&self, reference: &Reference) -> Result<(Zeroizing<Vec<u8>>, String), Failure> {
        let mut url = self.url(reference)?;
        url.set_query(Some("alt=media"));
        let answer = match self.api.get(url).await {
            Ok(answer) => answer,
            Err(failure) if is_foreign(&failure) => {
                return Err(self.explained(reference, failure).await);
            }
            Err(failure) => return Err(failure),
        };
        let generation = generation(answer.headers());
        let told = checksum(answer.headers());
        let object = body(answer).await?;
        let Some(told) = told else {
            return Err(Failure::corrupt("the object comes without its checksum"));
        };
        if told != crc32c(&object) {
            return Err(Failure::corrupt(
                "the object does not match its checksum; is it stored with a content encoding?",
            ));
        }
        let generation =
            generation.ok_or(Failure::corrupt("the object comes without its generation"))?;
        Ok((object, generation))
    }

    /// Why an object is refused: asked for content, Cloud Storage answers with a plain text,
    /// as anything on the way may; asked for what is said about the object, in its own form.
    async fn explained(&self, reference: &Reference, failure: Failure) -> Failure {
        self.current(reference).await.err().unwrap_or(failure)
    }

    async fn current(&self, reference: &Reference) -> Result<String, Failure> {
        let mut url = self.url(reference)?;
        url.set_query(Some("fields=generation"));
        let answer = body(self.api.get(url).await?).await?;
        serde_json::from_slice::<Told>(&answer)
            .map(|told| told.generation)
            .map_err(|_error| Failure::corrupt("the answer is not one of Cloud Storage"))
    }

    fn url(&self, reference: &Reference) -> Result<Url, Failure> {
        match &reference.locator {
            Locator::Gcs { bucket, object } => {
                self.api.url(&["storage", "v1", "b", bucket, "o", object])
            }
            _ => Err(Failure::other_engine()),
        }
    }
}

impl Engine for Storage {
    fn fetch<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Fetched> {
        Box::pin(async move {
            let (mut object, generation) = self.read(reference).await?;
            Ok(Fetched {
                document: document::part(sealed(&mut object), reference)?,
                version: Some(generation),
                lease: None,
                gone_at: None,
            })
        })
    }

    fn keys<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Vec<String>> {
        Box::pin(async move {
            let (mut object, _generation) = self.read(reference).await?;
            document::keys(&sealed(&mut object))
        })
    }

    fn is_current<'a>(
        &'a self,
        reference: &'a Reference,
        version: &'a str,
    ) -> Asking<'a, Option<bool>> {
        Box::pin(async move { Ok(Some(self.current(reference).await? == version)) })
    }

    fn probe(&self) -> Asking<'_, ()> {
        Box::pin(self.api.probe())
    }
}

/// The metadata of an object that are asked for.
#[derive(Deserialize)]
struct Told {
    generation: String,
}

fn generation(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("x-goog-generation")?.to_str().ok()?;
    Some(text.to_owned())
}

/// The CRC-32C in `x-goog-hash: crc32c=BASE64, md5=BASE64`, which may come as several headers.
fn checksum(headers: &HeaderMap) -> Option<u32> {
    let hashes = headers.get_all("x-goog-hash");
    let mut hashes = hashes.iter().filter_map(|value| value.to_str().ok());
    let text = hashes.find_map(|list| {
        let mut items = list.split(',').map(str::trim);
        items.find_map(|item| item.strip_prefix("crc32c="))
    })?;
    let bytes = STANDARD.decode(text).ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
