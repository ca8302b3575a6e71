//! SPIFFE identities: `spiffe://<trust-domain>/<role>/<name>`, parsed strictly and compared as
//! values.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// Longest SPIFFE ID, in bytes (SPIFFE-ID §2.3).
const SPIFFE_ID_BYTES: usize = 2048;

/// Longest trust domain, in bytes (SPIFFE-ID §2.1).
const TRUST_DOMAIN_BYTES: usize = 255;

/// Longest name in an identity, in bytes: that of a DNS label.
pub const NAME_BYTES: usize = 63;

/// Why a text is no identity.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum IdError {
    /// Not 1 to 63 of `a-z 0-9 - .`, starting and ending with a letter or digit.
    #[error(
        "a name is 1 to 63 lower-case letters, digits, `-` or `.`, and starts and ends with a letter or digit"
    )]
    Name,
    /// Not one of the four roles.
    #[error("a role is one of `admin`, `agent`, `client`, `hub`")]
    Role,
    /// Not `spiffe://<trust-domain>/<role>/<name>`.
    #[error("an identity has the shape `spiffe://<trust-domain>/<role>/<name>`")]
    Shape,
    /// Not 1 to 255 of `a-z 0-9 - . _`.
    #[error("a trust domain is 1 to 255 lower-case letters, digits, `-`, `.` or `_`")]
    TrustDomain,
}

/// A trust domain such as `spinnaker.example`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The audience a `ServiceAccount` token for this trust domain's hub must name.
    pub fn hub_audience(&self) -> String {
        format!("spiffe://{self}/hub")
    }
}

impl FromStr for TrustDomain {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = (1..=TRUST_DOMAIN_BYTES).contains(&text.len());
        if fits
            && text
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_'))
        {
            Ok(Self(Arc::from(text)))
        } else {
            Err(IdError::TrustDomain)
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an agent, hub, client or administrator; stable across restarts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = text.as_bytes();
        let edge = |byte: Option<&u8>| byte.is_some_and(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'));
        let body = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        if bytes.len() <= NAME_BYTES
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(body)
        {
            Ok(Self(Arc::from(text)))
        } else {
            Err(IdError::Name)
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the holder of an identity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Administers a hub.
    Admin,
    /// Brings clusters to a hub.
    Agent,
    /// Uses a hub's facade.
    Client,
    /// Is a hub.
    Hub,
}

impl Role {
    /// The path segment that names this role.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Agent => "agent",
            Self::Client => "client",
            Self::Hub => "hub",
        }
    }
}

impl FromStr for Role {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text {
            "admin" => Ok(Self::Admin),
            "agent" => Ok(Self::Agent),
            "client" => Ok(Self::Client),
            "hub" => Ok(Self::Hub),
            _ => Err(IdError::Role),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An identity, as the one URI name of a certificate carries it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// Whose word the identity rests on.
    pub trust_domain: TrustDomain,
    /// What the holder is.
    pub role: Role,
    /// Who the holder is.
    pub name: Name,
}

impl FromStr for SpiffeId {
    type Err = IdError;

    /// Reads an identity; there is exactly one text for each.
    ///
    /// Percent-encoding, empty or dot segments, ports, queries and upper case are all outside the
    /// alphabet of the three parts, so no separate check is needed (SPIFFE-ID §2).
    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() > SPIFFE_ID_BYTES {
            return Err(IdError::Shape);
        }
        let path = text.strip_prefix("spiffe://").ok_or(IdError::Shape)?;
        let mut parts = path.split('/');
        let (Some(domain), Some(role), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdError::Shape);
        };
        Ok(Self {
            trust_domain: domain.parse()?,
            role: role.parse()?,
            name: name.parse()?,
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/{}/{}",
            self.trust_domain, self.role, self.name
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_identity_reads_back_as_it_was_written() {
        let text = "spiffe://spinnaker.example/agent/prod-eu";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!((id.role, id.name.as_str()), (Role::Agent, "prod-eu"));
        assert_eq!(id.to_string(), text);
    }

    #[test]
    fn what_only_resembles_an_identity_is_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe://td",
            "spiffe://td/",
            "spiffe://td/agent",
            "spiffe://td/agent/",
            "spiffe://td/agent/a/",
            "spiffe://td/agent//a",
            "spiffe://td//agent/a",
            "spiffe://td/agent/a/b",
            "spiffe://td/agent/.",
            "spiffe://td/agent/..",
            "spiffe://td/agent/%61",
            "spiffe://td/agent/A",
            "spiffe://td/Agent/a",
            "spiffe://Td/agent/a",
            "spiffe://td:443/agent/a",
            "spiffe://user@td/agent/a",
            "spiffe:///agent/a",
            "SPIFFE://td/agent/a",
            "spiffe://td/agent/a?x",
            "spiffe://td/agent/a#x",
            "spiffe://td/agent/a\0",
            " spiffe://td/agent/a",
            "spiffe://td/agent/\u{430}",
            "spiffe://td/agent/-a",
            "spiffe://td/agent/a-",
            "https://td/agent/a",
            "spiffe://td/robot/a",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text:?}");
        }
        assert!(
            format!("spiffe://td/agent/{}", "a".repeat(64))
                .parse::<SpiffeId>()
                .is_err()
        );
        assert!(
            format!("spiffe://{}/agent/a", "a".repeat(256))
                .parse::<SpiffeId>()
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn whatever_parses_is_written_back_unchanged(text in "spiffe://[a-zA-Z0-9%._/-]{0,40}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn every_well_formed_identity_is_read(
            domain in "[a-z0-9._-]{1,40}",
            role in "admin|agent|client|hub",
            name in "[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?",
        ) {
            let text = format!("spiffe://{domain}/{role}/{name}");
            prop_assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        }
    }
}
