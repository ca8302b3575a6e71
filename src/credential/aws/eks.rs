//! Tokens with which an EKS cluster is told who we are to AWS: a signed request that the cluster
//! makes in our name.
//!
//! # Sources
//! - Kubernetes SIGs `aws-iam-authenticator`, "API Authorization from Outside a Cluster" (the form
//!   of the token); AWS STS API, `GetCallerIdentity`.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::login::Login;
use super::{Settings, domain, region, sign};
use crate::clock::{self, SharedClock};
use crate::credential::fetch::Failure;
use crate::secret::SecretBytes;

/// For how long a token may be used. Clusters accept one for 15 minutes; the last minute is for
/// clocks that differ.
pub const TOKEN_LIFETIME: Duration = Duration::from_mins(14);

/// What the signature says of its own life; clusters take no longer one.
const SIGNATURE_LIFETIME: Duration = Duration::from_mins(1);

/// Longest name of a cluster, in bytes (EKS API, `CreateCluster`).
const CLUSTER_BYTES: usize = 100;

/// The prefix of every token.
const PREFIX: &str = "k8s-aws-v1.";

/// Makes tokens for the clusters of EKS.
#[derive(Debug)]
pub struct Eks {
    login: Login,
}

impl Eks {
    /// Prepares a login; nothing is dialled yet.
    pub fn new(settings: Settings) -> Self {
        Self::with_clock(settings, clock::system())
    }

    pub(in crate::credential) fn with_clock(settings: Settings, clock: SharedClock) -> Self {
        Self {
            login: Login::new(settings, clock),
        }
    }

    /// Drops the login: the next token comes from a new one. For a token that a cluster refused.
    pub async fn forget(&self) {
        self.login.forget().await;
    }

    /// A token for `cluster`, and the time until which it may be used. AWS is asked for a login at
    /// most; the token itself is made here.
    ///
    /// # Errors
    /// Those of the login, and one for a name that no cluster has.
    pub async fn token(&self, cluster: &str) -> Result<(SecretBytes, SystemTime), Failure> {
        if !is_cluster(cluster) {
            return Err(Failure::local(
                "the name of an EKS cluster is 1 to 100 letters, digits, `-` or `_`",
            ));
        }
        let credentials = self.login.credentials().await?;
        let settings = self.login.settings();
        let region = region(None, settings)?;
        let time = self.login.now();
        let latest = time + TOKEN_LIFETIME;
        let until = credentials.expiry().map_or(latest, |end| end.min(latest));
        // Always AWS's own: the cluster sends the request, and to nobody else.
        let url = format!(
            "https://sts.{region}.{}/?Action=GetCallerIdentity&Version=2011-06-15",
            domain(region)
        );
        let signature = sign::Signature {
            credentials,
            region,
            service: "sts",
            time,
        };
        let header = ("x-k8s-aws-id", cluster);
        let url = sign::presigned(&signature, &url, header, SIGNATURE_LIFETIME)?;
        let mut token = String::with_capacity(PREFIX.len() + url.len().div_ceil(3) * 4);
        token.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(url.as_bytes(), &mut token);
        Ok((SecretBytes::new(token.into_bytes()), until))
    }
}

fn is_cluster(name: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=CLUSTER_BYTES).contains(&name.len()) && name.bytes().all(is_name)
}
