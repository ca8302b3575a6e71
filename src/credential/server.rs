//! The address of an API server, and the addresses that are none.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls_pki_types::ServerName;
use thiserror::Error;

/// An API server's address: `https` only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    host: String,
    port: u16,
    base_path: String,
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
    /// Everything else, and hosts that [`is_refused_address`] names.
    pub fn parse(url: &str) -> Result<Self, ServerError> {
        let uri: http::Uri = url.parse().map_err(|_error| ServerError::Malformed)?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") => return Err(ServerError::Plaintext),
            _ => return Err(ServerError::Malformed),
        }
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
        Self::new(
            authority.host(),
            authority.port_u16().unwrap_or(443),
            base_path,
        )
    }

    /// Names a server by host (an IPv6 address with or without brackets) and port.
    ///
    /// # Errors
    /// A host that is neither a DNS name nor an address, or one that [`is_refused_address`] names.
    pub fn new(host: &str, port: u16, base_path: &str) -> Result<Self, ServerError> {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if ServerName::try_from(bare).is_err() || port == 0 {
            return Err(ServerError::Malformed);
        }
        let name = bare.trim_end_matches('.').to_ascii_lowercase();
        let is_metadata = matches!(name.as_str(), "metadata" | "metadata.google.internal");
        let is_refused = bare.parse().is_ok_and(is_refused_address);
        if is_metadata || is_refused {
            return Err(ServerError::Refused);
        }
        Ok(Self {
            host: name,
            port,
            base_path: base_path.to_owned(),
        })
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
        write!(f, "https://{}{}", self.authority(), self.base_path)
    }
}

/// Whether no API server has this address: metadata services, link-local, unspecified, multicast.
///
/// Asked for the host of a kubeconfig and again for what a name resolves to, so that a kubeconfig
/// cannot make the agent speak to the metadata service of its cloud. Loopback and private networks
/// are where API servers live and are accepted.
pub fn is_refused_address(address: IpAddr) -> bool {
    /// Metadata service of AWS over IPv6.
    const AWS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    /// Metadata service of Alibaba Cloud.
    const ALIBABA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4 == ALIBABA
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast() || v6 == AWS
        }
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
        ] {
            assert_eq!(Server::parse(url).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn metadata_services_and_odd_urls_are_refused() {
        for url in [
            "https://169.254.169.254/latest",
            "https://[fe80::1]:6443",
            "https://[::ffff:169.254.169.254]",
            "https://[fd00:ec2::254]",
            "https://metadata.google.internal",
            "https://METADATA.google.internal.",
            "https://0.0.0.0:6443",
        ] {
            assert_eq!(Server::parse(url), Err(ServerError::Refused), "{url}");
        }
        assert_eq!(
            Server::parse("http://10.0.0.1"),
            Err(ServerError::Plaintext)
        );
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
            assert_eq!(Server::parse(url), Err(ServerError::Malformed), "{url}");
        }
    }
}
