//! Tokens of an `OpenID` Connect issuer, renewed by a refresh token.
//!
//! # Sources
//! - `OpenID` Connect Discovery 1.0 §4; RFC 6749 §6 (refreshing), §2.3.1 (client password).

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;
use secrecy::ExposeSecret;
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use super::authorization::basic;
use super::fetch::{Asking, Failure, FetchErrorKind};
use super::minted::{Made, Minter};
use super::server::{Exceptions, Server};
use super::{Purpose, issuer, transport};
use crate::clock::SharedClock;
use crate::secret::SecretBytes;

/// Time for discovery and refresh together.
const DEADLINE: Duration = Duration::from_secs(10);

/// How much longer a token has to last for a check that begins now.
const CHECK: Duration = Duration::from_secs(30);

/// What an `oidc` user says.
pub(super) struct OidcSettings {
    /// The issuer's address, `https`, without a slash at its end.
    pub(super) issuer: String,
    pub(super) client_id: String,
    pub(super) client_secret: Option<SecretBytes>,
    pub(super) refresh_token: SecretBytes,
    pub(super) id_token: Option<SecretBytes>,
    /// Who vouches for the issuer; none: the system's authorities.
    pub(super) roots: Option<Vec<CertificateDer<'static>>>,
    pub(super) exceptions: Exceptions,
    pub(super) purpose: Purpose,
}

/// An issuer that renews tokens.
pub(super) struct Oidc {
    issuer: String,
    client_id: String,
    client_secret: Option<SecretBytes>,
    roots: Option<Vec<CertificateDer<'static>>>,
    exceptions: Exceptions,
    purpose: Purpose,
    clock: SharedClock,
    /// The one of the kubeconfig, which tells this source from another.
    first_refresh: SecretBytes,
    held: Mutex<Held>,
}

struct Held {
    /// Given out once, until it ends.
    id_token: Option<SecretBytes>,
    /// The newest one; an issuer may replace it with each use.
    refresh: Zeroizing<Vec<u8>>,
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    token_endpoint: String,
}

#[derive(Deserialize)]
struct Renewed {
    id_token: Option<Wiped>,
    refresh_token: Option<Wiped>,
}

/// Text that is wiped when it is dropped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Wiped(String);

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[derive(Deserialize)]
struct Claims {
    exp: u64,
}

impl Oidc {
    pub(super) fn new(settings: OidcSettings, clock: SharedClock) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the copy that rotation replaces")]
        let refresh = Zeroizing::new(settings.refresh_token.expose_secret().to_vec());
        Self {
            issuer: settings.issuer,
            client_id: settings.client_id,
            client_secret: settings.client_secret,
            roots: settings.roots,
            exceptions: settings.exceptions,
            purpose: settings.purpose,
            clock,
            first_refresh: settings.refresh_token,
            held: Mutex::new(Held {
                id_token: settings.id_token,
                refresh,
            }),
        }
    }

    async fn renewed(&self) -> Result<(SecretBytes, SystemTime), Failure> {
        if let Some(first) = self.first() {
            return Ok(first);
        }
        // An issuer may replace the refresh token with each use, and the one before is then refused
        // to the agent that holds it.
        if self.purpose == Purpose::Check {
            return Err(Failure::local("a check does not use the refresh token"));
        }
        in_time(async {
            let client = self.client().await?;
            let endpoint = self.discover(&client).await?;
            self.refresh(&client, &endpoint).await
        })
        .await
    }

    /// Asks the issuer for its configuration, and for nothing else.
    async fn looked_at(&self) -> Result<String, Failure> {
        in_time(async {
            let client = self.client().await?;
            self.discover(&client).await
        })
        .await?;
        Ok(format!(
            "issuer {} answers and names its token endpoint; not tried: a login, because the refresh \
             token may be good only once",
            self.issuer
        ))
    }

    async fn client(&self) -> Result<reqwest::Client, Failure> {
        issuer::client(self.roots.clone(), self.exceptions, DEADLINE).await
    }

    /// The token that came with the kubeconfig, if it has not ended.
    fn first(&self) -> Option<(SecretBytes, SystemTime)> {
        let mut held = self.held();
        let ends_at = self.first_ends_at(&held);
        let token = held.id_token.take()?;
        Some((token, ends_at?))
    }

    /// When the token that came with the kubeconfig ends, if it can be used.
    fn first_ends_at(&self, held: &Held) -> Option<SystemTime> {
        #[expect(clippy::disallowed_methods, reason = "its end stands in it")]
        let ends_at = ends_at(held.id_token.as_ref()?.expose_secret())?;
        let needed = match self.purpose {
            Purpose::Check => CHECK,
            Purpose::Use => Duration::ZERO,
        };
        (self.clock.now() + needed < ends_at).then_some(ends_at)
    }

    async fn discover(&self, client: &reqwest::Client) -> Result<String, Failure> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer);
        let body = asked(client.get(url)).await?;
        let malformed = Failure::corrupt("the issuer's configuration is not one of OpenID Connect");
        let discovered: Discovered =
            serde_json::from_slice(&body).map_err(|_error| malformed.clone())?;
        if discovered.issuer.trim_end_matches('/') != self.issuer {
            return Err(Failure::corrupt(
                "the issuer's configuration is of another issuer",
            ));
        }
        match Server::parse(&discovered.token_endpoint, self.exceptions) {
            Ok(server) if !server.is_plain() => Ok(discovered.token_endpoint),
            Ok(_) | Err(_) => Err(malformed),
        }
    }

    async fn refresh(
        &self,
        client: &reqwest::Client,
        endpoint: &str,
    ) -> Result<(SecretBytes, SystemTime), Failure> {
        let mut request = client.post(endpoint);
        let form = self.form();
        if let Some(secret) = &self.client_secret {
            #[expect(clippy::disallowed_methods, reason = "the header that carries it")]
            let pair = [
                encoded(self.client_id.as_bytes()).as_bytes(),
                b":",
                encoded(secret.expose_secret()).as_bytes(),
            ]
            .concat();
            let header = basic(&SecretBytes::new(pair))
                .map_err(|_error| Failure::local("the client secret cannot be sent"))?;
            request = request.header(http::header::AUTHORIZATION, header);
        }
        let kind = "application/x-www-form-urlencoded";
        let request = request
            .header(http::header::CONTENT_TYPE, kind)
            .body(bytes::Bytes::from_owner(form));
        let body = asked(request).await?;
        let malformed = Failure::corrupt("the issuer's answer is not one of its form");
        let mut renewed: Renewed = serde_json::from_slice(&body).map_err(|_error| malformed)?;
        if let Some(next) = &mut renewed.refresh_token {
            self.held().refresh = Zeroizing::new(std::mem::take(&mut next.0).into_bytes());
        }
        let Some(mut token) = renewed.id_token else {
            let hint = "the issuer gave no id_token; is the scope `openid` in the refresh token?";
            return Err(Failure::corrupt(hint));
        };
        let ends_at = ends_at(token.0.as_bytes()).ok_or(Failure::corrupt(
            "the issuer's id_token is not a JSON web token",
        ))?;
        let token = std::mem::take(&mut token.0).into_bytes();
        Ok((SecretBytes::new(token), ends_at))
    }

    fn form(&self) -> Zeroizing<Vec<u8>> {
        let refresh = encoded(&self.held().refresh);
        let client = encoded(self.client_id.as_bytes());
        let parts: [&[u8]; 4] = [
            b"grant_type=refresh_token&client_id=",
            client.as_bytes(),
            b"&refresh_token=",
            refresh.as_bytes(),
        ];
        Zeroizing::new(parts.concat())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn asked(request: reqwest::RequestBuilder) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let unreachable = Failure::unavailable("the issuer cannot be reached");
    let response = request.send().await.map_err(|error| {
        if transport::is_untrusted(&error) {
            Failure::unavailable(
                "the issuer's certificate is not trusted; give idp-certificate-authority-data",
            )
        } else {
            unreachable.clone()
        }
    })?;
    let status = response.status().as_u16();
    let kind = match status {
        200 => {
            return transport::body(response)
                .await
                .map_err(|_error| unreachable);
        }
        400 | 401 | 403 => FetchErrorKind::Unauthenticated,
        429 => FetchErrorKind::Throttled { retry_after: None },
        _ => FetchErrorKind::Unavailable { sealed: false },
    };
    let hint = match kind {
        FetchErrorKind::Unauthenticated => {
            "the issuer does not accept the refresh token or the client; log in again and store \
             the new kubeconfig"
        }
        _ => "the issuer does not answer as one",
    };
    Err(Failure::new(kind, hint).with_status(status))
}

/// `exp` of a JSON web token, which is not verified here: the API server does that.
fn ends_at(token: &[u8]) -> Option<SystemTime> {
    let payload = token.split(|byte| *byte == b'.').nth(1)?;
    let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp))
}

/// Percent-encodes for a form.
fn encoded(bytes: &[u8]) -> Zeroizing<String> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Zeroizing::new(String::with_capacity(bytes.len() * 3));
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let digit = |at: u8| char::from(HEX.get(usize::from(at)).copied().unwrap_or_default());
            out.push('%');
            out.push(digit(byte >> 4));
            out.push(digit(byte & 15));
        }
    }
    out
}

async fn in_time<T>(asking: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = Failure::unavailable("the issuer did not answer in time");
    let asked = tokio::time::timeout(DEADLINE, asking).await;
    asked.unwrap_or(Err(late))
}

impl Minter for Oidc {
    fn mint(&self) -> Asking<'_, Made> {
        Box::pin(async {
            let (token, ends_at) = self.renewed().await?;
            Ok(Made::token(token, ends_at))
        })
    }

    fn rehearse(&self) -> Option<Asking<'_, String>> {
        let is_check = self.purpose == Purpose::Check;
        if !is_check || self.first_ends_at(&self.held()).is_some() {
            return None;
        }
        Some(Box::pin(self.looked_at()))
    }

    fn kind(&self) -> &'static str {
        "oidc"
    }

    fn identity(&self, add: &mut dyn FnMut(&[u8])) {
        add(self.issuer.as_bytes());
        add(self.client_id.as_bytes());
        for secret in [Some(&self.first_refresh), self.client_secret.as_ref()] {
            #[expect(clippy::disallowed_methods, reason = "only its keyed digest is kept")]
            add(secret.map_or(b"", |secret| secret.expose_secret()));
        }
    }
}

impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oidc")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
