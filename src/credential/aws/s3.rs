//! S3: an object, or the text at a dotted path of the YAML or JSON that it holds.

use bytes::Bytes;
use http::{Method, Request, Response};

use super::failure::from_s3;
use super::login::Login;
use super::{Settings, domain, region, sign};
use crate::clock::SharedClock;
use crate::credential::fetch::{Asking, Engine, Failure, FetchErrorKind, Fetched, Waiting};
use crate::credential::transport::is_foreign;
use crate::credential::{Locator, Reference, document};
use crate::secret::SecretBytes;

/// A connection to S3.
#[derive(Debug)]
pub struct S3 {
    login: Login,
}

impl S3 {
    /// Prepares a connection; nothing is dialled yet.
    pub fn new(settings: Settings, clock: SharedClock) -> Self {
        Self {
            login: Login::new(settings, clock),
        }
    }

    async fn ask(&self, method: Method, reference: &Reference) -> Result<Response<Bytes>, Failure> {
        let (region, url) = self.object(reference)?;
        let credentials = self.login.credentials().await?;
        let signature = sign::Signature {
            credentials,
            region,
            service: "s3",
            time: self.login.now(),
        };
        let mut request = Request::builder().method(&method).uri(&url);
        for (name, value) in sign::headers(&signature, &method, &url)? {
            request = request.header(name, value);
        }
        let request = request
            .body(Vec::new())
            .map_err(|_error| Failure::unavailable("the request could not be made"))?;
        let answer = self.login.wire().send(request).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(self.login.judged(from_s3(&answer)).await)
    }

    /// The region and the address of an object.
    pub(super) fn object<'a>(
        &'a self,
        reference: &'a Reference,
    ) -> Result<(&'a str, String), Failure> {
        let Locator::S3 {
            region: named,
            bucket,
            object,
        } = &reference.locator
        else {
            return Err(Failure::other_engine());
        };
        let is_dots = |segment: &str| matches!(segment, "." | "..");
        if bucket.is_empty() || is_dots(bucket) || object.split('/').any(is_dots) {
            let hint = "a bucket or key with a `.` or `..` segment cannot be asked for";
            return Err(Failure::new(FetchErrorKind::NotFound, hint));
        }
        let region = region(named.as_deref(), self.login.settings())?;
        let path = reference.locator.to_string(); // encoded, `bucket/key`
        if let Some(endpoint) = &self.login.settings().endpoint {
            return Ok((region, format!("{endpoint}/{path}")));
        }
        let domain = domain(region);
        let url = match path.strip_prefix(bucket.as_str()) {
            Some(key) if is_label(bucket) => format!("https://{bucket}.s3.{region}.{domain}{key}"),
            _ => format!("https://s3.{region}.{domain}/{path}"),
        };
        Ok((region, url))
    }

    async fn fetch_object(&self, reference: &Reference) -> Result<Fetched, Failure> {
        let answer = self.ask(Method::GET, reference).await?;
        let version = etag(&answer);
        let object = SecretBytes::new(answer.body().to_vec());
        drop(answer);
        let document = document::part(object, reference)?;
        Ok(Fetched {
            document,
            version,
            lease: None,
            gone_at: None,
        })
    }

    async fn names(&self, reference: &Reference) -> Result<Vec<String>, Failure> {
        let answer = self.ask(Method::GET, reference).await?;
        document::keys(&SecretBytes::new(answer.body().to_vec()))
    }

    async fn still(&self, reference: &Reference, version: &str) -> Result<Option<bool>, Failure> {
        match self.ask(Method::HEAD, reference).await {
            Ok(answer) => Ok(etag(&answer).map(|etag| etag == version)),
            // An answer to `HEAD` has no body to tell why: the fetch that follows is told.
            Err(failure) if is_foreign(&failure) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// Whether a bucket's name can be the first label of a host that a wildcard certificate covers.
fn is_label(bucket: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let mut bytes = bucket.bytes();
    let all = bytes
        .clone()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    (3..=63).contains(&bucket.len()) && all && is_end(bytes.next()) && is_end(bytes.next_back())
}

/// The store's version of an object.
fn etag(answer: &Response<Bytes>) -> Option<String> {
    let etag = answer.headers().get(http::header::ETAG)?.to_str().ok()?;
    Some(etag.trim_matches('"').to_owned())
}

impl Engine for S3 {
    fn fetch<'a>(&'a self, reference: &'a Reference) -> Asking<'a, Fetched> {
        Box::pin(self.fetch_object(reference))
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
        Box::pin(self.login.reach("s3"))
    }

    fn close(&self) -> Waiting<'_> {
        Box::pin(self.login.forget())
    }
}
