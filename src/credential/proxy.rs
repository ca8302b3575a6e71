//! The proxy through which an API server is reached.

use std::fmt;

use zeroize::Zeroizing;

use super::server::{Exceptions, Server, ServerError};
use crate::secret::SecretBytes;

/// An HTTP proxy that is asked to CONNECT.
pub struct Proxy {
    pub(super) server: Server,
    pub(super) user: Option<SecretBytes>,
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]`.
    ///
    /// # Errors
    /// What it has to be, in words.
    pub(super) fn parse(url: &str, exceptions: Exceptions) -> Result<Self, &'static str> {
        const FORM: &str = "is not a URL of the form http://host:port; other proxies are not used";
        let rest = url.strip_prefix("http://").ok_or(FORM)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let plain = Exceptions {
            plain_http: true,
            ..exceptions
        };
        let server = Server::parse(&format!("http://{host}"), plain);
        let server = server.map_err(|error| match error {
            ServerError::Malformed | ServerError::Plaintext => FORM,
            ServerError::Refused => "is a metadata or link-local address",
        })?;
        if !server.base_path().is_empty() {
            return Err(FORM);
        }
        let user = match user {
            Some(user) => {
                Some(decoded(user).ok_or("has a user or password that is not escaped well")?)
            }
            None => None,
        };
        Ok(Self { server, user })
    }

    /// Where it is.
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// `user:password`, if it wants to know.
    pub const fn user(&self) -> Option<&SecretBytes> {
        self.user.as_ref()
    }
}

/// Undoes the escapes of a URL; the part behind the first colon may be missing.
fn decoded(user: &str) -> Option<SecretBytes> {
    let mut out = Zeroizing::new(Vec::with_capacity(user.len() + 1));
    let mut bytes = user.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte if byte.is_ascii_graphic() => byte,
            _ => return None,
        };
        out.push(byte);
    }
    if !user.contains(':') {
        out.push(b':');
    }
    Some(SecretBytes::new(std::mem::take(&mut *out)))
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("server", &format_args!("{}", self.server))
            .finish_non_exhaustive()
    }
}
