//! Named connections to secret engines.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::SERVICE_ACCOUNT;
use crate::config::reader::{Field, Map, Parsed, printable};
use crate::config::text::{boolean, duration, path, text};
use crate::credential::vault::{AuthMethod, REFRESH, Settings};

/// Most connections.
const ENGINES: usize = 64;

/// Longest name of a connection, in bytes.
const PROFILE_BYTES: usize = 64;

/// Range of `refresh`.
const RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));

/// Where the Kubernetes method is mounted, where the configuration says nothing else.
const MOUNT: &str = "kubernetes";

const KEYS: [&str; 6] = ["address", "auth", "ca-file", "default", "engine", "refresh"];

/// What stands under `engines`.
#[derive(Default)]
pub(super) struct Engines {
    /// Those that can be used.
    pub(super) settings: Vec<Settings>,
    /// All that are written, so that an account is not told off for the mistake of its engine.
    pub(super) names: BTreeSet<String>,
    /// Whether one of them is, or may be meant to be, for references without a name.
    pub(super) has_default: bool,
}

pub(super) fn read(root: &Map<'_>) -> Engines {
    let map = root.map("engines", &[]);
    let mut engines = Engines::default();
    for (name, field) in map.fields() {
        if engines.names.len() == ENGINES {
            field.tell(format!("is one too many; at most {ENGINES}"));
            break;
        }
        engines.names.insert(name.to_owned());
        let Some(engine) = engine(name, &field) else {
            engines.has_default = true;
            continue;
        };
        if engine.default && engines.settings.iter().any(|other| other.default) {
            field.tell("is a second `default`; references without a name need exactly one");
        }
        engines.has_default |= engine.default;
        engines.settings.push(engine);
    }
    engines
}

fn engine(name: &str, field: &Field<'_>) -> Option<Settings> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let name_fits = (1..=PROFILE_BYTES).contains(&name.len()) && name.bytes().all(is_name);
    if !name_fits {
        field.tell(format!(
            "the name of an engine is 1 to {PROFILE_BYTES} letters, digits, `-`, `_` or `.`"
        ));
    }
    let map = field.map(&KEYS);
    let sort = map.required("engine", sort);
    let address = map.required("address", url);
    let ca_file = map.required("ca-file", path);
    let auth = auth(&map.map("auth", &["method", "mount", "role", "token-file"]));
    let default = map.optional("default", boolean).unwrap_or(false);
    let refresh = map.optional("refresh", duration(RANGE.0..=RANGE.1));
    let () = sort?;
    Some(Settings {
        name: name.to_owned(),
        address: address?,
        ca_file: ca_file?,
        auth: auth?,
        default,
        refresh: refresh.unwrap_or(REFRESH),
    })
}

fn sort(field: &Field<'_>) -> Parsed<()> {
    match text(field)?.as_str() {
        "vault" => Ok(()),
        other => Err(format!(
            "`{}` is not available in this version; `vault` (also for OpenBao) is",
            printable(other)
        )),
    }
}

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

fn auth(map: &Map<'_>) -> Option<AuthMethod> {
    let method = map.required("method", text)?;
    let foreign = |keys: &[&str]| {
        for key in keys.iter().filter(|key| map.field(key).is_some()) {
            map.tell(key, format!("does not belong to the method `{method}`"));
        }
    };
    match method.as_str() {
        "kubernetes" => {
            let mount = map.optional("mount", text);
            let token_file = map.optional("token-file", path);
            Some(AuthMethod::Kubernetes {
                role: map.required("role", text)?,
                mount: mount.unwrap_or_else(|| MOUNT.to_owned()),
                token_file: token_file
                    .unwrap_or_else(|| PathBuf::from(SERVICE_ACCOUNT).join("token")),
            })
        }
        "token" => {
            foreign(&["mount", "role"]);
            Some(AuthMethod::TokenFile(map.required("token-file", path)?))
        }
        other => {
            let got = printable(other);
            map.tell(
                "method",
                format!("must be `kubernetes` or `token`, got `{got}`"),
            );
            None
        }
    }
}
