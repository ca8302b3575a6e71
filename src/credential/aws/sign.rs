//! Signature Version 4, for the requests that no library makes for us.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation,
    SigningInstructions, SigningParams, SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use http::{HeaderName, HeaderValue, Method};
use zeroize::Zeroizing;

use crate::credential::fetch::Failure;

/// Who signs, and for what.
pub(super) struct Signature<'a> {
    pub(super) credentials: Credentials,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) time: SystemTime,
}

/// The headers that make a request without a body a signed one, as S3 wants them.
pub(super) fn headers(
    signature: &Signature<'_>,
    method: &Method,
    url: &str,
) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let (headers, _query) = signed(signature, settings, method, url, &[])?.into_parts();
    let mut made = Vec::with_capacity(headers.len());
    for header in headers {
        let mut value = HeaderValue::from_str(header.value()).map_err(|_error| unusable())?;
        value.set_sensitive(true);
        made.push((HeaderName::from_static(header.name()), value));
    }
    Ok(made)
}

/// `url`, which has a query, with a signature in it that covers `header` and lasts for `lifetime`.
pub(super) fn presigned(
    signature: &Signature<'_>,
    url: &str,
    header: (&str, &str),
    lifetime: Duration,
) -> Result<Zeroizing<String>, Failure> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(lifetime);
    let (_headers, query) = signed(signature, settings, &Method::GET, url, &[header])?.into_parts();
    let mut url = reqwest::Url::parse(url).map_err(|_error| unusable())?;
    url.query_pairs_mut().extend_pairs(query);
    Ok(Zeroizing::new(url.into()))
}

fn signed(
    signature: &Signature<'_>,
    settings: SigningSettings,
    method: &Method,
    url: &str,
    headers: &[(&str, &str)],
) -> Result<SigningInstructions, Failure> {
    let identity = Identity::from(signature.credentials.clone());
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(signature.region)
        .name(signature.service)
        .time(signature.time)
        .settings(settings)
        .build()
        .map_err(|_error| unusable())?;
    let headers = headers.iter().copied();
    let request = SignableRequest::new(method.as_str(), url, headers, SignableBody::Bytes(&[]))
        .map_err(|_error| unusable())?;
    let made = sign(request, &SigningParams::V4(params)).map_err(|_error| unusable())?;
    Ok(made.into_parts().0)
}

fn unusable() -> Failure {
    Failure::local("the credentials cannot sign a request; look at their source")
}
