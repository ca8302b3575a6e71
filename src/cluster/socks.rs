//! Through a SOCKS proxy to an API server.
//!
//! The name of the API server goes to the proxy, which resolves it, as with kubectl.
//!
//! # Sources
//! - RFC 1928 (SOCKS version 5), §3 to §6; RFC 1929 (user and password), §2.

use std::io;
use std::net::IpAddr;

use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::credential::{ProxyUser, Server};

/// The version that is spoken.
const VERSION: u8 = 5;

/// The version of the exchange of user and password.
const LOGIN_VERSION: u8 = 1;

/// The way to log in: not at all.
const WITHOUT_LOGIN: u8 = 0;

/// The way to log in: by user and password.
const BY_PASSWORD: u8 = 2;

/// No way to log in that was offered.
const NO_WAY: u8 = 0xff;

/// The command: connect.
const CONNECT: u8 = 1;

/// The forms of an address.
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// What a proxy answers in place of a connection.
#[derive(Debug, Error, PartialEq, Eq)]
enum SocksError {
    #[error("the proxy closed the connection before its answer")]
    Closed,
    #[error("the proxy does not answer as a SOCKS 5 proxy")]
    NotSocks,
    #[error("the proxy wants another login than none, and `proxy-url` has no user and password")]
    LoginWanted,
    #[error("the proxy accepts neither a user and password nor none")]
    OtherLoginWanted,
    #[error("the proxy does not accept the user and password of `proxy-url`")]
    LoginRefused,
    #[error("the proxy does not connect to the API server: {} (reply {code})", in_words(*.code))]
    Refused { code: u8 },
    #[error("the name of the API server is longer than SOCKS can carry")]
    NameTooLong,
}

impl From<SocksError> for io::Error {
    fn from(error: SocksError) -> Self {
        Self::other(error)
    }
}

/// The reply codes of RFC 1928 §6.
const fn in_words(code: u8) -> &'static str {
    match code {
        1 => "it failed",
        2 => "its rules do not allow it",
        3 => "the network is unreachable for it",
        4 => "the host is unreachable for it, or its name unknown",
        5 => "the connection was refused",
        6 => "the way is too long (TTL expired)",
        7 => "it cannot connect, only other commands",
        8 => "it does not know this form of address",
        _ => "it gives no reason that is known",
    }
}

/// Asks the proxy at the other end of `socket` to connect it with `server`. Nothing that follows
/// the proxy's last answer is read.
///
/// # Errors
/// A [`SocksError`], and what ends a connection.
pub(super) async fn connect<S>(
    socket: &mut S,
    user: Option<&ProxyUser>,
    server: &Server,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let greeting: &[u8] = match user {
        None => &[VERSION, 1, WITHOUT_LOGIN],
        Some(_) => &[VERSION, 2, WITHOUT_LOGIN, BY_PASSWORD],
    };
    socket.write_all(greeting).await?;
    let chosen: [u8; 2] = receive(socket).await?;
    match (chosen, user) {
        ([VERSION, WITHOUT_LOGIN], _) => {}
        ([VERSION, BY_PASSWORD], Some(user)) => log_in(socket, user).await?,
        ([VERSION, NO_WAY], None) => return Err(SocksError::LoginWanted.into()),
        ([VERSION, NO_WAY], Some(_)) => return Err(SocksError::OtherLoginWanted.into()),
        _ => return Err(SocksError::NotSocks.into()),
    }
    socket.write_all(&request(server)?).await?;
    match receive(socket).await? {
        [VERSION, 0, 0, form] => skip_address(socket, form).await,
        [VERSION, code, _, _] if code != 0 => Err(SocksError::Refused { code }.into()),
        _ => Err(SocksError::NotSocks.into()),
    }
}

async fn log_in<S>(socket: &mut S, user: &ProxyUser) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    #[expect(clippy::disallowed_methods, reason = "the message that carries them")]
    let (name, password) = (user.name.expose_secret(), user.password.expose_secret());
    let length = |field: &[u8]| u8::try_from(field.len());
    let (Ok(of_name), Ok(of_password)) = (length(name), length(password)) else {
        return Err(SocksError::LoginRefused.into());
    };
    let parts = [&[LOGIN_VERSION, of_name], name, &[of_password], password];
    let message = Zeroizing::new(parts.concat());
    socket.write_all(&message).await?;
    match receive(socket).await? {
        [LOGIN_VERSION, 0] => Ok(()),
        [LOGIN_VERSION, _] => Err(SocksError::LoginRefused.into()),
        _ => Err(SocksError::NotSocks.into()),
    }
}

fn request(server: &Server) -> Result<Vec<u8>, SocksError> {
    let host = server.host();
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend(address.octets());
        }
        Err(_name) => {
            let length = u8::try_from(host.len()).map_err(|_error| SocksError::NameTooLong)?;
            request.extend([NAME, length]);
            request.extend(host.bytes());
        }
    }
    request.extend(server.port().to_be_bytes());
    Ok(request)
}

/// Reads the address from which the proxy has connected, which nobody needs, and its port.
async fn skip_address<S: AsyncRead + Unpin>(socket: &mut S, form: u8) -> io::Result<()> {
    let length = match form {
        IPV4 => 4,
        IPV6 => 16,
        NAME => {
            let [length] = receive(socket).await?;
            u64::from(length)
        }
        _ => return Err(SocksError::NotSocks.into()),
    };
    let length = length + 2;
    let skipped = tokio::io::copy(&mut socket.take(length), &mut tokio::io::sink()).await?;
    if skipped < length {
        return Err(SocksError::Closed.into());
    }
    Ok(())
}

async fn receive<const LENGTH: usize, S>(socket: &mut S) -> io::Result<[u8; LENGTH]>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = [0; LENGTH];
    match socket.read_exact(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(SocksError::Closed.into())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;
    use crate::credential::{Profile, Relaxation, Rules, kubeconfig};

    /// What a proxy that knows its business says before an address.
    const GREETED: [u8; 2] = [VERSION, WITHOUT_LOGIN];
    const GRANTED: [u8; 3] = [VERSION, 0, 0];

    /// What is said to a proxy that answers `answers`, what of that is left, and how it ends.
    fn said(server: &str, user: &str, answers: &[u8]) -> (Vec<u8>, Vec<u8>, Result<(), String>) {
        let text = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: '{server}', \
             proxy-url: 'socks5://{user}p'}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n",
        );
        let profile = Profile {
            rules: Rules {
                allow: vec![Relaxation::PlainHttp],
                ..Rules::default()
            },
            ..Profile::sealed()
        };
        let credential = kubeconfig::read(text.as_bytes(), None, &profile).unwrap();
        let (mut said, mut left) = (Vec::new(), answers);
        let mut socket = tokio::io::join(&mut left, &mut said);
        let user = credential.proxy().unwrap().user();
        let ended = connect(&mut socket, user, credential.server())
            .now_or_never()
            .expect("nothing is waited for");
        let left = left.to_vec();
        (said, left, ended.map_err(|error| error.to_string()))
    }

    #[test]
    fn a_name_goes_to_the_proxy_and_an_address_in_its_own_form() {
        let granted = [&GREETED[..], &GRANTED, &[IPV4, 0, 0, 0, 0, 0, 0]].concat();
        for (server, address) in [
            (
                "http://api.example.com:6443",
                [&[NAME, 15][..], b"api.example.com"].concat(),
            ),
            ("http://10.0.0.1:6443", vec![IPV4, 10, 0, 0, 1]),
            (
                "http://[2001:db8::1]:6443",
                vec![IPV6, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            ),
        ] {
            let (said, left, ended) = said(server, "", &granted);
            assert_eq!(ended, Ok(()));
            assert!(left.is_empty());
            let request = [
                &[VERSION, 1, WITHOUT_LOGIN, VERSION, CONNECT, 0],
                &address[..],
            ];
            assert_eq!(said, [&request.concat()[..], &[0x19, 0x2b]].concat());
        }
    }

    #[test]
    fn a_login_is_offered_and_sent_to_a_proxy_that_wants_it() {
        let login = [&[LOGIN_VERSION, 3][..], b"who", &[8], b"planted@"].concat();
        let granted = [&GRANTED[..], &[IPV4, 0, 0, 0, 0, 0, 0]].concat();
        let user = "who:planted%40@";
        let wants = [&[VERSION, BY_PASSWORD, LOGIN_VERSION, 0], &granted[..]].concat();
        let (sent, _, ended) = said("http://h", user, &wants);
        assert_eq!(ended, Ok(()));
        let offered = [VERSION, 2, WITHOUT_LOGIN, BY_PASSWORD];
        assert!(sent.starts_with(&[&offered[..], &login].concat()));
        let does_not = [&GREETED, &granted[..]].concat();
        let (sent, _, ended) = said("http://h", user, &does_not);
        assert_eq!(ended, Ok(()));
        assert!(sent.starts_with(&[&offered[..], &[VERSION, CONNECT]].concat()));
    }

    #[test]
    fn what_a_proxy_answers_is_told_in_words_and_the_password_is_not() {
        let refused = |code: u8| [&GREETED[..], &[VERSION, code, 0, IPV4]].concat();
        for (user, answers, told) in [
            ("", vec![VERSION, NO_WAY], "has no user and password"),
            (
                "who:planted@",
                vec![VERSION, NO_WAY],
                "neither a user and password nor none",
            ),
            (
                "who:planted@",
                vec![VERSION, BY_PASSWORD, LOGIN_VERSION, 1],
                "does not accept the user and password of `proxy-url`",
            ),
            (
                "",
                vec![VERSION, BY_PASSWORD],
                "not answer as a SOCKS 5 proxy",
            ),
            (
                "",
                b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
                "not answer as a SOCKS 5 proxy",
            ),
            ("", vec![VERSION], "closed the connection"),
            ("", refused(1), "it failed (reply 1)"),
            ("", refused(2), "rules do not allow it (reply 2)"),
            ("", refused(5), "refused (reply 5)"),
            ("", refused(9), "no reason that is known (reply 9)"),
        ] {
            let (_, _, ended) = said("http://h", user, &answers);
            let error = ended.unwrap_err();
            assert!(error.contains(told), "{error}\nnot: {told}");
            assert!(!error.contains("planted"), "{error}");
        }
    }

    /// An address as a proxy writes it, with its form.
    fn address() -> impl Strategy<Value = Vec<u8>> {
        let of = |form: u8, length: usize| {
            let bytes = proptest::collection::vec(any::<u8>(), length);
            bytes.prop_map(move |bytes| [&[form], &bytes[..]].concat())
        };
        let name = proptest::collection::vec(any::<u8>(), 0..=255);
        let name = name.prop_map(|name| {
            let length = u8::try_from(name.len()).unwrap();
            [&[NAME, length], &name[..]].concat()
        });
        prop_oneof![of(IPV4, 4), of(IPV6, 16), name]
    }

    proptest! {
        #[test]
        fn any_granted_answer_is_read_to_its_end_and_no_further(
            address in address(),
            port in any::<[u8; 2]>(),
            follows in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let answers = [&GREETED[..], &GRANTED, &address, &port].concat();
            let (_, left, ended) = said("http://h", "", &[&answers[..], &follows].concat());
            prop_assert_eq!(ended, Ok(()));
            prop_assert_eq!(left, follows);
            let cut = answers.len() - 1 - usize::from(port[0]) % answers.len();
            let (_, _, ended) = said("http://h", "", &answers[..cut]);
            prop_assert!(ended.is_err());
        }

        #[test]
        fn any_bytes_end_in_a_connection_or_in_words(
            begins in prop_oneof![
                Just(vec![]), Just(GREETED.to_vec()), Just([&GREETED[..], &GRANTED].concat())
            ],
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let answers = [begins, bytes].concat();
            let (_, left, ended) = said("http://h", "", &answers);
            let read = answers.len() - left.len();
            prop_assert!(read <= 2 + 4 + 1 + 255 + 2);
            let is_granted = answers.starts_with(&[&GREETED[..], &GRANTED].concat());
            prop_assert!(is_granted || ended.is_err());
        }
    }
}
