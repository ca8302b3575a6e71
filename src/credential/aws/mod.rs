//! AWS: fields of Secrets Manager, objects of S3, and tokens for EKS.
//!
//! ```text
//! environment · ~/.aws · IRSA · pod identity ──▶ Login ──credentials──▶ SecretsManager · S3 · Eks
//!            (and a role to assume)               │                         │
//!                       STS ◀── Wire ◀────────────┴──────── Wire ───────────┴──▶ AWS
//! ```
//! The libraries are contained: they make the requests and read the answers, and [`wire::Wire`] is
//! all they have to speak through: our TLS, no redirects, no proxy, no idle connections, a bounded
//! body, our deadlines. They never try again by themselves. Their errors hold raw answers, so they
//! are classified by code and status and never shown.
//!
//! # Invariants
//! - No region, bucket or name of a reference chooses a host outside of AWS or of the configured
//!   `endpoint` (test: `tests::a_reference_cannot_choose_the_host`).
//! - Only the login is kept, and never beyond its expiry.
//! # Failure
//! - Credentials that AWS does not accept are forgotten; the next errand logs in anew.
//! # Sources
//! - AWS Secrets Manager API: `GetSecretValue`, `DescribeSecret`, "Common error types"; Amazon S3
//!   API: `GetObject`, `HeadObject`, "Error responses"; AWS STS API: `AssumeRole`,
//!   `AssumeRoleWithWebIdentity`; AWS General Reference: "Signature Version 4".

mod eks;
mod failure;
mod login;
mod s3;
mod secrets_manager;
mod sign;
#[cfg(test)]
mod tests;
mod wire;

use std::path::PathBuf;

use super::fetch::{Failure, FetchErrorKind};

pub use eks::{Eks, TOKEN_LIFETIME};
pub use s3::S3;
pub use secrets_manager::SecretsManager;

/// A connection to one region of AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Region, where a reference names no other, e.g. `eu-west-1`.
    pub region: String,
    /// `https://host:port` in place of the service's own address.
    pub endpoint: Option<String>,
    /// The same for STS.
    pub sts_endpoint: Option<String>,
    /// The only certificate authorities that may vouch for any of them, PEM; otherwise the
    /// system's.
    pub ca_file: Option<PathBuf>,
    /// A role to take on with the credentials that were found.
    pub role: Option<Role>,
    /// What the environment says of a role that a token of Kubernetes may take on (IRSA).
    pub web_identity: Option<WebIdentity>,
    /// Whether the metadata service of an EC2 instance may be asked for credentials.
    pub instance_metadata: bool,
}

/// A role to take on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its ARN.
    pub arn: String,
    /// What its trust policy wants to hear from us.
    pub external_id: Option<String>,
}

/// A role that a token of Kubernetes may take on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebIdentity {
    /// The role's ARN.
    pub role_arn: String,
    /// File of the token, read at each login.
    pub token_file: PathBuf,
}

/// Longest name of a region, in bytes; today's longest has 14.
const REGION_BYTES: usize = 32;

/// Whether `text` has the form of a region: it becomes part of a host.
pub fn is_region(text: &str) -> bool {
    let is_part = |part: &str| {
        let mut bytes = part.bytes();
        !part.is_empty() && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    text.len() <= REGION_BYTES && text.contains('-') && text.split('-').all(is_part)
}

/// The region of a reference, or the connection's.
fn region<'a>(named: Option<&'a str>, settings: &'a Settings) -> Result<&'a str, Failure> {
    let region = named.unwrap_or(&settings.region);
    if is_region(region) {
        return Ok(region);
    }
    let hint = "the region is not of the form `eu-west-1`";
    Err(Failure::new(FetchErrorKind::NotFound, hint))
}

/// The domain of a region's services (AWS partitions).
fn domain(region: &str) -> &'static str {
    const DOMAINS: [(&str, &str); 4] = [
        ("cn-", "amazonaws.com.cn"),
        ("eusc-", "amazonaws.eu"),
        ("us-iso-", "c2s.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov"),
    ];
    let own = DOMAINS
        .iter()
        .find(|(prefix, _domain)| region.starts_with(prefix));
    own.map_or("amazonaws.com", |(_prefix, domain)| domain)
}
