//! The address of an API server, and the addresses that are none.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls_pki_types::ServerName;
use thiserror::Error;

/// An API server's address: `https`, unless plain `http` was accepted for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    host: String,
    port: u16,
    base_path: String,
    exceptions: Exceptions,
    plain: bool,
}

/// What is accepted of an address by way of exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exceptions {
    /// `http`.
    pub(super) plain_http: bool,
    /// Addresses that [`is_refused_address`] names.
    pub(super) link_local: bool,
}

/// An address that is not accepted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ServerError {
    /// Not a URL of the form `https://host[:port][/path]`.
    #[error("is not a URL of the form https://host:port/path")]
    Malformed,
    /// `http`: credentials would be readable on the way.
    #[error("must use https")]
    Plaintext,
    /// A metadata service or a link-local address, which no API server has.
    #[error("is a metadata or link-local address")]
    Refused,
}

impl Server {
    /// Reads `https://host[:port][/path]`.
    ///
    /// # Errors
    /// Everything else, and hosts that [`is_refused_address`] names, unless excepted.
    pub(super) fn parse(url: &str, exceptions: Exceptions) -> Result<Self, ServerError> {
        let uri: http::Uri = url.parse().map_err(|_error| ServerError::Malformed)?;
        let plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") if exceptions.plain_http => true,
            Some("http") => return Err(ServerError::Plaintext),
            _ => return Err(ServerError::Malformed),
        };
        let authority = uri.authority().ok_or(ServerError::Malformed)?;
        let base_path = uri.path().trim_end_matches('/');
        let is_odd_path = base_path
            .split('/')
            .skip(1)
            .any(|segment| matches!(segment, "" | "." | "..") || segment.contains('%'));
        let has_odd_port = authority.port_u16().is_none() && authority.as_str() != authority.host();
        if authority.as_str().contains('@')
            || uri.query().is_some()
            || url.contains('#')
            || is_odd_path
            || has_odd_port
        {
            return Err(ServerError::Malformed);
        }
        let port = authority.port_u16();
        let port = port.unwrap_or(if plain { 80 } else { 443 });
        let server = Self::excepted(authority.host(), port, exceptions)?;
        Ok(Self {
            base_path: base_path.to_owned(),
            plain,
            ..server
        })
    }

    /// Names a server by host (an IPv6 address with or without brackets) and port.
    ///
    /// # Errors
    /// A host that is neither a DNS name nor an address, or one that [`is_refused_address`] names.
    pub(super) fn new(host: &str, port: u16) -> Result<Self, ServerError> {
        Self::excepted(host, port, Exceptions::default())
    }

    fn excepted(host: &str, port: u16, exceptions: Exceptions) -> Result<Self, ServerError> {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let name = bare.trim_end_matches('.').to_ascii_lowercase();
        let address = bare.parse();
        let is_disguised = address.is_err() && ends_in_a_number(&name);
        if ServerName::try_from(bare).is_err() || port == 0 || is_disguised {
            return Err(ServerError::Malformed);
        }
        let is_refused = address.is_ok_and(is_refused_address);
        let is_metadata = METADATA.contains(&name.as_str());
        if (is_metadata || is_refused) && !exceptions.link_local {
            return Err(ServerError::Refused);
        }
        Ok(Self {
            host: name,
            port,
            base_path: String::new(),
            exceptions,
            plain: false,
        })
    }

    /// Whether it is spoken to without TLS.
    pub const fn is_plain(&self) -> bool {
        self.plain
    }

    /// Whether what its name resolves to may be dialled.
    pub fn accepts(&self, address: IpAddr) -> bool {
        self.exceptions.link_local || !is_refused_address(address)
    }

    /// A DNS name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Empty, or a path with a leading and without a trailing slash, e.g. `/k8s/clusters/c-1`.
    pub fn base_path(&self) -> &str {
        &self.base_path
    }

    /// `host:port`, as the `Host` header needs it.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.plain { "http" } else { "https" };
        write!(f, "{scheme}://{}{}", self.authority(), self.base_path)
    }
}

/// Names of metadata services.
const METADATA: [&str; 5] = [
    "instance-data",
    "instance-data.ec2.internal",
    "metadata",
    "metadata.goog",
    "metadata.google.internal",
];

/// Whether a resolver may take `name` for an address that is written in another way, such as
/// `2852039166` or `0xa9.0xfe.43518` (WHATWG URL, "ends in a number").
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number(last)
        || last
            .strip_prefix("0x")
            .is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether no API server has this address: metadata services, link-local, unspecified, multicast.
///
/// Asked for the host of a kubeconfig and again for what a name resolves to, so that a kubeconfig
/// cannot make the agent speak to the metadata service of its cloud. Loopback and private networks
/// are where API servers live and are accepted.
/// Addresses of IPv4 inside such of IPv6 count as themselves.
pub fn is_refused_address(address: IpAddr) -> bool {
    /// Metadata service of Google Cloud over IPv6.
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);
    /// Metadata services of Alibaba Cloud, of Azure and of Oracle Cloud outside 169.254/16.
    const METADATA_V4: [Ipv4Addr; 3] = [
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(168, 63, 129, 16),
        Ipv4Addr::new(192, 0, 0, 192),
    ];
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.octets().first() == Some(&0)
                || v4.is_multicast()
                || v4.is_broadcast()
                || METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6 == METADATA_V6
                // What AWS gives its machines over IPv6: metadata (::254), credentials of pods (::23),
                // names, time.
                || matches!(v6.segments(), [0xfd00, 0xec2, ..])
                || embedded(v6).is_some_and(|v4| is_refused_address(IpAddr::V4(v4)))
        }
    }
}

/// The address of IPv4 inside a compatible one (RFC 4291 §2.5.5.1), behind NAT64 (RFC 6052 §2.1,
/// RFC 8215) or behind 6to4 (RFC 3056 §2).
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let address = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => None, // loopback
        [0 | 0x64, 0 | 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => {
            Some(address(high, low))
        }
        [0x2002, high, low, ..] => Some(address(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_printed() {
        for (url, printed) in [
            ("https://10.0.0.1", "https://10.0.0.1:443"),
            (
                "https://API.example.com:6443/",
                "https://api.example.com:6443",
            ),
            ("https://[::1]:6443", "https://[::1]:6443"),
            (
                "https://rancher.example.com/k8s/clusters/c-1",
                "https://rancher.example.com:443/k8s/clusters/c-1",
            ),
            ("https://127.0.0.1:6443", "https://127.0.0.1:6443"),
            ("https://[fd00:ec3::1]", "https://[fd00:ec3::1]:443"),
            ("https://[64:ff9b::a00:1]", "https://[64:ff9b::a00:1]:443"),
        ] {
            assert_eq!(
                Server::parse(url, Exceptions::default())
                    .unwrap()
                    .to_string(),
                printed
            );
        }
    }

    #[test]
    fn an_exception_opens_what_it_names_and_nothing_else() {
        let plain_http = Exceptions {
            plain_http: true,
            ..Exceptions::default()
        };
        let plain = Server::parse("http://10.0.0.1", plain_http).unwrap();
        assert_eq!(plain.to_string(), "http://10.0.0.1:80");
        assert!(plain.is_plain() && !plain.accepts("169.254.1.1".parse().unwrap()));
        let refused = Server::parse("http://169.254.1.1", plain_http);
        assert_eq!(refused, Err(ServerError::Refused));
        let link_local = Exceptions {
            link_local: true,
            ..Exceptions::default()
        };
        let server = Server::parse("https://169.254.1.1", link_local).unwrap();
        assert!(server.accepts("169.254.1.1".parse().unwrap()));
        let disguised = Server::parse("https://2852039166", link_local);
        assert_eq!(disguised, Err(ServerError::Malformed));
    }

    #[test]
    fn metadata_services_and_odd_urls_are_refused() {
        for url in [
            "https://169.254.169.254/latest",
            "https://[fe80::1]:6443",
            "https://[::ffff:169.254.169.254]",
            "https://[fd00:ec2::254]",
            "https://[fd00:ec2::23]",
            "https://[fd00:ec2:ffff::1]:6443",
            "https://[fd20:ce::254]",
            "https://[::ffff:a9fe:a9fe]",
            "https://[::169.254.169.254]",
            "https://[64:ff9b::169.254.169.254]",
            "https://[64:ff9b::a9fe:a9fe]",
            "https://[64:ff9b:1::a9fe:a9fe]",
            "https://[2002:a9fe:a9fe::1]",
            "https://metadata.google.internal",
            "https://METADATA.google.internal.",
            "https://0.0.0.0:6443",
        ] {
            assert_eq!(
                Server::parse(url, Exceptions::default()),
                Err(ServerError::Refused),
                "{url}"
            );
        }
        let plain = Server::parse("http://10.0.0.1", Exceptions::default());
        assert_eq!(plain, Err(ServerError::Plaintext));
        for url in [
            "",
            "10.0.0.1:6443",
            "https://",
            "https://user:pass@host",
            "https://host?x=y",
            "https://host#x",
            "https://host/a/../b",
            "https://host/%2e%2e",
            "https://host:99999",
            "ftp://host",
            "https://ho st",
        ] {
            assert_eq!(
                Server::parse(url, Exceptions::default()),
                Err(ServerError::Malformed),
                "{url}"
            );
        }
    }
}
