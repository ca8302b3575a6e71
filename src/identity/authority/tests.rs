//! The built-in issuer through its public door.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::*;
use crate::entropy;
use crate::identity::fixtures::{House, domain, id, order};
use crate::identity::profile::{BACKDATE, PROFILES, Profile, Usage};
use crate::identity::verify::{Wanted, peer, rules};
use crate::identity::{KeyPair, Role, SpiffeId, csr};

fn reopen(house: &House) -> Result<Authority, AuthorityError> {
    let folder = house.folder.path().join("ca");
    Authority::open(
        &folder,
        domain(),
        Arc::clone(&house.clock) as _,
        entropy::system(),
    )
}

fn issue(authority: &Authority, order: &Order) -> Result<Issued, IssueError> {
    authority.issue(order).now_or_never().unwrap()
}

#[test]
fn a_restart_keeps_the_root_and_the_intermediate() {
    let house = House::new();
    let (_, before) = house.issue(Role::Agent, "prod");
    let again = reopen(&house).unwrap();
    assert!(again.roots().pins().eq(house.trust().pins()));
    let order = order(Role::Agent, "prod", &KeyPair::generate().unwrap());
    assert_eq!(
        issue(&again, &order).unwrap().chain.get(1),
        before.chain.get(1)
    );
}

#[test]
fn the_key_files_are_for_their_owner_only() {
    let house = House::new();
    let folder = house.folder.path().join("ca");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for file in ["root.pem", "intermediate.pem"] {
        let path = folder.join(file);
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = reopen(&house).unwrap_err();
        assert!(
            matches!(error, AuthorityError::File(FileError::Mode { .. })),
            "{error:?}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn what_is_damaged_or_mixed_up_is_never_made_anew() {
    let (house, other) = (House::new(), House::new());
    let folder = house.folder.path().join("ca");
    for file in ["root.pem", "intermediate.pem"] {
        let path = folder.join(file);
        let good = fs::read_to_string(&path).unwrap();
        let stranger = fs::read_to_string(other.folder.path().join("ca").join(file)).unwrap();
        let (certificate, key) = good.split_once("-----BEGIN PRIVATE").unwrap();
        let (_, foreign_key) = stranger.split_once("-----BEGIN PRIVATE").unwrap();
        let mixed = format!("{certificate}-----BEGIN PRIVATE{foreign_key}");
        let headless = format!("-----BEGIN PRIVATE{key}");
        for bad in ["", "nonsense", &mixed, &headless, &stranger] {
            fs::write(&path, bad).unwrap();
            let error = reopen(&house).unwrap_err();
            assert!(matches!(error, AuthorityError::Content { .. }), "{error:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
        fs::write(&path, good).unwrap();
    }
    fs::remove_file(folder.join("root.pem")).unwrap();
    assert!(matches!(
        reopen(&house),
        Err(AuthorityError::Content { .. })
    ));
    assert!(!folder.join("root.pem").exists());
}

#[test]
fn the_intermediate_renews_itself_at_half_of_its_life() {
    let house = House::new();
    let (_, first) = house.issue(Role::Agent, "prod");
    house.clock.advance(Duration::from_hours(44 * 24));
    let (_, second) = house.issue(Role::Agent, "prod");
    assert_eq!(first.chain.get(1), second.chain.get(1));
    house.clock.advance(Duration::from_hours(24));
    let (_, third) = house.issue(Role::Agent, "prod");
    assert_ne!(second.chain.get(1), third.chain.get(1));
    let order = order(Role::Agent, "prod", &KeyPair::generate().unwrap());
    let again = issue(&reopen(&house).unwrap(), &order).unwrap();
    assert_eq!(again.chain.get(1), third.chain.get(1));
    let wanted = Wanted {
        usage: Usage::Client,
        roles: &[Role::Agent],
        trust_domain: None,
    };
    for issued in [second, third] {
        peer(&issued.chain, &house.trust(), wanted, house.now()).unwrap();
    }
}

#[test]
fn without_the_roots_key_the_intermediate_serves_to_its_end() {
    let house = House::new();
    take_root_key(&house);
    let offline = reopen(&house).unwrap();
    house.clock.advance(Duration::from_hours(90 * 24 - 1));
    let order = order(Role::Agent, "prod", &KeyPair::generate().unwrap());
    let last = issue(&offline, &order).unwrap();
    let left = last.not_after.duration_since(house.now()).unwrap();
    assert!(
        left <= Duration::from_hours(1),
        "no leaf outlives its issuer: {left:?}"
    );
    house.clock.advance(Duration::from_hours(2));
    assert!(matches!(
        issue(&offline, &order),
        Err(IssueError::IssuerExpired)
    ));
    assert!(matches!(reopen(&house), Err(AuthorityError::Ended { .. })));
}

/// Takes the root's key out of its file.
fn take_root_key(house: &House) {
    let path = house.folder.path().join("ca").join("root.pem");
    let text = fs::read_to_string(&path).unwrap();
    let (certificate, _key) = text.split_once("-----BEGIN PRIVATE").unwrap();
    fs::write(&path, certificate).unwrap();
}

#[test]
fn a_successor_that_was_signed_elsewhere_is_taken_up_without_a_restart() {
    let house = House::new();
    let (here, vault) = (
        house.folder.path().join("ca"),
        house.folder.path().join("vault"),
    );
    Authority::copy(&here, &vault).unwrap();
    take_root_key(&house);
    let offline = reopen(&house).unwrap();
    let order = order(Role::Agent, "prod", &KeyPair::generate().unwrap());
    let first = issue(&offline, &order).unwrap();
    house.clock.advance(Duration::from_hours(50 * 24));
    let clock = Arc::clone(&house.clock) as _;
    Authority::open(&vault, domain(), clock, entropy::system()).unwrap();
    let successor = fs::read(vault.join("intermediate.pem")).unwrap();
    // Being written: the one in use goes on.
    let file = here.join("intermediate.pem");
    fs::write(&file, &successor[..successor.len() / 2]).unwrap();
    let second = issue(&offline, &order).unwrap();
    assert_eq!(second.chain.get(1), first.chain.get(1));
    fs::write(&file, &successor).unwrap();
    let third = issue(&offline, &order).unwrap();
    assert_ne!(third.chain.get(1), first.chain.get(1));
    let left = offline.not_after().duration_since(house.now()).unwrap();
    assert!(left > Duration::from_hours(89 * 24), "{left:?}");
    let kept = fs::read(&file).unwrap();
    assert!(kept == successor, "it is used as it is");
}

#[test]
fn a_root_key_that_was_put_back_makes_the_next_intermediate_without_a_restart() {
    let house = House::new();
    let file = house.folder.path().join("ca").join("root.pem");
    let whole = fs::read_to_string(&file).unwrap();
    take_root_key(&house);
    let offline = reopen(&house).unwrap();
    house.clock.advance(Duration::from_hours(50 * 24));
    let order = order(Role::Agent, "prod", &KeyPair::generate().unwrap());
    issue(&offline, &order).unwrap();
    fs::write(&file, whole).unwrap();
    issue(&offline, &order).unwrap();
    let left = offline.not_after().duration_since(house.now()).unwrap();
    assert!(left > Duration::from_hours(89 * 24), "{left:?}");
}

/// A house whose intermediate was made while the clock was two days ahead.
fn ahead() -> House {
    let house = House::new();
    let intermediate = house.folder.path().join("ca").join("intermediate.pem");
    fs::remove_file(intermediate).unwrap();
    house.clock.advance(Duration::from_hours(48));
    reopen(&house).unwrap();
    house
}

#[test]
fn an_intermediate_of_the_future_is_made_anew_at_the_start_and_while_the_hub_runs() {
    let house = ahead();
    let running = reopen(&house).unwrap();
    house.clock.set(crate::identity::fixtures::start());
    let order = order(Role::Agent, "prod", &KeyPair::generate().unwrap());
    let wanted = Wanted {
        usage: Usage::Client,
        roles: &[Role::Agent],
        trust_domain: None,
    };
    let issued = issue(&running, &order).unwrap();
    peer(&issued.chain, &house.trust(), wanted, house.now()).unwrap();

    let house = ahead();
    house.clock.set(crate::identity::fixtures::start());
    let issued = issue(&reopen(&house).unwrap(), &order).unwrap();
    peer(&issued.chain, &house.trust(), wanted, house.now()).unwrap();
}

#[test]
fn a_certificate_of_the_future_that_nobody_can_replace_is_told_with_its_file() {
    let house = ahead();
    take_root_key(&house);
    let running = reopen(&house).unwrap();
    house.clock.set(crate::identity::fixtures::start());
    let order = order(Role::Agent, "prod", &KeyPair::generate().unwrap());
    let refused = issue(&running, &order);
    assert!(matches!(refused, Err(IssueError::IssuerNotYetValid)));
    let told = reopen(&house).unwrap_err().to_string();
    assert!(
        told.contains("intermediate.pem` is not valid before 2027-01-17T07:55:00Z: set"),
        "{told}"
    );

    let house = House::new();
    house.clock.set(house.now() - Duration::from_hours(1));
    let told = reopen(&house).unwrap_err();
    assert!(
        matches!(&told, AuthorityError::NotYetValid { path, .. } if path.ends_with("root.pem"))
    );
}

#[test]
fn a_look_finds_whatever_a_start_would_refuse_and_changes_nothing() {
    let look = |house: &House| Authority::inspect(&house.folder.path().join("ca"), house.now());
    let refuse = |why: &str, spoil: &dyn Fn(&House, &Path)| {
        let house = House::new();
        assert!(matches!(look(&house), Ok(Some(_))));
        spoil(&house, &house.folder.path().join("ca"));
        let seen = look(&house).unwrap_err().to_string();
        assert_eq!(seen, reopen(&house).unwrap_err().to_string(), "{why}");
    };
    refuse("others may enter", &|_, folder| {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    });
    refuse("the root is missing", &|_, folder| {
        fs::remove_file(folder.join("root.pem")).unwrap();
    });
    refuse("the intermediate is another's", &|_, folder| {
        let other = House::new();
        let file = other.folder.path().join("ca").join("intermediate.pem");
        fs::copy(file, folder.join("intermediate.pem")).unwrap();
    });
    refuse("the intermediate has no key", &|_, folder| {
        let path = folder.join("intermediate.pem");
        let text = fs::read_to_string(&path).unwrap();
        let (certificate, _key) = text.split_once("-----BEGIN PRIVATE").unwrap();
        fs::write(&path, certificate).unwrap();
    });
    refuse("nothing can make an intermediate", &|house, folder| {
        take_root_key(house);
        fs::remove_file(folder.join("intermediate.pem")).unwrap();
    });
    refuse("the intermediate has ended", &|house, _| {
        take_root_key(house);
        house.clock.advance(Duration::from_hours(91 * 24));
    });
    refuse("the root has ended", &|house, _| {
        house.clock.advance(Duration::from_hours(3651 * 24));
    });
    refuse("the clock is behind", &|house, _| {
        house.clock.set(house.now() - Duration::from_hours(1));
    });
    let nowhere = tempfile::tempdir().unwrap();
    let folder = nowhere.path().join("ca");
    assert!(matches!(
        Authority::inspect(&folder, crate::identity::fixtures::start()),
        Ok(None)
    ));
    assert!(!folder.exists());
}

#[test]
fn every_leaf_is_exactly_its_roles_profile() {
    let house = House::new();
    for profile in PROFILES {
        let (key, issued) = house.issue(profile.role, "some.name-1");
        let (_, leaf) = X509Certificate::from_der(issued.chain.first().unwrap()).unwrap();
        assert_eq!(leaf.version().0, 2);
        let subject = if profile.common_name {
            "CN=some.name-1"
        } else {
            ""
        };
        assert_eq!(leaf.subject().to_string(), subject);
        assert_eq!(leaf.public_key().raw, key.spki_der());
        assert_eq!(hex::encode(leaf.raw_serial()), issued.serial);
        assert_eq!(
            (leaf.raw_serial().len(), leaf.raw_serial().first()),
            (17, Some(&1))
        );
        let life = issued.not_after.duration_since(issued.not_before).unwrap();
        assert_eq!(life, Duration::from_hours(24) + BACKDATE);
        assert_eq!(
            rules::validity(&leaf),
            (issued.not_before, issued.not_after)
        );
        assert_eq!(extensions(&leaf), expected_extensions(profile));
    }
}

/// Each extension in words.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "an extension that is not expected is shown as it is"
)]
fn extensions(leaf: &X509Certificate<'_>) -> Vec<String> {
    let mut all: Vec<String> = leaf
        .extensions()
        .iter()
        .map(|extension| {
            let critical = if extension.critical { "critical " } else { "" };
            let content = match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(_) => "authority key id".to_owned(),
                ParsedExtension::SubjectKeyIdentifier(_) => "subject key id".to_owned(),
                ParsedExtension::KeyUsage(usage) => format!("usage {}", usage.flags),
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    format!(
                        "extended client={} server={}",
                        usage.client_auth, usage.server_auth
                    )
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    let name = |name: &GeneralName<'_>| name.to_string();
                    names
                        .general_names
                        .iter()
                        .map(name)
                        .collect::<Vec<_>>()
                        .join(" ")
                }
                ParsedExtension::BasicConstraints(basic) => format!("constraints ca={}", basic.ca),
                other => format!("{other:?}"),
            };
            format!("{critical}{content}")
        })
        .collect();
    all.sort();
    all
}

fn expected_extensions(profile: Profile) -> Vec<String> {
    let usage = profile.usage;
    let (client, server) = (usage == Usage::Client, usage == Usage::Server);
    let uri = format!("URI({})", id(profile.role, "some.name-1"));
    let more = if profile.names {
        " DNSName(localhost) IPAddress(7f:00:00:01)"
    } else {
        ""
    };
    let critical = if profile.common_name { "" } else { "critical " };
    let names = format!("{critical}{uri}{more}");
    let mut all = vec![
        "authority key id".to_owned(),
        "critical constraints ca=false".to_owned(),
        "critical usage 1".to_owned(),
        format!("extended client={client} server={server}"),
        "subject key id".to_owned(),
        names,
    ];
    all.sort();
    all
}

#[test]
fn nothing_but_the_key_of_a_request_reaches_a_certificate() {
    let house = House::new();
    let key = KeyPair::generate().unwrap();
    let mut greedy = CertificateParams::default();
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.subject_alt_names = vec![crate::identity::fixtures::uri(
        "spiffe://spinnaker.example/hub/evil",
    )];
    greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let request = greedy.serialize_request(&key).unwrap();
    let public_key = csr::public_key(request.der()).unwrap();
    let order = Order {
        public_key,
        ..order(Role::Agent, "prod", &key)
    };
    let issued = issue(&house.authority, &order).unwrap();
    let (_, leaf) = X509Certificate::from_der(issued.chain.first().unwrap()).unwrap();
    let (_, modest) = house.issue(Role::Agent, "prod");
    let (_, modest) = X509Certificate::from_der(modest.chain.first().unwrap()).unwrap();
    assert_eq!(extensions(&leaf), extensions(&modest));
    assert_eq!(leaf.subject(), modest.subject());
}

#[test]
fn orders_beyond_the_profile_are_refused() {
    let house = House::new();
    let key = KeyPair::generate().unwrap();
    let agent = order(Role::Agent, "prod", &key);
    let hub = order(Role::Hub, "hub-1", &key);
    let foreign: TrustDomain = "elsewhere.example".parse().unwrap();
    let too_many = std::iter::repeat_n(std::net::IpAddr::from([10, 0, 0, 1]), 17);
    for order in [
        Order {
            dns: hub.dns.clone(),
            ..agent.clone()
        },
        Order {
            ttl: Duration::ZERO,
            ..agent.clone()
        },
        Order {
            ttl: Duration::from_hours(73),
            ..agent.clone()
        },
        Order {
            ips: too_many.collect(),
            ..hub
        },
        Order {
            id: SpiffeId {
                trust_domain: foreign,
                ..agent.id.clone()
            },
            ..agent
        },
    ] {
        assert!(matches!(
            issue(&house.authority, &order),
            Err(IssueError::Order { .. })
        ));
    }
}
