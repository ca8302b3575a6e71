//! The proxy through which an API server is reached.

use std::fmt;

use zeroize::Zeroizing;

use super::server::{Exceptions, Server, ServerError};
use crate::secret::SecretBytes;

/// Longest user name or password of a SOCKS proxy, in bytes (RFC 1929 §2).
const SOCKS_FIELD_BYTES: usize = 255;

/// The port of a SOCKS proxy whose URL has none (RFC 1928 §3).
const SOCKS_PORT: u16 = 1080;

/// A proxy on the way to an API server.
pub struct Proxy {
    pub(super) kind: ProxyKind,
    pub(super) server: Server,
    pub(super) user: Option<ProxyUser>,
}

/// How a proxy is asked for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// By CONNECT (RFC 9110 §9.3.6).
    Http,
    /// By SOCKS version 5 (RFC 1928).
    Socks5,
}

/// Who asks a proxy.
#[derive(Debug)]
pub struct ProxyUser {
    /// Without a colon.
    pub name: SecretBytes,
    /// Perhaps empty.
    pub password: SecretBytes,
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]` and `socks5://…`.
    ///
    /// # Errors
    /// What it has to be, in words.
    pub(super) fn parse(url: &str, exceptions: Exceptions) -> Result<Self, &'static str> {
        const FORM: &str = "is not a URL of the form http://host:port or socks5://host:port; other \
                            proxies are not used";
        let (scheme, rest) = url.split_once("://").ok_or(FORM)?;
        let kind = match scheme {
            "http" => ProxyKind::Http,
            "socks5" => ProxyKind::Socks5,
            _ => return Err(FORM),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let plain = Exceptions {
            plain_http: true,
            ..exceptions
        };
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.ends_with(']'));
        let url = match kind {
            ProxyKind::Socks5 if !has_port => format!("http://{host}:{SOCKS_PORT}"),
            ProxyKind::Http | ProxyKind::Socks5 => format!("http://{host}"),
        };
        let server = Server::parse(&url, plain);
        let server = server.map_err(|error| match error {
            ServerError::Malformed | ServerError::Plaintext => FORM,
            ServerError::Refused => "is a metadata or link-local address",
        })?;
        if !server.base_path().is_empty() {
            return Err(FORM);
        }
        let user = user.map(|user| ProxyUser::parse(user, kind)).transpose()?;
        Ok(Self { kind, server, user })
    }

    /// How it is asked.
    pub const fn kind(&self) -> ProxyKind {
        self.kind
    }

    /// Where it is.
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// Who asks, if it wants to know.
    pub const fn user(&self) -> Option<&ProxyUser> {
        self.user.as_ref()
    }
}

impl ProxyUser {
    /// Reads `user[:password]`, escaped as in a URL.
    fn parse(text: &str, kind: ProxyKind) -> Result<Self, &'static str> {
        const ESCAPE: &str = "has a user or password that is not escaped well";
        let (name, password) = text.split_once(':').unwrap_or((text, ""));
        let name = decoded(name).ok_or(ESCAPE)?;
        let password = decoded(password).ok_or(ESCAPE)?;
        if name.contains(&b':') {
            return Err("has a user with a colon in its name");
        }
        let is_long = |field: &[u8]| field.len() > SOCKS_FIELD_BYTES;
        if kind == ProxyKind::Socks5 && (name.is_empty() || is_long(&name) || is_long(&password)) {
            return Err("has no user, or a user or password of more than 255 bytes");
        }
        let sealed = |mut field: Zeroizing<Vec<u8>>| SecretBytes::new(std::mem::take(&mut *field));
        Ok(Self {
            name: sealed(name),
            password: sealed(password),
        })
    }
}

/// Undoes the escapes of a URL.
fn decoded(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut bytes = text.bytes();
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
    Some(out)
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("kind", &self.kind)
            .field("server", &format_args!("{}", self.server))
            .finish_non_exhaustive()
    }
}
