//! What a leaf of each role looks like; `certs/profiles.yaml` is the same for people.

use std::time::Duration;

use super::id::Role;

/// How far `not_before` lies before the moment of issue, for clocks that are behind.
pub const BACKDATE: Duration = Duration::from_mins(5);

/// Shortest lifetime an operator may configure; below it, renewal is most of what an agent does.
pub const SHORTEST_TTL: Duration = Duration::from_secs(10);

/// Longest lifetime that is issued: what a stolen key is worth when no ban reaches the hub.
pub const LONGEST_TTL: Duration = Duration::from_hours(72);

/// Lifetime of a built-in root.
pub const ROOT_TTL: Duration = Duration::from_hours(10 * 365 * 24);

/// Lifetime of a built-in intermediate; it renews itself at half of it.
pub const INTERMEDIATE_TTL: Duration = Duration::from_hours(90 * 24);

/// What the key of a leaf may be used for in TLS; exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// `clientAuth` (RFC 5280 §4.2.1.12).
    Client,
    /// `serverAuth`.
    Server,
}

/// The profile of one role's leaves.
///
/// Common to all: one SAN with exactly one URI, critical where the subject is empty, key usage
/// `digitalSignature` (critical), no CA, SKI and AKI, 128-bit random serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Whose.
    pub role: Role,
    /// The one extended key usage.
    pub usage: Usage,
    /// Lifetime unless the operator configures another.
    pub ttl: Duration,
    /// Whether DNS names and addresses may stand beside the URI.
    pub names: bool,
    /// Whether the subject has the name as its common name, and is not empty. Nobody here reads it;
    /// others that are shown the certificate do (Vault's method `cert` names an entity after it and
    /// fails without).
    pub common_name: bool,
}

/// The profiles, by role.
pub const PROFILES: [Profile; 4] = [
    profile(Role::Admin),
    profile(Role::Agent),
    profile(Role::Client),
    profile(Role::Hub),
];

/// The profile of a role.
pub const fn profile(role: Role) -> Profile {
    let (usage, hours, names) = match role {
        Role::Agent => (Usage::Client, 24, false),
        Role::Admin | Role::Client => (Usage::Client, 12, false),
        Role::Hub => (Usage::Server, 24, true),
    };
    Profile {
        role,
        usage,
        ttl: Duration::from_hours(hours),
        names,
        common_name: matches!(role, Role::Agent),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_published_profiles_are_the_ones_in_force() {
        let published = include_str!("../../certs/profiles.yaml");
        let mut wanted = String::from("leaves:\n");
        for profile in PROFILES {
            let usage = match profile.usage {
                Usage::Client => "clientAuth",
                Usage::Server => "serverAuth",
            };
            writeln!(
                wanted,
                "  {}: {{ ttl: {}h, extended-key-usage: {usage}, dns-and-ip-names: {}, common-name: {} }}",
                profile.role,
                profile.ttl.as_secs() / 3600,
                profile.names,
                profile.common_name,
            )
            .unwrap();
        }
        assert!(
            published.contains(&wanted),
            "certs/profiles.yaml should contain:\n{wanted}"
        );
        for line in [
            format!("backdate: {}m", BACKDATE.as_secs() / 60),
            format!("shortest-ttl: {}s", SHORTEST_TTL.as_secs()),
            format!("longest-ttl: {}h", LONGEST_TTL.as_secs() / 3600),
            format!("root: {{ ttl: {}d", ROOT_TTL.as_secs() / 86_400),
            format!(
                "intermediate: {{ ttl: {}d",
                INTERMEDIATE_TTL.as_secs() / 86_400
            ),
        ] {
            assert!(
                published.contains(&line),
                "certs/profiles.yaml should contain: {line}"
            );
        }
    }
}
