//! Where an account's credential comes from, and what its kubeconfig may do.

use std::path::{Path, PathBuf};

use super::SERVICE_ACCOUNT;
use super::engines::{Engines, STALE_RANGE};
use crate::config::reader::{Field, Map, Parsed, nearest, printable};
use crate::config::source::Environment;
use crate::config::text::{boolean, duration, path, text};
use crate::credential::{EngineId, Minting, Reference, Relaxation, Rules, Source};

/// What a credential can be; exactly one of them.
const CREDENTIALS: [&str; 3] = ["kubeconfig-file", "secret", "service-account"];

const KEYS: [&str; 8] = [
    "allow",
    "context",
    "credential-max-stale",
    "exec",
    "kubeconfig-file",
    "secret",
    "service-account",
    "token",
];

/// Most commands of an account, and most words of one.
const COMMANDS: usize = 64;

pub(super) fn read(
    account: &Map<'_>,
    engines: &Engines,
    environment: &Environment,
) -> Option<Source> {
    let map = account.map("credential", &KEYS);
    let is_there = |key: &&&str| map.field(key).is_some();
    if CREDENTIALS.iter().filter(is_there).count() != 1 {
        account.tell(
            "credential",
            format!("needs exactly one of `{}`", CREDENTIALS.join("`, `")),
        );
        return None;
    }
    let context = map.optional("context", text);
    let max_stale = map.optional("credential-max-stale", duration(STALE_RANGE));
    if max_stale.is_some() && map.field("secret").is_none() {
        map.tell("credential-max-stale", "belongs to `secret`");
    }
    if map.field("service-account").is_some() {
        for key in ["allow", "context", "exec", "token"] {
            if map.field(key).is_some() {
                map.tell(key, "belongs to a kubeconfig, not to `service-account`");
            }
        }
        return service_account(&map, environment);
    }
    let rules = rules(&map, engines);
    if map.field("kubeconfig-file").is_some() {
        let path = map.optional("kubeconfig-file", path)?;
        let rules = rules?;
        return Some(Source::KubeconfigFile {
            path,
            context,
            rules,
        });
    }
    let reference = map.optional("secret", |field| reference(field, engines))?;
    Some(Source::Secret {
        reference,
        context,
        rules: rules?,
        max_stale,
    })
}

fn service_account(map: &Map<'_>, environment: &Environment) -> Option<Source> {
    if !map.optional("service-account", boolean)? {
        map.tell("service-account", "must be `true`, or left out");
        return None;
    }
    let host = environment.service_host.clone();
    let port = environment.service_port.as_deref();
    let port = port.and_then(|port| port.parse().ok());
    if host.is_none() || port.is_none() {
        map.tell(
            "service-account",
            "works in a pod only: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; \
             elsewhere use `kubeconfig-file`",
        );
    }
    Some(Source::ServiceAccount {
        host: host?,
        port: port?,
        mount: PathBuf::from(SERVICE_ACCOUNT),
    })
}

fn reference(field: &Field<'_>, engines: &Engines) -> Parsed<Reference> {
    let parsed = Reference::parse(&text(field)?).map_err(|error| error.to_string())?;
    engines.check(&parsed).map(|()| parsed)
}

// ---------------------------------------------------------------- rules

fn rules(map: &Map<'_>, engines: &Engines) -> Option<Rules> {
    let allow = map.list("allow", Relaxation::ALL.len(), |field| {
        field.read(relaxation)
    });
    let allow = allow.unwrap_or_default();
    let exec = map.list("exec", COMMANDS, |field| command(&field));
    let exec = exec.unwrap_or_default();
    let may_run = allow.contains(&Relaxation::Exec);
    if may_run && exec.is_empty() {
        map.tell("exec", "must list the commands that `allow: [exec]` is for");
    }
    if !may_run && !exec.is_empty() {
        map.tell("exec", "runs nothing unless `allow` has `exec`");
    }
    let token = match map.field("token") {
        Some(field) => Some(minting(&field, engines)?),
        None => None,
    };
    if token.is_some() && may_run {
        map.tell("token", "mints in place of a command; leave out `exec`");
    }
    Some(Rules { allow, exec, token })
}

fn relaxation(field: &Field<'_>) -> Parsed<Relaxation> {
    let text = text(field)?;
    let known = Relaxation::ALL.map(Relaxation::as_str);
    let found = Relaxation::ALL.into_iter().find(|one| one.as_str() == text);
    found.ok_or_else(|| {
        let got = printable(&text);
        match nearest(&text, &known) {
            Some(near) => format!("`{got}` is nothing that can be allowed; did you mean `{near}`?"),
            None => format!(
                "`{got}` is nothing that can be allowed; known are `{}`",
                known.join("`, `")
            ),
        }
    })
}

fn command(field: &Field<'_>) -> Option<Vec<String>> {
    let argv = field.items(COMMANDS, |word| word.read(text))?;
    let is_absolute = argv
        .first()
        .is_some_and(|program| Path::new(program).is_absolute());
    if !is_absolute {
        field.tell("must begin with the absolute path of a program");
        return None;
    }
    Some(argv)
}

fn minting(field: &Field<'_>, engines: &Engines) -> Option<Minting> {
    let map = field.map(&["cluster", "eks", "gke"]);
    let profile = |key: &str, engine: EngineId| {
        map.optional(key, |field| {
            let profile = text(field)?;
            engines.check_minting(&profile, engine).map(|()| profile)
        })
    };
    let (has_eks, has_gke) = (map.field("eks").is_some(), map.field("gke").is_some());
    match (has_eks, has_gke) {
        (true, false) => {
            let cluster = map.required("cluster", text);
            Some(Minting::Eks {
                profile: profile("eks", EngineId::SecretsManager)?,
                cluster: cluster?,
            })
        }
        (false, true) => {
            if map.field("cluster").is_some() {
                map.tell("cluster", "belongs to `eks`");
            }
            let profile = profile("gke", EngineId::GoogleSecretsManager)?;
            Some(Minting::Gke { profile })
        }
        (true, true) | (false, false) => {
            field.tell("needs exactly one of `eks`, `gke`");
            None
        }
    }
}
