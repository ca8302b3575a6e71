//! Through an HTTP proxy to an API server (RFC 9110 §9.3.6).

use std::io;

use http::header::HeaderValue;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::credential::{AuthorizationError, Proxy, ProxyUser, Server, basic};
use crate::secret::SecretBytes;

/// Largest head of a proxy's answer, in bytes.
const HEAD_BYTES: usize = 8 * 1024;

/// Asks the proxy at the other end of `socket` to connect it with `server`.
///
/// # Errors
/// An answer that is not 2xx, and what ends a connection.
pub(super) async fn connect(
    socket: &mut TcpStream,
    proxy: &Proxy,
    server: &Server,
) -> io::Result<()> {
    socket.write_all(&request(proxy, server)?).await?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    // Byte by byte: what follows the head belongs to TLS. Over before a connection is in use.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES {
            return Err(io::Error::other("the proxy's answer is too large"));
        }
        head.push(socket.read_u8().await?);
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut headers);
    let complete = answer.parse(&head).is_ok_and(|status| status.is_complete());
    match answer.code.filter(|_| complete) {
        Some(200..=299) => Ok(()),
        Some(407) => Err(io::Error::other(
            "the proxy does not accept the user and password of `proxy-url`",
        )),
        Some(code) => Err(io::Error::other(format!(
            "the proxy does not connect to the API server (status {code})"
        ))),
        None => Err(io::Error::other("the proxy does not answer as one")),
    }
}

fn request(proxy: &Proxy, server: &Server) -> io::Result<Zeroizing<Vec<u8>>> {
    let authority = server.authority();
    let user = proxy.user().map(|user| basic(&pair(user))).transpose();
    let user = user.map_err(|error: AuthorizationError| io::Error::other(error))?;
    let (name, end): (&[u8], &[u8]) = match &user {
        Some(_) => (b"proxy-authorization: ", b"\r\n\r\n"),
        None => (b"", b"\r\n"),
    };
    let parts: [&[u8]; 8] = [
        b"CONNECT ",
        authority.as_bytes(),
        b" HTTP/1.1\r\nhost: ",
        authority.as_bytes(),
        b"\r\n",
        name,
        user.as_ref().map_or(b"", HeaderValue::as_bytes),
        end,
    ];
    Ok(Zeroizing::new(parts.concat()))
}

/// `user:password`.
fn pair(user: &ProxyUser) -> SecretBytes {
    #[expect(clippy::disallowed_methods, reason = "the header that carries them")]
    let both = [
        user.name.expose_secret(),
        b":",
        user.password.expose_secret(),
    ]
    .concat();
    SecretBytes::new(both)
}
