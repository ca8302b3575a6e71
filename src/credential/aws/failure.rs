//! From AWS's errors, which come with raw answers, to ours, which cannot hold any.

use std::error::Error as _;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::error::SdkError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;
use http::Response;
use serde::Deserialize;

use super::wire::Unanswered;
use crate::credential::fetch::{Failure, FetchErrorKind};
use crate::credential::transport::{self, is_refusal};

/// The header in which AWS names an error; not every answer has it.
const ERROR_TYPE: &str = "x-amzn-errortype";

const UNAVAILABLE: FetchErrorKind = FetchErrorKind::Unavailable { sealed: false };

/// Reads the code, the status and the class of `error`; everything else in it is dropped.
pub(super) fn from_library<E>(error: &SdkError<E>) -> Failure {
    match error {
        SdkError::ServiceError(context) => from_raw(context.raw()),
        SdkError::ResponseError(context) => from_raw(context.raw()),
        SdkError::DispatchFailure(failure) => {
            let source = failure
                .as_connector_error()
                .and_then(|error| error.source());
            let unanswered = source.and_then(|source| source.downcast_ref::<Unanswered>());
            unanswered.map_or_else(
                || Failure::unavailable("the request could not be sent"),
                |unanswered| unanswered.0.clone(),
            )
        }
        SdkError::TimeoutError(_) => Failure::unavailable("it did not answer in time"),
        _ => Failure::unavailable("the request could not be made"),
    }
}

/// The library finds no code where the body is not of the form that it expects.
fn from_raw(raw: &HttpResponse) -> Failure {
    let headers = raw.headers();
    from_answer(
        raw.status().as_u16(),
        headers.get(ERROR_TYPE),
        raw.body().bytes().unwrap_or_default(),
        headers.get("retry-after").and_then(transport::wait),
    )
}

/// What an answer means that is not the one that was asked for.
fn from_answer(
    status: u16,
    error_type: Option<&str>,
    body: &[u8],
    retry_after: Option<Duration>,
) -> Failure {
    // What is called a success may be a secret.
    let codes = match status {
        200..=299 => [None; 3],
        _ => [error_type, json_code(body), xml_code(body)],
    };
    let told = codes.into_iter().flatten().map(bare).find_map(of_code);
    let (kind, hint) = told.unwrap_or_else(|| of_status(status));
    let kind = match kind {
        FetchErrorKind::Throttled { .. } => FetchErrorKind::Throttled { retry_after },
        other => other,
    };
    Failure::new(kind, hint).with_status(status)
}

/// An answer that tells nothing but that the service does not work.
pub(super) fn from_status(status: u16) -> Failure {
    from_answer(status, None, &[], None)
}

/// Codes of what we may not do.
const DENIED: [&str; 7] = [
    "AccessDenied",
    "AccessDeniedException",
    "AccountProblem",
    "AllAccessDisabled",
    "NotAuthorized",
    "NotSignedUp",
    "OptInRequired",
];

/// The code in `com.amazon.coral.service#Code` and `Code:http://…`.
fn bare(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or_default();
    code.split(':').next().unwrap_or_default()
}

/// Codes of Secrets Manager, S3, STS and of all services ("Common error types").
fn of_code(code: &str) -> Option<(FetchErrorKind, &'static str)> {
    let told = match code {
        "ResourceNotFoundException" => (
            FetchErrorKind::NotFound,
            "look at the name, the region, and the version or stage",
        ),
        "InvalidRequestException" => (
            FetchErrorKind::NotFound,
            "the secret is marked for deletion, or its rotation is under way",
        ),
        "InvalidParameterException" | "ValidationError" | "ValidationException" => (
            FetchErrorKind::NotFound,
            "the name, version or stage is not of AWS's form",
        ),
        "NoSuchKey" | "NoSuchVersion" => (FetchErrorKind::NotFound, "look at the object's key"),
        "NoSuchBucket" => (FetchErrorKind::NotFound, "there is no such bucket"),
        _ if DENIED.contains(&code) => (
            FetchErrorKind::Denied,
            "look at the IAM policy of our role, at the resource's own policy, and at that of its \
             KMS key",
        ),
        "DecryptionFailure" => (
            FetchErrorKind::Denied,
            "AWS cannot use the secret's KMS key; look at the key's state and policy",
        ),
        "InvalidObjectState" => (UNAVAILABLE, "the object is archived; restore it"),
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "TokenRefreshRequired" => (
            FetchErrorKind::Unauthenticated,
            "the credentials are expired; look at their source and at this machine's clock",
        ),
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "InvalidToken" => (
            FetchErrorKind::Unauthenticated,
            "AWS does not know the access key or its session token; look at their source",
        ),
        "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "RequestTimeTooSkewed"
        | "AuthFailure"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => (
            FetchErrorKind::Unauthenticated,
            "AWS does not accept the signature; look at the secret key and at this machine's clock",
        ),
        "InvalidIdentityToken" | "IDPRejectedClaim" => (
            FetchErrorKind::Unauthenticated,
            "the ServiceAccount's token is not accepted; look at the role's trust policy and the \
             cluster's OIDC provider",
        ),
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "SlowDown"
        | "PriorRequestNotComplete" => (
            FetchErrorKind::Throttled { retry_after: None },
            "too many requests in this AWS account",
        ),
        "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" => {
            (UNAVAILABLE, "the bucket is in another region; set `region`")
        }
        _ => return None,
    };
    Some(told)
}

fn of_status(status: u16) -> (FetchErrorKind, &'static str) {
    match status {
        200..=299 => (FetchErrorKind::Corrupt, ""),
        300..=399 => (
            UNAVAILABLE,
            "redirects are not followed; look at `region` and `endpoint`",
        ),
        // Says nothing about a secret: AWS gives a code with it, and whatever stands before it
        // refuses alike.
        _ if is_refusal(status) => (
            UNAVAILABLE,
            "what answers is not AWS, or says something unknown; look at `endpoint`, and at what \
             stands before it",
        ),
        429 => (
            FetchErrorKind::Throttled { retry_after: None },
            "too many requests in this AWS account",
        ),
        _ => (UNAVAILABLE, ""),
    }
}

/// A login that STS refused. Whatever it says of us is said of our credentials, not of a secret.
pub(super) fn of_login(failure: Failure) -> Failure {
    let kind = match failure.kind {
        FetchErrorKind::Throttled { .. } | FetchErrorKind::Unavailable { .. } => failure.kind,
        FetchErrorKind::Unauthenticated => {
            return failure;
        }
        FetchErrorKind::Corrupt => {
            let hint = "what STS answered is not a login";
            return Failure {
                hint,
                kind: UNAVAILABLE,
                ..failure
            };
        }
        FetchErrorKind::Denied | FetchErrorKind::Invalid { .. } | FetchErrorKind::NotFound => {
            return Failure {
                kind: FetchErrorKind::Unauthenticated,
                hint: "the role was refused; look at `role-arn`, `external-id` and the role's \
                       trust policy",
                ..failure
            };
        }
    };
    Failure { kind, ..failure }
}

/// Why a source of credentials that is configured gave none; `None` where it is not configured.
pub(super) fn of_source(error: &CredentialsError) -> Option<Failure> {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => None,
        CredentialsError::InvalidConfiguration(_) => Some(Failure::local(
            "the AWS_ variables of the environment or ~/.aws cannot be used",
        )),
        _ => Some(Failure::unavailable(
            "the source of its credentials (~/.aws, pod identity or instance) gave none",
        )),
    }
}

/// What an answer of S3 means that is not the object.
pub(super) fn from_s3(answer: &Response<Bytes>) -> Failure {
    let headers = answer.headers();
    let error_type = headers.get(ERROR_TYPE).and_then(|code| code.to_str().ok());
    from_answer(
        answer.status().as_u16(),
        error_type,
        answer.body(),
        transport::retry_after(headers),
    )
}

/// What the errors of the JSON protocols hold.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(rename = "__type")]
    code: &'a str,
}

fn json_code(body: &[u8]) -> Option<&str> {
    let told: Told<'_> = serde_json::from_slice(body).ok()?;
    Some(told.code)
}

/// What stands in `<Code>…</Code>`.
fn xml_code(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let (_before, rest) = text.split_once("<Code>")?;
    let (code, _after) = rest.split_once("</Code>")?;
    Some(code)
}
