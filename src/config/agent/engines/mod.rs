//! Named connections to secret engines.

#[cfg(feature = "aws")]
pub(super) mod aws;
pub(super) mod file;
#[cfg(feature = "google")]
pub(super) mod google;
pub(super) mod kubernetes;
pub(super) mod vault;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::reader::{Field, Map, Parsed, printable};
use crate::config::source::Environment;
use crate::config::text::{boolean, duration, text};
#[cfg(feature = "google")]
use crate::credential::google::{CLOUD_STORAGE, SECRET_MANAGER};
use crate::credential::{EngineId, EngineSettings, MAX_STALE, REFRESH, Reference, Settings};
use crate::yaml::Node;

/// Most connections.
const ENGINES: usize = 64;

/// Longest name of a connection, in bytes.
const PROFILE_BYTES: usize = 64;

/// Range of `refresh`.
const REFRESH_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// Range of `credential-max-stale`; 0 is: not without its engine.
pub(super) const STALE_RANGE: RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_hours(24 * 30);

/// What every engine has.
const COMMON: [&str; 4] = ["credential-max-stale", "default", "engine", "refresh"];

/// What stands under `engines`.
#[derive(Default)]
pub(super) struct Engines {
    /// Those that can be used.
    pub(super) settings: Vec<Settings>,
    /// All that are written, so that an account is not told off for the mistake of its engine.
    written: BTreeSet<String>,
    /// Some could not be read; one of them may be what a reference means.
    unread: bool,
}

impl Engines {
    /// # Errors
    /// What is wrong with naming a secret by `reference`.
    pub(super) fn check(&self, reference: &Reference) -> Parsed<()> {
        let id = reference.engine();
        let of_engine = |settings: &&Settings| settings.engine.id() == id;
        let Some(name) = &reference.profile else {
            let mut fitting = self.settings.iter().filter(of_engine);
            if self.unread || fitting.any(|settings| settings.default) {
                return Ok(());
            }
            return Err(format!(
                "names no engine, and no `{0}` under `engines` has `default: true`: write \
                 `sec+{0}://NAME/…`, or set it",
                id.as_str()
            ));
        };
        if !self.written.contains(name) {
            return Err(format!(
                "names the engine `{}`, which is not under `engines`",
                printable(name)
            ));
        }
        match self.settings.iter().find(|settings| settings.name == *name) {
            Some(settings) if settings.engine.id() != id => Err(format!(
                "speaks of `{}`, but the engine `{name}` is `{}`",
                id.as_str(),
                settings.engine.id().as_str()
            )),
            Some(_) | None => Ok(()),
        }
    }
}

impl Engines {
    /// # Errors
    /// What is wrong with having tokens minted by the connection `name`, one to `wanted`.
    pub(super) fn check_minting(&self, name: &str, wanted: EngineId) -> Parsed<()> {
        if !self.written.contains(name) {
            return Err(format!(
                "names the engine `{}`, which is not under `engines`",
                printable(name)
            ));
        }
        match self.settings.iter().find(|settings| settings.name == name) {
            Some(settings) if settings.engine.id() != wanted => Err(format!(
                "needs a connection to `{}`, but the engine `{name}` is `{}`",
                wanted.as_str(),
                settings.engine.id().as_str()
            )),
            Some(_) | None => Ok(()),
        }
    }
}

pub(super) fn read(root: &Map<'_>, environment: &Environment) -> Engines {
    let map = root.map("engines", &[]);
    let mut engines = Engines::default();
    for (name, field) in map.fields() {
        if engines.written.len() == ENGINES {
            field.tell(format!("is one too many; at most {ENGINES}"));
            break;
        }
        engines.written.insert(name.to_owned());
        let Some(engine) = engine(name, &field, environment) else {
            engines.unread = true;
            continue;
        };
        let id = engine.engine.id();
        let is_rival = |other: &Settings| other.default && other.engine.id() == id;
        if engine.default && engines.settings.iter().any(is_rival) {
            field.tell("is a second `default`; references without a name need exactly one");
        }
        engines.settings.push(engine);
    }
    engines
}

fn engine(name: &str, field: &Field<'_>, environment: &Environment) -> Option<Settings> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let name_fits = (1..=PROFILE_BYTES).contains(&name.len()) && name.bytes().all(is_name);
    if !name_fits {
        field.tell(format!(
            "the name of an engine is 1 to {PROFILE_BYTES} letters, digits, `-`, `_` or `.`"
        ));
    }
    let written = field.node().get("engine").and_then(Node::as_str);
    let map = field.map(&known_keys(written.and_then(EngineId::parse)));
    let id = map.required("engine", id);
    let default = map.optional("default", boolean).unwrap_or(false);
    let refresh = map.optional("refresh", duration(REFRESH_RANGE));
    let max_stale = map.optional("credential-max-stale", duration(STALE_RANGE));
    let engine = match id? {
        #[cfg(feature = "aws")]
        EngineId::S3 => EngineSettings::S3(aws::read(&map, environment)?),
        #[cfg(feature = "aws")]
        EngineId::SecretsManager => EngineSettings::SecretsManager(aws::read(&map, environment)?),
        #[cfg(feature = "google")]
        EngineId::Gcs => EngineSettings::Gcs(google::read(&map, CLOUD_STORAGE)?),
        #[cfg(feature = "google")]
        EngineId::GoogleSecretsManager => {
            EngineSettings::GoogleSecretsManager(google::read(&map, SECRET_MANAGER)?)
        }
        EngineId::File => EngineSettings::File(file::read(&map)?),
        EngineId::Kubernetes => EngineSettings::Kubernetes(kubernetes::read(&map, environment)?),
        EngineId::Noop => EngineSettings::Noop,
        EngineId::Vault => EngineSettings::Vault(vault::read(&map)?),
        #[cfg(not(all(feature = "aws", feature = "google")))]
        _ => return None,
    };
    Some(Settings {
        name: name.to_owned(),
        default,
        refresh: refresh.unwrap_or(REFRESH),
        max_stale: max_stale.unwrap_or(MAX_STALE),
        engine,
    })
}

/// The keys of a connection; none, which is any, where its engine is not known: only that is told.
fn known_keys(id: Option<EngineId>) -> Vec<&'static str> {
    let own: &[&str] = match id {
        #[cfg(feature = "aws")]
        Some(EngineId::S3 | EngineId::SecretsManager) => &aws::KEYS,
        #[cfg(feature = "google")]
        Some(EngineId::Gcs | EngineId::GoogleSecretsManager) => &google::KEYS,
        Some(EngineId::File) => &file::KEYS,
        Some(EngineId::Kubernetes) => &kubernetes::KEYS,
        Some(EngineId::Noop) => &[],
        Some(EngineId::Vault) => &vault::KEYS,
        #[cfg(not(all(feature = "aws", feature = "google")))]
        Some(_) => return Vec::new(),
        None => return Vec::new(),
    };
    COMMON.iter().chain(own).copied().collect()
}

fn id(field: &Field<'_>) -> Parsed<EngineId> {
    let text = text(field)?;
    match EngineId::parse(&text) {
        #[cfg(feature = "aws")]
        Some(id @ (EngineId::S3 | EngineId::SecretsManager)) => Ok(id),
        #[cfg(not(feature = "aws"))]
        Some(id @ (EngineId::S3 | EngineId::SecretsManager)) => Err(not_built(id, "aws")),
        #[cfg(feature = "google")]
        Some(id @ (EngineId::Gcs | EngineId::GoogleSecretsManager)) => Ok(id),
        #[cfg(not(feature = "google"))]
        Some(id @ (EngineId::Gcs | EngineId::GoogleSecretsManager)) => Err(not_built(id, "google")),
        Some(id) => Ok(id),
        None => Err(format!(
            "`{}` is no engine; there are {}",
            printable(&text),
            EngineId::ALL
                .map(|id| format!("`{}`", id.as_str()))
                .join(", ")
        )),
    }
}

#[cfg(not(all(feature = "aws", feature = "google")))]
fn not_built(id: EngineId, feature: &str) -> String {
    let id = id.as_str();
    format!("`{id}` needs a program that is built with the cargo feature `{feature}`")
}

/// `https://host` or `https://host:port`.
fn url(field: &Field<'_>) -> Parsed<String> {
    let text = text(field)?;
    let uri = text.parse::<http::Uri>().ok().filter(|uri| {
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let host = uri.authority().is_some_and(|at| !at.as_str().contains('@'));
        uri.scheme_str() == Some("https") && bare && host
    });
    if uri.is_none() {
        // Not quoted: an address with a password in it would be.
        return Err("must be https://host or https://host:port".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}
