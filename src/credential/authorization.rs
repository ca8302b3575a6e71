//! How an API server is told who is asking.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::sign::CertifiedKey;
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::fetch::Failure;
use super::minted::Minted;
use crate::secret::{SecretBytes, clear_traces};

/// How an API server is told who is asking.
#[derive(Debug)]
pub enum Auth {
    /// Not at all.
    Anonymous,
    /// User and password, as `user:password`.
    Basic(SecretBytes),
    /// A token.
    Bearer(SecretBytes),
    /// A token that its file renews.
    BearerFile(TokenFile),
    /// A client certificate and its key, used in the TLS handshake.
    ClientCertificate(Arc<CertifiedKey>),
    /// A token, a client certificate or both, made when they are needed.
    Minted(Minted),
}

/// An `Authorization` header that cannot be made.
#[derive(Debug, Error)]
pub enum AuthorizationError {
    /// The token's file could not be read, and never was.
    #[error("cannot read the token file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No token or client certificate could be made.
    #[error("no token or client certificate could be made: {}", .0.hint)]
    Mint(Failure),
    /// The secret has bytes that a header cannot carry.
    #[error("the token or password has characters that a header cannot carry")]
    Characters,
}

impl Auth {
    /// The kind, for logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Basic(_) => "basic",
            Self::Bearer(_) => "token",
            Self::BearerFile(_) => "token-file",
            Self::ClientCertificate(_) => "client-certificate",
            Self::Minted(minted) => minted.minter().kind(),
        }
    }

    /// The `Authorization` header of a request, marked as sensitive; none where the connection
    /// says it all.
    ///
    /// # Errors
    /// A token file that has never been readable, and a token that cannot be made.
    pub async fn header(&self) -> Result<Option<HeaderValue>, AuthorizationError> {
        match self {
            Self::Anonymous | Self::ClientCertificate(_) => Ok(None),
            Self::Bearer(token) => bearer(token).map(Some),
            Self::BearerFile(file) => bearer(&*file.current().await?).map(Some),
            Self::Basic(user_and_password) => basic(user_and_password).map(Some),
            Self::Minted(minted) => {
                let made = minted.current().await.map_err(AuthorizationError::Mint)?;
                made.token.as_ref().map(bearer).transpose()
            }
        }
    }

    /// The client certificate that connections show, if they do.
    ///
    /// # Errors
    /// One that cannot be made.
    pub async fn certificate(&self) -> Result<Option<Arc<CertifiedKey>>, AuthorizationError> {
        match self {
            Self::Anonymous | Self::Basic(_) | Self::Bearer(_) | Self::BearerFile(_) => Ok(None),
            Self::ClientCertificate(key) => Ok(Some(Arc::clone(key))),
            Self::Minted(minted) => {
                let made = minted.current().await.map_err(AuthorizationError::Mint)?;
                Ok(made.certificate.clone())
            }
        }
    }

    /// For a check: what was seen and not tried where nobody can be told who is asking without using
    /// up what is good only once; none where that can be told.
    ///
    /// # Errors
    /// What keeps it from being told at all.
    pub async fn rehearse(&self) -> Result<Option<String>, AuthorizationError> {
        let Self::Minted(minted) = self else {
            return Ok(None);
        };
        let Some(rehearsing) = minted.minter().rehearse() else {
            return Ok(None);
        };
        let seen = rehearsing.await.map_err(AuthorizationError::Mint)?;
        Ok(Some(seen))
    }

    /// The API server has answered a request with 401.
    pub fn refused(&self) {
        if let Self::Minted(minted) = self {
            minted.refused();
        }
    }

    /// Waits until connections need another client certificate than `used`, which is renewed in
    /// time; for ever where it does not change.
    pub async fn certificate_replaced(&self, used: Option<&Arc<CertifiedKey>>) {
        match self {
            Self::Anonymous
            | Self::Basic(_)
            | Self::Bearer(_)
            | Self::BearerFile(_)
            | Self::ClientCertificate(_) => std::future::pending().await,
            Self::Minted(minted) => minted.replaced(used).await,
        }
    }
}

/// The `Authorization` header of a request with a token, marked as sensitive.
///
/// # Errors
/// A token that a header cannot carry.
pub(super) fn bearer(token: &SecretBytes) -> Result<HeaderValue, AuthorizationError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the header that carries the token"
    )]
    let text = Zeroizing::new([b"Bearer ", token.expose_secret()].concat());
    sensitive(&text)
}

/// `Basic` and the encoded pair, marked as sensitive.
pub(crate) fn basic(user_and_password: &SecretBytes) -> Result<HeaderValue, AuthorizationError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the header that carries the password"
    )]
    let encoded = Zeroizing::new(STANDARD.encode(user_and_password.expose_secret()));
    let text = Zeroizing::new([b"Basic ", encoded.as_bytes()].concat());
    sensitive(&text)
}

fn sensitive(text: &[u8]) -> Result<HeaderValue, AuthorizationError> {
    let mut value =
        HeaderValue::from_bytes(text).map_err(|_error| AuthorizationError::Characters)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A token that its file renews, as a pod's own: read again when it is older than
/// [`TokenFile::FRESH`], the last good one kept when the file cannot be read.
pub struct TokenFile {
    path: PathBuf,
    last: Mutex<Option<(Instant, Arc<SecretBytes>)>>,
}

/// Largest token that is read, in bytes. Tokens of API servers are about 1 KiB.
const TOKEN_BYTES: usize = 64 * 1024;

impl TokenFile {
    /// Time for which a token that was read is used without looking again.
    ///
    /// The kubelet renews projected tokens at 80 % of their lifetime, which is 10 minutes at
    /// least.
    pub const FRESH: Duration = Duration::from_secs(30);

    /// The token in the file at `path`.
    pub const fn new(path: PathBuf) -> Self {
        Self {
            path,
            last: Mutex::const_new(None),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn current(&self) -> Result<Arc<SecretBytes>, AuthorizationError> {
        let mut last = self.last.lock().await;
        if let Some((read_at, token)) = &*last
            && read_at.elapsed() < Self::FRESH
        {
            return Ok(Arc::clone(token));
        }
        let token = match read_token(&self.path).await {
            Ok(token) => Arc::new(token),
            Err(source) => match &*last {
                Some((_, token)) => Arc::clone(token),
                None => {
                    return Err(AuthorizationError::File {
                        path: self.path.clone(),
                        source,
                    });
                }
            },
        };
        *last = Some((Instant::now(), Arc::clone(&token)));
        Ok(token)
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Reads a token from a file: white space around it is cut off, nothing in it is accepted.
pub(super) async fn read_token(path: &Path) -> std::io::Result<SecretBytes> {
    let bytes = read_file(path, TOKEN_BYTES).await?;
    let token = bytes.trim_ascii();
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err(std::io::Error::other("does not hold a token"));
    }
    Ok(SecretBytes::new(token.to_vec()))
}

/// Reads a file of at most `max` bytes.
pub(super) async fn read_file(path: &Path, max: usize) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let path = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let bytes = read_blocking(&path, max);
        // Bytes that the standard library reads to see whether that was all, and what copies went
        // through.
        clear_traces();
        bytes
    });
    reading.await?
}

fn read_blocking(path: &Path, max: usize) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(std::io::Error::other("is larger than is read"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn headers_are_sensitive_and_of_the_right_scheme() {
        let header = |auth: Auth| async move { auth.header().await.unwrap().unwrap() };
        let bearer = header(Auth::Bearer(SecretBytes::new(b"abc".to_vec()))).await;
        assert_eq!(bearer, "Bearer abc");
        assert!(bearer.is_sensitive());
        assert!(!format!("{bearer:?}").contains("abc"));
        let basic = header(Auth::Basic(SecretBytes::new(b"u:p".to_vec()))).await;
        assert_eq!(basic, "Basic dTpw");
        assert!(Auth::Anonymous.header().await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_token_is_seen_and_a_lost_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let auth = Auth::BearerFile(TokenFile::new(path.clone()));
        assert!(auth.header().await.is_err());
        std::fs::write(&path, "first\n").unwrap();
        assert_eq!(auth.header().await.unwrap().unwrap(), "Bearer first");
        std::fs::write(&path, "second\n").unwrap();
        assert_eq!(auth.header().await.unwrap().unwrap(), "Bearer first");
        tokio::time::advance(TokenFile::FRESH).await;
        assert_eq!(auth.header().await.unwrap().unwrap(), "Bearer second");
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(TokenFile::FRESH).await;
        assert_eq!(auth.header().await.unwrap().unwrap(), "Bearer second");
    }
}
