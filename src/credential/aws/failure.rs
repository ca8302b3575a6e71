//! From AWS's errors, which come with raw answers, to ours, which cannot hold any.

use std::error::Error as _;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use bytes::Bytes;
use http::Response;

use super::wire::Unanswered;
use crate::credential::fetch::{Failure, FetchErrorKind};
use crate::credential::transport;

const UNAVAILABLE: FetchErrorKind = FetchErrorKind::Unavailable { sealed: false };

/// Reads the code, the status and the class of `error`; everything else in it is dropped.
pub(super) fn from_library<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Failure {
    match error {
        SdkError::ServiceError(context) => {
            let raw = context.raw();
            let retry_after = raw.headers().get("retry-after").and_then(transport::wait);
            from_answer(raw.status().as_u16(), context.err().code(), retry_after)
        }
        SdkError::ResponseError(context) => {
            from_answer(context.raw().status().as_u16(), None, None)
        }
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

/// What an answer means that is not the one that was asked for.
pub(super) fn from_answer(
    status: u16,
    code: Option<&str>,
    retry_after: Option<Duration>,
) -> Failure {
    let (kind, hint) = match code.and_then(of_code) {
        Some(told) => told,
        None => of_status(status),
    };
    let kind = match kind {
        FetchErrorKind::Throttled { .. } => FetchErrorKind::Throttled { retry_after },
        other => other,
    };
    Failure::new(kind, hint).with_status(status)
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
        "InvalidParameterException" | "ValidationException" => (
            FetchErrorKind::NotFound,
            "the name, version or stage is not of AWS's form",
        ),
        "NoSuchKey" | "NoSuchVersion" => (FetchErrorKind::NotFound, "look at the object's key"),
        "NoSuchBucket" => (FetchErrorKind::NotFound, "there is no such bucket"),
        "AccessDenied" | "AccessDeniedException" => (
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
        401 => (
            FetchErrorKind::Unauthenticated,
            "the credentials are not accepted",
        ),
        403 => (FetchErrorKind::Denied, "look at the IAM policy of our role"),
        404 => (FetchErrorKind::NotFound, ""),
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
    let retry_after = transport::retry_after(answer.headers());
    from_answer(
        answer.status().as_u16(),
        xml_code(answer.body()),
        retry_after,
    )
}

/// What stands in `<Code>…</Code>`.
fn xml_code(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let (_before, rest) = text.split_once("<Code>")?;
    let (code, _after) = rest.split_once("</Code>")?;
    Some(code)
}
